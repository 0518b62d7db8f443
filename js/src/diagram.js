// ArchitectureDiagram: a network one can open, part by part; two of them side by side.
import { createFrame } from "./lib/frame.js";
import { h } from "./lib/dom.js";
import { compareGraphs } from "./diagram/compare.js";
import { createPane } from "./diagram/pane.js";
import { warmUp } from "./diagram/segment.js";

const LOST =
  "The kernel was restarted: the picture still works, but Python does not hear what is selected. Run the cell again to connect.";
const SIDES = ["", "_other"]; // endings of the traits of the first and the second network

function render({ model, el }) {
  const started = performance.now();
  const frame = createFrame({ model, el }, {
    name: "diagram",
    label: "Architecture diagram",
    lost: LOST,
    onTheme: () => panes.forEach((pane) => pane.repaint()),
    onResize: () => panes.forEach((pane) => pane.resize()),
  });
  const { root, body, tell } = frame;
  body.classList.add("nnb-panes");
  let panes = [],
    linked = true,
    busy = false;

  /** What is opened in one network is opened in the other, where it has such a part. */
  function follow(from, ids) {
    if (busy || !linked || panes.length < 2) return;
    busy = true;
    const [source, target] = [panes[from], panes[1 - from]];
    const own = [...target.open].filter((id) => !source.cells.byId.has(id));
    target.setExpanded([...own, ...ids.filter((id) => target.cells.byId.has(id))]);
    busy = false;
  }

  function build() {
    const both = [model.get("graph"), model.get("other")].filter((graph) => graph && Object.keys(graph).length);
    root.classList.toggle("nnb-two", both.length > 1);
    panes = [];
    const titles = both.length > 1 ? (model.get("titles") ?? []) : [],
      troubles = both.map(() => "");
    frame.say("");
    const comparison = both.length > 1 ? compareGraphs(...both) : null;
    panes = both.map((graph, i) =>
      createPane(graph, {
        title: titles[i] ?? "",
        height: model.get("height") || 620,
        selected: model.get(`selected${SIDES[i]}`) ?? "",
        expanded: model.get(`expanded${SIDES[i]}`) ?? [],
        mark: comparison ? (cell) => comparison.mark(i, cell) : undefined,
        extra: comparison ? (cell) => comparison.rows(i, cell) : undefined,
        onTrouble: (text) => {
          troubles[i] = [titles[i]?.slice(0, 120), text].filter(Boolean).join(": ");
          frame.say(troubles.filter(Boolean).join("\n"));
        },
        onSelect: (id) => tell(`selected${SIDES[i]}`, id),
        onExpand: (ids) => {
          tell(`expanded${SIDES[i]}`, ids);
          follow(i, ids);
        },
      }),
    );
    const link = h("input", { type: "checkbox", checked: true, on: { change: () => (linked = link.checked) } });
    body.replaceChildren(
      ...(comparison
        ? [h("div", { class: "nnb-versus" }, comparison.summary(titles), h("label", {}, link, " open both together"))]
        : []),
      ...panes.map((pane) => pane.root),
    );
    for (const pane of panes) pane.resize();
    count();
  }

  function count() {
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        root.dataset.paint ??= (performance.now() - started).toFixed(1);
        root.dataset.ready = "true";
        globalThis.requestIdleCallback?.(warmUp);
      }),
    );
  }

  build();
  frame.on("change:graph", build);
  frame.on("change:other", build);
  SIDES.forEach((side, i) => {
    frame.on(`change:selected${side}`, () => panes[i]?.setSelected(model.get(`selected${side}`)));
    frame.on(`change:expanded${side}`, () => panes[i]?.setExpanded(model.get(`expanded${side}`)));
  });
  return frame.dispose;
}

export default { render };
