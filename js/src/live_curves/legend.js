// The names of the runs beside their strokes; a click hides a run or shows it again.
import { h, setAttribute } from "../lib/dom.js";
import { keyMark } from "./readout.js";
import { AXES, mapOf } from "./xaxis.js";

/** @param {{view: ReturnType<import("./view.js").createView>, runs: ReturnType<import("./runs.js").createRuns>}} shared */
export function createLegend({ view, runs }) {
  const root = h("div", { class: "nnb-legend", role: "group", "aria-label": "Runs" });
  let drawn = "";
  view.onPoint(() => [...root.children].forEach((button, i) => button.classList.toggle("nnb-near", runs.list[i]?.name === view.near)));
  return {
    root,
    draw() {
      root.hidden = runs.list.length < 2;
      const state = `${runs.version}/${view.version}`;
      if (root.hidden || state === drawn) return;
      drawn = state;
      const focused = [...root.children].indexOf(document.activeElement);
      root.replaceChildren(
        ...runs.list.map((run) => {
          const hidden = view.hides(run),
            placed = mapOf(run, view.axis);
          const button = h(
            "button",
            {
              class: run.current ? "nnb-run nnb-run-current" : "nnb-run",
              type: "button",
              "aria-pressed": String(!hidden),
              title: placed ? `${hidden ? "Show" : "Hide"} ${run.name}` : AXES[view.axis].why,
              on: { click: () => view.hide(run, !view.hides(run)) },
            },
            keyMark(run),
            h("span", {}, run.name),
          );
          setAttribute(button, "data-away", placed ? null : "true");
          return button;
        }),
      );
      root.children[focused]?.focus();
    },
  };
}
