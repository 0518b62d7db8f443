// AttentionViewer: whom does each token look at? One picture, all heads of a layer, all layers in two small charts.
import { row, unpack } from "./lib/arrays.js";
import { h, setAttribute, setText } from "./lib/dom.js";
import { formatPercent, formatPlain } from "./lib/format.js";
import { createFrame } from "./lib/frame.js";
import { colourMap, paintImage, pixelCanvas } from "./lib/pixels.js";
import { slider } from "./lib/slider.js";
import { createDots } from "./attention/dots.js";
import { createHeads } from "./attention/heads.js";
import { entropy, largest, lookFrom, readMaps, tokenOf, topMass } from "./attention/maps.js";
import { createStage, queryCell } from "./attention/stage.js";

const LOST = "The kernel was restarted: what is on the page still works; other layers and patches need the cell to be run again.";
const TRAITS = ["image", "layer", "head", "query", "rollout", "opacity", "mass"];
const HELP = {
  distance: "How far from its own patch a head looks, in pixels: the mean of weight × distance over all patches. Heads that look near act like convolutions.",
  entropy: "How widely a head looks. 0: at one token only. ln N: at all N tokens alike; e to this power is a number of tokens.",
  mass: "Colours only the patches that together hold this share of the attention, as in the figures of the DINO paper.",
};

function render({ model, el }) {
  const frame = createFrame({ model, el }, { name: "attention", label: "Attention viewer", lost: LOST, onTheme: () => draw(), onResize: () => draw() });
  const { root, body, page, tell } = frame;
  const state = Object.fromEntries(TRAITS.map((name) => [name, model.get(name)]));
  let images, stats, layers, cache, hovered;

  const set = (name, value) => {
    if (JSON.stringify(state[name]) === JSON.stringify(value)) return;
    state[name] = value;
    draw();
    tell(name, value);
  };
  const stage = createStage({ onQuery: (query) => ((hovered = null), set("query", query)), onHover: (place) => ((hovered = place), readOut()) });
  const heads = createHeads({ onHead: (head) => set("head", head) });
  const pick = (layer, head) => {
    set("layer", layer);
    if (head != null && !state.rollout) set("head", head);
  };
  const distance = createDots({ title: "Mean distance", unit: "px", help: HELP.distance, onPick: pick });
  const spread = createDots({ title: "Entropy", unit: "nats", help: HELP.entropy, onPick: pick });
  const layer = slider("Layer", { min: 0, step: 1 }, (value) => set("layer", value));
  const opacity = slider("Opacity", { min: 0, max: 1, step: 0.05 }, (value) => set("opacity", value));
  const mass = slider("Share shown", { min: 0.05, max: 1, step: 0.05 }, (value) => set("mass", value), HELP.mass);
  const path = h("span", { class: "nnb-path" });
  const modes = ["Heads", "Rollout"].map((name, i) =>
    h("button", { type: "button", title: i ? "Attention multiplied through all layers up to this one" : "", on: { click: () => set("rollout", i === 1) } }, name),
  );
  const kinds = h("div", { class: "nnb-segments", role: "group", "aria-label": "What is shown" }, ...modes);
  const tokens = h("div", { class: "nnb-tokens", role: "group", "aria-label": "Which token looks" });
  const thumbs = h("div", { class: "nnb-thumbs", role: "group", "aria-label": "Picture" });
  const scale = pixelCanvas("colours from low to high", { class: "nnb-pixels nnb-scale", "aria-hidden": "true" });
  const high = h("span", {}),
    readout = h("div", { class: "nnb-readout", "aria-live": "polite" }),
    left = h("div", { class: "nnb-left-out" });
  body.append(
    h("div", { class: "nnb-side" },
      thumbs,
      stage.root,
      h("div", { class: "nnb-legend" }, h("span", {}, "0"), scale, high),
      readout,
      h("div", { class: "nnb-who" }, h("span", { class: "nnb-quiet" }, "Looking"), tokens),
      h("div", { class: "nnb-pair" }, opacity.field, mass.field),
    ),
    h("div", { class: "nnb-main" },
      h("div", { class: "nnb-bar" }, layer.field, kinds),
      path,
      heads.root,
      h("div", { class: "nnb-charts" }, distance.root, spread.root),
      left,
    ),
  );

  function load() {
    images = unpack(model.get("images"));
    stats = unpack(model.get("stats"));
    layers = model.get("layers") ?? [];
    cache = new Map();
    thumbs.replaceChildren(
      ...(images.shape[0] > 1 ? Array.from({ length: images.shape[0] }, (_, i) => thumb(i)) : []),
    );
    layer.input.max = layers.length - 1;
    kinds.hidden = !layers.some((one) => one.rollout);
    const ramp = new Uint8Array(256 * 3);
    ramp.set(colourMap("viridis"));
    paintImage(scale, { data: ramp, shape: [1, 256, 3] });
    draw();
  }

  function thumb(i) {
    const canvas = pixelCanvas("", { "aria-hidden": "true" });
    paintImage(canvas, row(images, i));
    return h("button", { type: "button", class: "nnb-thumb", "aria-label": `Picture ${i + 1}`, on: { click: () => set("image", i) } }, canvas);
  }

  /** The maps of the shown layer and image, from the page or as Python has just sent them. */
  function maps(token) {
    const key = `${state.image}.${state.layer}${state.rollout ? ".rollout" : ""}`;
    if (!cache.has(key)) cache.set(key, readMaps(model.get("maps")?.[key]));
    const held = cache.get(key),
      extra = model.get("extra");
    if (held && (token == null || held.queries.data.includes(token))) return held;
    return extra?.key === key ? readMaps(extra.map) : held;
  }

  function draw() {
    const info = layers[state.layer];
    if (!info) return;
    const grid = model.get("grid") ?? [],
      token = tokenOf(state.query, grid, info),
      held = maps(token);
    const count = state.rollout ? 1 : info.heads,
      head = state.rollout ? -1 : Math.min(state.head, info.heads - 1);
    const looks = held ? Array.from({ length: count + 1 }, (_, i) => lookFrom(held, token, i - 1, info.grid)) : [];
    const shown = looks[head + 1] ?? null;
    root.dataset.token = token ?? "";
    stage.setImage(row(images, state.image));
    const named = tokenName(state.query, info);
    stage.setQuery(state.query, grid, info.grid, `The picture. ${named} looks. Arrow keys or a click choose another patch.`);
    const keep = shown && topMass(shown.cells, state.mass),
      most = shown ? largest(shown.cells) : 0;
    const dark = root.dataset.theme === "dark";
    stage.setHeat(shown?.cells ?? null, info.grid, { high: most, keep, opacity: state.opacity, veil: dark ? [21, 24, 28] : [255, 255, 255] });
    heads.draw(looks, { grid: info.grid, query: queryCell(state.query, grid, info.grid), chosen: head, rollout: state.rollout, mass: state.mass });
    const [, , widest] = stats.shape,
      values = [0, 1].map((k) =>
        layers.map((one, l) => Array.from({ length: one.heads }, (_, i) => stats.data[((state.image * layers.length + l) * widest + i) * 2 + k])),
      );
    distance.draw(values[0], state.layer, head);
    spread.draw(values[1], state.layer, head);
    show(info, named, shown, most);
    root.dataset.ready = "true";
  }

  function tokenName(query, info) {
    if (query.length === 2) return `Patch ${query[0] + 1}, ${query[1] + 1}`;
    return query[0] === 0 ? "CLS" : `Token ${query[0] + 1}${info.special <= query[0] ? " (not here)" : ""}`;
  }

  function show(info, named, shown, most) {
    layer.input.value = state.layer;
    setText(layer.out, `${state.layer + 1} of ${layers.length}`);
    setAttribute(layer.input, "aria-valuetext", `${state.layer + 1} of ${layers.length}, ${info.path}`);
    const where = info.windows ? `${info.windows} windows of ${info.tokens} tokens` : `${info.tokens} tokens`;
    setText(path, `${info.path} · ${info.heads} ${info.heads === 1 ? "head" : "heads"} · ${where}`);
    opacity.input.value = state.opacity;
    setText(opacity.out, `${Math.round(100 * state.opacity)} %`);
    mass.input.value = state.mass;
    setText(mass.out, `${Math.round(100 * state.mass)} %`);
    modes.forEach((button, i) => setAttribute(button, "aria-pressed", String(state.rollout === (i === 1))));
    thumbs.childNodes.forEach((button, i) => setAttribute(button, "aria-pressed", String(i === state.image)));
    const special = Math.max(0, ...layers.map((one) => one.special));
    if (tokens.childNodes.length !== special + 1)
      tokens.replaceChildren(
        ...Array.from({ length: special }, (_, i) =>
          h("button", { type: "button", on: { click: () => set("query", [i]) } }, i ? `Token ${i + 1}` : "CLS"),
        ),
        h("button", { type: "button", on: { click: () => set("query", state.query.length === 2 ? state.query : (model.get("grid") ?? []).map((n) => Math.floor(n / 2))) } }),
      );
    tokens.childNodes.forEach((button, i) =>
      setAttribute(button, "aria-pressed", String(i === special ? state.query.length === 2 : state.query.length === 1 && state.query[0] === i)),
    );
    setText(tokens.lastChild, state.query.length === 2 ? named : "A patch");
    tokens.lastChild.hidden = !model.get("grid")?.length;
    setText(high, shown ? formatPercent(most) : "–");
    setText(left, model.get("note") ? `${model.get("note")} ${page ? "The others need a kernel: run this in a notebook." : "The others come from Python when asked for."}` : "");
    readOut();
  }

  function readOut() {
    const info = layers[state.layer],
      grid = model.get("grid") ?? [],
      token = tokenOf(state.query, grid, info),
      held = maps(token),
      shown = held && lookFrom(held, token, state.rollout ? -1 : state.head, info.grid),
      named = tokenName(state.query, info);
    setAttribute(readout, "aria-live", hovered ? "off" : "polite"); // what looks is read out, what a pointer passes is not
    if (token == null) return setText(readout, `${named} does not look in this layer; choose ${info.special ? "CLS" : "a patch"}.`);
    if (!shown)
      return setText(readout, !info.grid.length ? "The tokens of this layer have no place in the picture." : page ? "This page does not carry this patch of this layer; CLS, or another layer, may be there." : "Asking Python …");
    if (hovered) {
      const [r, c] = hovered.map((share, i) => Math.min(info.grid[i] - 1, Math.max(0, Math.floor(share * info.grid[i])))),
        w = shown.cells[r * info.grid[1] + c];
      return setText(readout, Number.isNaN(w) ? `Patch ${r + 1}, ${c + 1}: out of sight` : `Patch ${r + 1}, ${c + 1} gets ${formatPercent(w)}`);
    }
    const wide = Math.exp(entropy(shown.weights)),
      others = info.special > 1 ? "tokens without a place" : state.query.length === 1 ? "itself" : "CLS",
      elsewhere = shown.elsewhere > 5e-4 ? `; ${formatPercent(shown.elsewhere)} goes to ${others}` : "";
    return setText(readout, `${named} looks at about ${formatPlain(Number(wide.toPrecision(2)))} of ${shown.weights.length} tokens${elsewhere}.`.replaceAll(" %", "\u00a0%"));
  }

  load();
  for (const name of TRAITS)
    frame.on(`change:${name}`, () => {
      state[name] = model.get(name);
      draw();
    });
  frame.on("change:extra", draw);
  for (const name of ["maps", "images", "stats"]) frame.on(`change:${name}`, load);
  return frame.dispose;
}

export default { render };
