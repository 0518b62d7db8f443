// The panel of knobs: one tab for each kind of view, one block for each step, one control for each setting.
import { h, setText } from "../lib/dom.js";
import { formatValue, nearest, viewNames, words } from "./state.js";

/**
 * @param {object} options
 * @param {(key: string, value: any) => void} options.onChange while a knob moves
 * @param {Record<string, any[]>|null} options.positions of a page: the values that each knob can take
 */
export function createKnobs({ onChange, positions }) {
  const tabs = h("div", { class: "nnb-segments nnb-kinds", role: "group", "aria-label": "Which views" });
  const box = h("div", { class: "nnb-steps" });
  const root = h("section", { class: "nnb-knobs", "aria-label": "Knobs" }, tabs, box);
  let fields = new Map(),
    structure = "",
    open = 0,
    panel = [];

  function build() {
    const groups = panel.map((group) => ({
      ...group,
      steps: group.steps
        .map((step) => ({ ...step, knobs: step.knobs.filter((knob) => !positions || positions[knob.key]) }))
        .filter((step) => step.knobs.length),
    }));
    open = Math.min(open, groups.length - 1);
    fields = new Map();
    tabs.hidden = groups.length < 2;
    tabs.replaceChildren(
      ...groups.map((group, i) =>
        h("button", { type: "button", "aria-pressed": String(i === open), on: { click: () => show(i) } }, viewNames(group.views)),
      ),
    );
    box.replaceChildren(
      ...groups.map((group, i) =>
        h(
          "div",
          { class: "nnb-kind", hidden: i !== open },
          ...group.steps.map((step) =>
            h(
              "div",
              { class: "nnb-step" },
              h("h3", { title: step.name }, step.name ? words(step.name) : "Views"),
              ...step.knobs.map((knob) => {
                const field = createField(knob, positions?.[knob.key], onChange);
                fields.set(knob.key, field);
                return field.root;
              }),
            ),
          ),
        ),
      ),
    );
  }

  function show(i) {
    open = i;
    [...tabs.children].forEach((tab, j) => tab.setAttribute("aria-pressed", String(i === j)));
    [...box.children].forEach((kind, j) => (kind.hidden = i !== j));
  }

  return {
    root,
    update(next) {
      panel = next;
      const now = JSON.stringify(panel.map((group) => group.steps.map((step) => step.knobs.map((knob) => knob.key))));
      if (now !== structure) {
        structure = now;
        open = 0;
        build();
      }
      [...tabs.children].forEach((tab, i) => setText(tab, viewNames(panel[i].views)));
      for (const group of panel)
        for (const step of group.steps) for (const knob of step.knobs) fields.get(knob.key)?.update(knob);
    },
    /** On a page one knob moves at a time: the others go back. */
    resetOthers(key) {
      for (const [other, field] of fields) if (other !== key) field.reset();
    },
  };
}

function createField(knob, positions, onChange) {
  const output = h("output", {});
  const head = h("span", { class: "nnb-field-head" }, h("span", { title: knob.help || null }, knob.label), output);
  let now = knob,
    control;
  const say = (value) => {
    setText(output, formatValue(knob, value));
    root.classList.toggle("nnb-turned", JSON.stringify(value) !== JSON.stringify(now.start));
  };
  const change = (value) => {
    say(value);
    onChange(knob.key, value);
  };
  const label = knob.label;
  if (knob.kind === "switch") control = toggle(label, change);
  else if (knob.kind === "choice") control = menu(knob.choices, label, change);
  else if (positions) control = slots(label, knob, () => positions, change);
  else if (knob.kind === "range") control = dual(label, knob, change);
  else if (knob.kind === "whole" || knob.kind === "count") control = slots(label, knob, () => (now.choices.length ? now.choices : [now.value]), change);
  else control = slider(label, knob, change);
  const root = h("div", { class: "nnb-field", data: { key: knob.key } }, head, control.node);
  const field = {
    root,
    update(next) {
      now = next;
      if (positions) return;
      if (!root.contains(document.activeElement) || !control.busy) control.set(next.value);
      say(control.busy && root.contains(document.activeElement) ? control.get() : next.value);
    },
    reset() {
      const to = positions ? knob.value : now.start; // the sets of a page were made around these values
      control.set(to);
      say(to);
    },
  };
  field.reset();
  return field;
}

function range(label, low, high, step, input) {
  return h("input", { type: "range", min: low, max: high, step, "aria-label": label, on: { input } });
}

/** A control that knows whether a finger is on it, so that an answer from Python does not pull it back. */
function guarded(node, control) {
  const made = { node, busy: false, ...control };
  node.addEventListener("pointerdown", () => (made.busy = true));
  for (const event of ["pointerup", "pointercancel", "focusout"]) node.addEventListener(event, () => (made.busy = false));
  return made;
}

function slider(label, knob, change) {
  const input = range(label, knob.low, knob.high, knob.step, () => change(read()));
  const read = () => Number(Number(input.value).toFixed(6));
  return guarded(input, { get: read, set: (value) => (input.value = value) });
}

function slots(label, knob, positions, change) {
  const input = range(label, 0, 1, 1, () => {
    input.setAttribute("aria-valuetext", formatValue(knob, read()));
    change(read());
  });
  const read = () => positions()[Number(input.value)];
  return guarded(input, {
    get: read,
    set(value) {
      input.max = Math.max(positions().length - 1, 0);
      input.value = nearest(positions(), value);
      input.disabled = positions().length < 2;
      input.setAttribute("aria-valuetext", formatValue(knob, value));
    },
  });
}

function dual(label, knob, change) {
  const fill = h("i", { class: "nnb-dual-fill" });
  const move = (moved) => () => {
    const ends = inputs.map((input) => Number(Number(input.value).toFixed(6)));
    if (ends[0] > ends[1]) inputs[1 - moved].value = ends[1 - moved] = ends[moved];
    paint();
    change(ends);
  };
  const inputs = ["from", "to"].map((end, i) => range(`${label}, ${end}`, knob.low, knob.high, knob.step, move(i)));
  const paint = () => {
    const share = (input) => (100 * (input.value - knob.low)) / (knob.high - knob.low);
    fill.style.left = `${share(inputs[0])}%`;
    fill.style.right = `${100 - share(inputs[1])}%`;
    inputs[0].style.zIndex = share(inputs[0]) > 50 ? 2 : 1; // both at the right end: the left one must come off again
  };
  const node = h("div", { class: "nnb-dual" }, h("i", { class: "nnb-dual-track" }), fill, ...inputs);
  return guarded(node, {
    get: () => inputs.map((input) => Number(input.value)),
    set(value) {
      inputs.forEach((input, i) => (input.value = value[i]));
      paint();
    },
  });
}

function toggle(label, change) {
  const node = h("input", { type: "checkbox", "aria-label": label, on: { change: () => change(node.checked) } });
  return guarded(node, { get: () => node.checked, set: (value) => (node.checked = value) });
}

function menu(choices, label, change) {
  const node = h(
    "select",
    { "aria-label": label, on: { change: () => change(node.value) } },
    ...choices.map((choice) => h("option", { value: choice }, choice)),
  );
  return guarded(node, { get: () => node.value, set: (value) => (node.value = value) });
}
