// How to look at the curves: smoothing, the axis they stand on, the way back from a zoom, and files to take away.
import { h, setAttribute, setText } from "../lib/dom.js";
import { AXES, mapOf } from "./xaxis.js";

const HELP =
  "Moving average that forgets: at 0.9 it remembers about 10 values, at 0.99 about 100. What was measured stays visible, faintly. Accuracy, learning rate and gauges are never smoothed.";

/**
 * @param {object} shared
 * @param {ReturnType<import("./view.js").createView>} shared.view
 * @param {ReturnType<import("./runs.js").createRuns>} shared.runs
 * @param {(kind: "csv"|"png"|"svg", panel: string) => void} save `panel` is "" for all
 * @param {() => {id: string, title: string}[]} panels those that show something
 */
export function createToolbar({ view, runs }, save, panels) {
  const weight = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, "aria-label": "Smoothing" });
  const weightText = h("output", {});
  weight.addEventListener("input", () => view.trySmoothing(Number(weight.value)));
  weight.addEventListener("change", () => view.setSmoothing(Number(weight.value)));

  const axes = Object.entries(AXES).map(([axis, { title }]) =>
    h("button", { type: "button", data: { axis }, on: { click: () => view.setAxis(axis) } }, title),
  );
  const logX = h(
    "button",
    { class: "nnb-toggle", type: "button", title: "Logarithmic horizontal axis", "aria-label": "Logarithmic horizontal axis", on: { click: () => view.setLogX(!view.logX) } },
    "log",
  );
  const back = h("button", { class: "nnb-button nnb-unzoom", type: "button", on: { click: () => view.zoom(null) } }, "Show all");

  // the menu of files
  const which = h("select", { "aria-label": "What to save" });
  const thinned = h("small", {}, "Long curves are thinned out here; history.to_csv has every row.");
  const menu = h(
    "div",
    { class: "nnb-menu", role: "group", "aria-label": "Save", hidden: true },
    which,
    ...[
      ["csv", "Numbers (CSV)"],
      ["png", "Picture (PNG)"],
      ["svg", "Drawing (SVG)"],
    ].map(([kind, title]) =>
      h("button", { type: "button", data: { save: kind }, on: { click: () => (save(kind, which.value), open(false), opener.focus()) } }, title),
    ),
    thinned,
  );
  const opener = h(
    "button",
    { class: "nnb-button nnb-save", type: "button", "aria-expanded": "false", on: { click: () => open(menu.hidden) } },
    "Save…",
  );
  const saving = h("div", { class: "nnb-saving" }, opener, menu);
  saving.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || menu.hidden) return;
    open(false);
    opener.focus();
  });
  saving.addEventListener("focusout", (event) => event.relatedTarget && !saving.contains(event.relatedTarget) && open(false));

  const outside = (event) => event.composedPath().includes(saving) || open(false); // on ground that takes no focus
  function open(on) {
    menu.hidden = !on;
    setAttribute(opener, "aria-expanded", String(on));
    document[on ? "addEventListener" : "removeEventListener"]("pointerdown", outside);
    if (!on) return;
    thinned.hidden = !view.shown().some(({ store }) => store.thinned);
    const chosen = which.value;
    which.replaceChildren(h("option", { value: "" }, "Everything shown"), ...panels().map(({ id, title }) => h("option", { value: id }, title)));
    which.value = [...which.options].some((option) => option.value === chosen) ? chosen : "";
    which.focus();
  }

  const root = h(
    "div",
    { class: "nnb-view", role: "group", "aria-label": "View" },
    h("label", { class: "nnb-smoothing", title: HELP }, h("span", {}, "Smoothing"), weight, weightText),
    h("div", { class: "nnb-over" }, h("div", { class: "nnb-segments", role: "group", "aria-label": "Horizontal axis" }, ...axes), logX),
    back,
    saving,
  );
  return {
    root,
    draw() {
      weight.value = view.smoothing;
      setText(weightText, view.smoothing ? String(Number(view.smoothing.toFixed(3))) : "off");
      setAttribute(weight, "aria-valuetext", weightText.textContent);
      for (const button of axes) {
        const { axis } = button.dataset,
          known = mapOf(runs.current, axis);
        setAttribute(button, "aria-pressed", String(view.axis === axis));
        button.disabled = !known && view.axis !== axis;
        setAttribute(button, "title", known ? null : AXES[axis].why);
      }
      setAttribute(logX, "aria-pressed", String(view.logX));
      back.hidden = !view.range;
    },
  };
}
