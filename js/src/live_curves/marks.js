// What happened during a run, as marks across its curves: ends of epochs, checkpoints, changes, warnings.
import { formatCount } from "../lib/format.js";

const WHOLE = [1, 2, 5].flatMap((m) => Array.from({ length: 9 }, (_, e) => m * 10 ** e)).sort((a, b) => a - b);
const STEP_GAP = 28; // px between epoch lines below which they are not drawn

/** What an event of each kind is called, and the colour of its sign. */
const KINDS = {
  checkpoint: ["checkpoint", "soft"],
  lr: ["learning rate", "soft"],
  pause: ["paused", "soft"],
  resume: ["resumed", "soft"],
  stop: ["stopped", "bad"],
  failed: ["failed", "bad"],
  collapse: ["collapse warning", "bad"],
  recovery: ["recovered", "good"],
};

/** The tone of an event's sign: a name of a colour in the palette. */
export const toneOf = (kind) => KINDS[kind]?.[1] ?? "soft";

/** Epoch ends from `low` to `high` that can be told apart at this width; `stepsPerEpoch` in the unit of the axis. */
export function epochLines(stepsPerEpoch, high, width, low = 0) {
  if (!(stepsPerEpoch > 0) || !(high > low)) return [];
  const gap = (width * stepsPerEpoch) / (high - low);
  const every = WHOLE.find((n) => n * gap >= STEP_GAP);
  if (!every) return [];
  const lines = [],
    unit = every * stepsPerEpoch;
  for (let i = Math.floor(low / unit) + 1; i * unit < high; i++) lines.push(i * unit);
  return lines;
}

/** An event in words: "checkpoint: saved · step 120". */
export function eventText(event) {
  const name = KINDS[event.kind]?.[0] ?? event.kind;
  const says = event.text && !event.text.startsWith(name) ? `${name}: ${event.text}` : event.text || name;
  return `${says} · step ${formatCount(event.step)}`;
}

/** The events to mark: ends of epochs have lines of their own. */
export const markedEvents = (store) => store.events.filter((event) => event.kind !== "epoch");

/** All marks but those checkpoints that stand closer than `gap` px before the next one that stays; the newest stays. */
export function spaced(marks, gap = 14) {
  let next = Infinity;
  return marks
    .slice()
    .reverse()
    .filter(({ at, event }) => {
      if (event.kind !== "checkpoint") return true;
      if (next - at < gap) return false;
      next = at;
      return true;
    })
    .reverse();
}

/** Events within `reach` px of `px`. */
export const eventsAt = (marks, px, reach = 5) => marks.filter((mark) => Math.abs(mark.at - px) <= reach);

/** A small sign on top of an event's line; its shape says the kind, so that colour need not. */
export function drawGlyph(ctx, kind, x, y, colour) {
  const r = 3.2;
  const path = {
    checkpoint: [[-r, -r], [r, -r], [0, r]],
    stop: [[-r, -r], [r, -r], [r, r], [-r, r]],
    failed: [[-r, -r], [r, -r], [r, r], [-r, r]],
    lr: [[0, -1.3 * r], [1.3 * r, 0], [0, 1.3 * r], [-1.3 * r, 0]],
    collapse: [[0, -1.4 * r], [1.4 * r, r], [-1.4 * r, r]],
  }[kind]; // prettier-ignore
  ctx.fillStyle = colour;
  ctx.beginPath();
  if (path) path.forEach(([dx, dy], i) => (i ? ctx.lineTo(x + dx, y + dy) : ctx.moveTo(x + dx, y + dy)));
  else ctx.arc(x, y, r, 0, 2 * Math.PI);
  ctx.closePath();
  ctx.fill();
}
