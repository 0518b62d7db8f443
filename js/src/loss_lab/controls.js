// Sliders for the settings of a loss, with the algorithm's own setting marked; the order of rows; the epochs.
import { h, setText } from "../lib/dom.js";
import { formatPlain } from "../lib/format.js";
import { SETTINGS } from "./numbers.js";
import { sliderOf } from "./words.js";

/** Between a slider's place, 0 to 1000, and its value. */
export const toValue = (place, low, high, scale) => {
  const share = place / 1000;
  const value = scale === "log" ? low * (high / low) ** share : low + share * (high - low);
  return scale === "whole" ? Math.round(value) : Number(value.toPrecision(3));
};
export const toPlace = (value, low, high, scale) => {
  const clamped = Math.min(Math.max(value, low), high);
  return 1000 * (scale === "log" ? Math.log(clamped / low) / Math.log(high / low) : (clamped - low) / (high - low));
};

/**
 * @param {object} options
 * @param {(name: string, value: any) => void} options.set
 */
export function createControls({ set, onFrame, onOrder, onGradient }) {
  const root = h("div", { class: "nnb-sliders" });
  const back = h("button", { type: "button", class: "nnb-button nnb-back" }, "The algorithm's own");
  const epoch = h("input", { type: "range", min: 0, step: 1, "aria-label": "Epoch", on: { input: () => onFrame(Number(epoch.value)) } }),
    when = h("output", {});
  const time = h("label", { class: "nnb-time" }, h("span", {}, "Epoch"), epoch, when);
  const order = segments("Order of rows and columns", { batch: "As in the batch", class: "By class" }, onOrder);
  const side = segments("Right picture", { p: "Softmax", g: "Gradient" }, (value) => onGradient(value === "g"));
  const bar = h("div", { class: "nnb-tools" }, order.root, side.root);
  let kind = "",
    fields = {},
    own = {};

  function build(next) {
    kind = next;
    fields = {};
    const parts = SETTINGS[kind].map((name) => {
      const made = name === "centred" ? tick(set) : slider(name, set, sliderOf(kind, name));
      fields[name] = made;
      return made.root;
    });
    root.replaceChildren(...parts, back);
  }
  back.addEventListener("click", () => {
    for (const name of Object.keys(fields)) set(name, name === "centred" ? true : name === "collapse" ? 0 : name === "iterations" ? Math.round(own[name]) : own[name]);
  });

  return {
    root,
    time,
    bar,
    update(frame, settings, { times, at, order: sorted, gradient, classes }) {
      if (frame.kind !== kind) build(frame.kind);
      own = frame.settings;
      for (const [name, field] of Object.entries(fields)) field.update(settings[name], own[name]);
      time.hidden = times.length < 2;
      epoch.max = Math.max(times.length - 1, 0);
      epoch.value = at;
      const wanted = times[Math.min(at, times.length - 1)] ?? frame.epoch;
      setText(when, `${formatPlain(wanted)}${wanted === frame.epoch ? "" : ", waiting for Python…"}`);
      order.root.hidden = ["correlation", "moments", "gaussian"].includes(frame.kind) || !classes.length;
      side.root.hidden = frame.kind !== "contrast";
      order.update(sorted);
      side.update(gradient ? "g" : "p");
    },
  };
}

function slider(name, set, [label, symbol, low, high, scale, help]) {
  const input = h("input", { type: "range", min: 0, max: 1000, step: scale === "whole" ? 1000 / (high - low) : 1, "aria-label": label }),
    output = h("output", {}),
    mark = h("i", { class: "nnb-own", title: "the algorithm's own" });
  const value = () => toValue(Number(input.value), low, high, scale);
  input.addEventListener("input", () => {
    const own = mark.dataset.value;
    const near = own != null && Math.abs(Number(input.value) - toPlace(Number(own), low, high, scale)) < 8;
    set(name, near ? Number(own) : value()); // it snaps to the algorithm's own
  });
  const root = h(
    "label",
    { class: "nnb-field", data: { setting: name } },
    h("span", { class: "nnb-field-head" }, h("span", { title: help }, symbol ? `${label} ${symbol}` : label), output),
    h("span", { class: "nnb-track" }, input, mark),
    h("small", {}, help),
  );
  return {
    root,
    update(now, own) {
      if (Math.abs(value() - now) > 1e-9 * Math.max(now, 1)) input.value = toPlace(now, low, high, scale);
      setText(output, formatPlain(now) || "0");
      input.setAttribute("aria-valuetext", formatPlain(now) || "0");
      mark.hidden = own == null;
      if (own == null) return;
      mark.dataset.value = own;
      mark.style.left = `calc(8px + (100% - 16px) * ${toPlace(own, low, high, scale) / 1000})`;
    },
  };
}

function tick(set) {
  const input = h("input", { type: "checkbox", on: { change: () => set("centred", input.checked) } });
  const root = h("label", { class: "nnb-tick", data: { setting: "centred" } }, input, " Subtract the centre");
  return { root, update: (now) => (input.checked = Boolean(now)) };
}

function segments(label, choices, choose) {
  const root = h(
    "div",
    { class: "nnb-segments", role: "group", "aria-label": label },
    ...Object.entries(choices).map(([key, text]) => h("button", { type: "button", data: { key }, on: { click: () => choose(key) } }, text)),
  );
  return {
    root,
    update(now) {
      for (const button of root.children) button.setAttribute("aria-pressed", String(button.dataset.key === now));
    },
  };
}
