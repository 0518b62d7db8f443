// ReconstructionViewer: what a masked method paints where it could not see, and how good that is.
import { row, unpack } from "./lib/arrays.js";
import { h, setAttribute, setText } from "./lib/dom.js";
import { formatPercent } from "./lib/format.js";
import { createFrame } from "./lib/frame.js";
import { helpBox } from "./lib/help.js";
import { throttle } from "./lib/scheduler.js";
import { slider } from "./lib/slider.js";
import { createBars, createPatch } from "./reconstruction/numbers.js";
import { errorMap, hiddenPixels, masked, pasted } from "./reconstruction/pictures.js";
import { createRows } from "./reconstruction/rows.js";
import { createStage } from "./reconstruction/stage.js";

const LOST = "The kernel was restarted: the pictures still work, but a new mask needs the cell to be run again.";
const TRAITS = ["image", "patch", "frame", "wipe", "beside"];
const ERROR_TOP = 0.5; // difference that has the lightest colour
const HELP = {
  all: "The mean squared difference where the picture was hidden; white minus black is 1. Mean colour and blur have learned nothing: who does not beat the blur has only learned that neighbours are alike.",
  ours: "Mean squared error of the painted pixels, where they were hidden; white minus black is 1.",
  mean: "The same for painting the mean colour of the visible pixels everywhere.",
  blur: "The same for spreading the visible colours around: what one gets without knowing anything about objects.",
  own: "The same for painting each hidden patch in its own true mean grey, which is borrowed too: what this network gets for the answer 0, and so its fair rival.",
};

function render({ model, el }) {
  const frame = createFrame({ model, el }, { name: "reconstruction", label: "Reconstruction viewer", lost: LOST, onTheme: () => draw() });
  const { root, body, page, tell } = frame;
  const state = Object.fromEntries(TRAITS.map((name) => [name, model.get(name)]));
  let data = {};

  const send = { wipe: throttle((value) => tell("wipe", value), 120), frame: throttle((value) => tell("frame", value), 120) };
  const set = (name, value) => {
    if (JSON.stringify(state[name]) === JSON.stringify(value)) return;
    state[name] = value;
    name === "wipe" ? stage.setWipe(value) : draw(name);
    (send[name] ?? ((v) => tell(name, v)))(value);
  };
  const stage = createStage({ onWipe: (share) => set("wipe", share), onPatch: (patch) => set("patch", patch) });
  const rows = createRows({ onImage: (image) => set("image", image), onColumn: (name) => set("beside", name.toLowerCase()) });
  const bars = createBars(),
    patch = createPatch();
  const time = slider("Time", { min: 0, step: 1 }, (value) => set("frame", value));
  const ratio = slider("Hidden share", { min: 0.05, max: 0.95, step: 0.05 }, (value) => setText(ratio.out, formatPercent(value)));
  ratio.input.addEventListener("change", () => tell("ratio", Number(ratio.input.value)));
  const fresh = h("button", { type: "button", class: "nnb-button", on: { click: () => tell("seed", model.get("seed") + 1) } }, "New mask");
  const masks = h("div", { class: "nnb-masks" }, ratio.field, fresh);
  const title = h("h3", { class: "nnb-title" }),
    notes = h("div", { class: "nnb-notes" }),
    said = h("div", { class: "nnb-quiet" });
  const whose = h(
    "div",
    { class: "nnb-bars-head" },
    h("b", {}, "Squared error on hidden pixels"),
    helpBox("About the error", HELP.all),
    h("span", { class: "nnb-quiet" }),
  );
  body.append(
    h("div", { class: "nnb-top" }, title, time.field, masks),
    notes,
    h("div", { class: "nnb-main" }, h("div", { class: "nnb-side" }, stage.root, patch.root), h("div", { class: "nnb-more" }, h("div", {}, whose, bars.root), rows.root, said)),
  );

  function load() {
    const names = ["images", "mask", "frames", "scores", "baselines", "words"];
    data = Object.fromEntries(names.map((name) => [name, unpack(model.get(name))]));
    for (const name of TRAITS) state[name] = model.get(name);
    const about = model.get("about") ?? {},
      times = model.get("times") ?? [];
    setText(title, about.algorithm ?? "");
    notes.replaceChildren(...(about.notes ?? []).map((text) => h("p", {}, text)));
    time.field.hidden = times.length < 2;
    time.input.max = Math.max(0, times.length - 1);
    masks.hidden = page || Boolean(about.fixed) || !data.mask;
    ratio.input.value = model.get("ratio");
    setText(ratio.out, formatPercent(about.share ?? model.get("ratio")));
    draw();
  }

  /** The pictures of one image: each column's name, and what is in it. */
  function pictures(i) {
    const image = row(data.images, i);
    if (!data.mask) return { image, columns: { Original: { image } } };
    const mask = row(data.mask, i),
      hidden = hiddenPixels(mask, image.shape);
    const columns = { Original: { image }, Masked: { image: masked(image, hidden) } };
    const at = data.frames && Math.min(state.frame, data.frames.shape[0] - 1);
    const painted = data.frames ? row(row(data.frames, at), i) : null;
    if (painted) {
      columns.Painted = { image: painted };
      columns["Pasted in"] = { image: pasted(image, painted, hidden) };
      columns.Error = { map: errorMap(image, painted), high: ERROR_TOP };
    }
    if (data.words) {
      const words = row(row(data.words, Math.min(state.frame, data.words.shape[0] - 1)), i);
      columns.Word = { map: { data: Float32Array.from(words.data, (w) => (w ? 2 - w : NaN)), shape: words.shape }, high: 1, words: words.data };
    }
    return { image, mask, painted, columns };
  }

  function draw(changed) {
    if (!data.images) return;
    const times = model.get("times") ?? [],
      count = data.images.shape[0],
      at = Math.min(state.frame, Math.max(0, times.length - 1));
    const score = (i, k) => (data.scores ? data.scores.data[(Math.min(at, data.scores.shape[0] - 1) * count + i) * 2 + k] : NaN);
    if (!["patch", "image", "beside"].includes(changed)) {
      const all = Array.from({ length: count }, (_, i) => pictures(i).columns);
      rows.draw(Object.keys(all[0]), all.map((one) => Object.values(one)), all.map((_, i) => score(i, 1)));
    }
    const { image, mask, painted, columns } = pictures(state.image);
    const known = Object.keys(columns).slice(1),
      beside = known.find((name) => name.toLowerCase() === state.beside) ?? known[0];
    rows.select(state.image, beside);
    stage.setPictures(image, columns[beside] ?? { image }, ["original", beside?.toLowerCase() ?? ""]);
    stage.setWipe(state.wipe);
    stage.setPatch(mask ? state.patch : [], mask?.shape ?? null);
    if (mask) patch.draw(image, painted, mask, state.patch);
    const base = (k) => (data.baselines ? data.baselines.data[state.image * 3 + k] : NaN);
    whose.hidden = !data.scores;
    setText(whose.lastChild, `picture ${state.image + 1}`);
    bars.draw(
      data.scores
        ? [
            { name: model.get("about")?.algorithm ?? "painted", value: score(state.image, 1), help: HELP.ours, ours: true },
            { name: "mean colour", value: base(0), help: HELP.mean },
            { name: "blur", value: base(1), help: HELP.blur },
            { name: "own mean", value: base(2), help: HELP.own },
          ]
        : [],
    );
    time.input.value = at;
    setText(time.out, times[at] ?? "");
    setAttribute(time.input, "aria-valuetext", times[at] ?? "");
    const sentences = [];
    if (mask) sentences.push(`${formatPercent(model.get("about")?.share)} of the patches are hidden.`);
    if (data.scores) sentences.push(`Whole picture ${score(state.image, 0).toFixed(4)}; errors are coloured from 0 to ${ERROR_TOP}.`);
    const words = columns.Word?.words;
    if (words) {
      const asked = words.filter((w) => w > 0).length;
      sentences.push(`Right words: yellow, ${words.filter((w) => w === 1).length} of ${asked}; wrong: violet.`);
    }
    if (page && mask) sentences.push("Another mask needs a kernel: run this in a notebook.");
    setText(said, sentences.join(" "));
    root.dataset.frame = at;
    root.dataset.ready = "true";
  }

  load();
  for (const name of TRAITS)
    frame.on(`change:${name}`, () => {
      if (JSON.stringify(state[name]) === JSON.stringify(model.get(name))) return;
      state[name] = model.get(name);
      name === "wipe" ? stage.setWipe(state.wipe) : draw(name);
    });
  let waiting = false;
  for (const name of ["images", "mask", "frames", "scores", "baselines", "words", "times", "about", "ratio"])
    frame.on(`change:${name}`, () => {
      if (!waiting) queueMicrotask(() => ((waiting = false), load()));
      waiting = true;
    });
  return () => {
    send.wipe.cancel();
    send.frame.cancel();
    frame.dispose();
  };
}

export default { render };
