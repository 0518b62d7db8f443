// LossLab: what a loss sees of one batch, and the loss again while its settings move. All numbers are made here.
import { row, unpack } from "./lib/arrays.js";
import { h, setAttribute, setText } from "./lib/dom.js";
import { formatNumber, formatPlain } from "./lib/format.js";
import { createFrame } from "./lib/frame.js";
import { createScheduler, throttle } from "./lib/scheduler.js";
import { createChart, plotOf } from "./loss_lab/chart.js";
import { createControls } from "./loss_lab/controls.js";
import { createMatrix } from "./loss_lab/matrix.js";
import { compute, openFrame, SETTINGS } from "./loss_lab/numbers.js";
import { pictures } from "./loss_lab/pictures.js";
import { createReadout } from "./loss_lab/readout.js";
import { createTally } from "./loss_lab/tally.js";
import { explain, titles } from "./loss_lab/words.js";

const LOST = "The kernel was restarted: this epoch can still be played with, but no other one can be fetched. Run the cell again to connect.";

function render({ model, el }) {
  const shell = createFrame({ model, el }, { name: "loss", label: "Loss lab", lost: LOST });
  const { root, body, on, tell } = shell;
  const pages = model.get("frames") ?? [];
  let frame = null,
    images = null,
    found = null,
    gradient = false,
    hover = null;

  const save = throttle(() => model.save_changes(), 80);
  const set = (name, value) => {
    model.set(name, value);
    save();
  };
  const settings = () => Object.fromEntries(SETTINGS[frame.kind].map((name) => [name, model.get(name)]));

  const title = h("h3", { class: "nnb-title" }),
    name = h("span", { class: "nnb-name" });
  const controls = createControls({ set, onFrame: (i) => tell("frame", i), onOrder: (order) => tell("order", order), onGradient });
  const tally = createTally();
  const said = h("p", { class: "nnb-said", "aria-live": "polite" }),
    notes = h("p", { class: "nnb-notes" });
  const matrices = [createMatrix(cellChanged), createMatrix(cellChanged)];
  const readout = createReadout();
  const chart = createChart();
  const empty = h("p", { class: "nnb-empty" }, "Nothing seen yet: the first look comes when training starts.");
  const all = h(
    "div",
    { class: "nnb-all", hidden: true },
    h("header", { class: "nnb-heading" }, title, name, controls.time),
    h(
      "div",
      { class: "nnb-split" },
      h("aside", { class: "nnb-side" }, controls.root, tally.root, chart.root),
      h(
        "div",
        { class: "nnb-main" },
        controls.bar,
        h("div", { class: "nnb-pictures" }, ...matrices.map((m) => m.root)),
        readout.root,
        said,
        notes,
      ),
    ),
  );
  body.append(empty, all);
  const plan = createScheduler(paint, root);

  function onGradient(value) {
    gradient = value;
    plan.request();
  }

  function cellChanged(cell, pinned) {
    if (pinned) {
      const old = model.get("selected") ?? [];
      const again = cell && old.length && cell[0] === old[0] && cell[1] === old[1];
      tell("selected", cell && !again ? cell : []);
    } else hover = cell;
    point();
  }
  function point() {
    const pinned = model.get("selected") ?? [];
    const cell = hover ?? (pinned.length === 2 ? pinned : null);
    for (const matrix of matrices) matrix.point(cell);
    const told = cell ? matrices.filter((matrix) => matrix.value(cell) !== undefined) : [];
    readout.draw(told.length ? cell : null, {
      values: told.map((matrix) => [matrix.picture, matrix.value(cell)]),
      picture: told[0]?.picture,
      images,
      row: (i) => row(images, i),
      classes: model.get("classes") ?? [],
      names: model.get("names") ?? [],
      passing: hover !== null,
    });
    if (frame && found) chart.draw(plotOf(frame, found, cell?.[0] ?? 0));
  }

  function load() {
    const packed = pages.length ? pages[Math.min(model.get("frame"), pages.length - 1)] : model.get("data");
    frame = openFrame(packed);
    if (frame) frame.plain = () => compute(frame, { collapse: 0 });
    images = unpack(model.get("pictures"));
    plan.request();
  }

  function paint() {
    empty.hidden = Boolean(frame);
    all.hidden = !frame;
    if (!frame) return setAttribute(root, "data-ready", "true");
    const now = settings(),
      classes = model.get("classes") ?? [];
    found = compute(frame, now);
    setText(title, titles[frame.kind]);
    setText(name, frame.name);
    controls.update(frame, now, { times: model.get("times") ?? [], at: model.get("frame"), order: model.get("order"), gradient, classes });
    const value = frame.scale * found.numbers.loss;
    const same = SETTINGS[frame.kind].every((key) => !(key in frame.settings) || close(Number(now[key]), frame.settings[key]));
    const remark = same && !now.collapse ? "at the algorithm's own settings" : `at its own settings ${formatNumber(frame.loss, 4)}`;
    tally.draw(frame.kind, found.numbers, value, remark);
    Object.assign(root.dataset, { kind: frame.kind, loss: String(value), own: String(frame.loss), frame: String(model.get("frame")) });
    const both = pictures(frame, found, now, { byClass: model.get("order") === "class", classes, gradient });
    both.forEach((picture, i) => matrices[i].draw(picture));
    setText(said, explain(frame, found, now));
    const factor = [frame.scale !== 1 && formatPlain(frame.scale), frame.facts.times_temperature && "τ"].filter(Boolean).join(" ");
    const times = !factor ? [] : [`The algorithm's loss is ${factor} times the mean over rows or directions.`];
    setText(notes, [...frame.notes, ...times].join(" "));
    point();
    root.dataset.ready = "true";
  }

  load();
  for (const key of new Set(Object.values(SETTINGS).flat())) on(`change:${key}`, () => plan.request());
  on("change:data", load);
  on("change:pictures", load);
  on("change:frame", () => (pages.length ? load() : plan.request()));
  on("change:times", () => plan.request());
  on("change:order", () => plan.request());
  on("change:classes", () => plan.request());
  on("change:selected", point);
  return () => {
    save.cancel();
    plan.dispose();
    shell.dispose();
  };
}

const close = (a, b) => Math.abs(a - b) <= 1e-6 * Math.max(Math.abs(b), 1e-3);

export default { render };
