// The film of a training: play, scrub, and a line of how the agreement of neighbours grew.
import { h, icon, s, setAttribute, setText } from "../lib/dom.js";

const PLAY = "M2.5 1.2v9.6L10.5 6Z",
  PAUSE = "M2.2 1.5h2.6v9H2.2ZM7.2 1.5h2.6v9H7.2Z",
  STEP = 650; // ms from one picture to the next

const still = () => !!globalThis.matchMedia?.("(prefers-reduced-motion: reduce)").matches;

/** Where the line of a measure runs from its least to its greatest, in a box of `w` × `h`: [[x, y], …]; what is missing is left out. */
export function sparkline(values, w, h) {
  const known = values.filter(Number.isFinite),
    high = Math.max(...known),
    low = Math.min(...known, high - 0.02); // a wobble in the last digit is no mountain
  return values
    .map((v, i) => [values.length > 1 ? (i / (values.length - 1)) * w : w / 2, h - 2 - ((v - low) / (high - low)) * (h - 4)])
    .filter((_, i) => Number.isFinite(values[i]));
}

/**
 * @param {(time: number) => void} onTime while the film runs, also between two pictures
 * @param {(frame: number) => void} onFrame when somebody has chosen a picture; −1 is the newest
 */
export function createTimeline(onTime, onFrame) {
  let frames = [],
    time = 0,
    goal = 0,
    speed = 1,
    playing = false,
    pending = 0,
    last = 0;
  const button = h("button", { type: "button", class: "nnb-button nnb-play", on: { click: toggle } }),
    slider = h("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Picture", on: { input: scrub } }),
    line = s("polyline", { fill: "none" }),
    spark = s("svg", { class: "nnb-spark", viewBox: "0 0 200 28", preserveAspectRatio: "none", "aria-hidden": "true" }, line),
    name = h("output", { class: "nnb-moment" }),
    measure = h("span", { class: "nnb-quiet" });
  const root = h("div", { class: "nnb-timeline", hidden: true }, button, h("div", { class: "nnb-track" }, spark, slider), h("div", { class: "nnb-moment-box" }, name, measure));

  const frameOf = (index) => (index >= frames.length - 1 ? -1 : index);
  const valueOf = (f) => f?.agreement ?? f?.spread;
  function label() {
    const frame = frames[Math.round(time)];
    setText(name, frame?.title || `picture ${Math.round(time) + 1}`);
    const value = valueOf(frame);
    setText(measure, value == null ? "" : `${frame.agreement != null ? "agreement" : "spread"} ${value.toFixed(2)}`);
    setAttribute(slider, "aria-valuetext", frame?.title || `picture ${Math.round(time) + 1}`);
    if (Number(slider.value) !== Math.round(time)) slider.value = Math.round(time);
    root.dataset.time = time.toFixed(2);
  }
  function face() {
    button.replaceChildren(icon(playing ? PAUSE : PLAY));
    setAttribute(button, "aria-label", playing ? "Pause the film" : "Play the film");
    root.dataset.playing = String(playing);
  }
  function tick(now) {
    pending = 0;
    const passed = Math.min(100, now - last);
    last = now;
    const target = playing ? frames.length - 1 : goal;
    const step = (passed / STEP) * (playing ? 1 : speed);
    if (still()) {
      // no motion: one picture after the other
      waited += passed;
      if (!playing) time = target;
      else if (waited > 1.4 * STEP) [time, waited] = [Math.min(target, Math.floor(time) + 1), 0];
    } else time = target > time ? Math.min(target, time + step) : Math.max(target, time - step);
    const there = time === target;
    if (there && playing) {
      playing = false;
      goal = time;
      face();
      onFrame(frameOf(time));
    }
    onTime(ease(time));
    label();
    if (!there || playing) run();
  }
  let waited = 0;
  // slower at each picture, so that one can see it
  const ease = (x) => {
    const f = x - Math.floor(x);
    return Math.floor(x) + f * f * (3 - 2 * f);
  };
  function run() {
    if (!pending) pending = requestAnimationFrame(tick);
  }
  function start() {
    if (!pending) last = performance.now();
    run();
  }
  function toggle() {
    playing = !playing;
    if (playing && time >= frames.length - 1) time = 0;
    if (!playing) {
      goal = Math.round(time);
      onFrame(frameOf(goal));
    }
    waited = 0;
    face();
    start();
  }
  function scrub() {
    playing = false;
    face();
    go(Number(slider.value));
    onFrame(frameOf(goal));
  }
  function go(index) {
    goal = Math.max(0, Math.min(frames.length - 1, index));
    speed = Math.max(2, 2.5 * Math.abs(goal - time));
    if (goal !== time) start();
  }
  face();
  return {
    root,
    get time() {
      return ease(time);
    },
    /** The list of pictures has changed; `frame` (−1: the newest) is to be shown. */
    setFrames(next, frame, jump) {
      const shown = frames[Math.round(time)]?.title,
        same = next.findIndex((f) => f.title && f.title === shown);
      if (next.length < frames.length && same >= 0) time = same;
      frames = next;
      time = Math.min(time, Math.max(0, next.length - 1));
      root.hidden = next.length < 2;
      setAttribute(slider, "max", Math.max(0, next.length - 1));
      line.setAttribute("points", sparkline(next.map((f) => valueOf(f) ?? NaN), 200, 28).map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" "));
      this.setFrame(frame, jump);
      label();
    },
    setFrame(frame, jump = false) {
      if (playing) return;
      const index = frame < 0 ? frames.length - 1 : Math.min(frame, frames.length - 1);
      if (jump) {
        time = goal = Math.max(0, index);
        label();
      } else go(index);
    },
    dispose() {
      if (pending) cancelAnimationFrame(pending);
    },
  };
}
