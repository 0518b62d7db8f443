// ArchitectureDiagram: a network one can open, part by part; two of them side by side.
import { h, setText } from "./lib/dom.js";
import { hostName, watchKernel } from "./lib/host.js";
import { watchTheme } from "./lib/theme.js";
import { compareGraphs } from "./diagram/compare.js";
import { createPane } from "./diagram/pane.js";
import { warmUp } from "./diagram/segment.js";

const LOST =
  "The kernel was restarted: the picture still works, but Python does not hear what is selected. Run the cell again to connect.";
const SIDES = ["", "_other"]; // endings of the traits of the first and the second network

function render({ model, el }) {
  const started = performance.now();
  const page = hostName(model) === "page";
  const notice = h("div", { class: "nnb-notice", role: "alert" });
  const body = h("div", { class: "nnb-panes" });
  const root = h(
    "div",
    {
      class: "nnb-root nnb-diagram",
      role: "region",
      "aria-label": "Architecture diagram",
      "data-lm-suppress-shortcuts": "true",
      on: { keydown: (event) => event.stopPropagation() },
    },
    notice,
    body,
  );
  el.append(root);
  let panes = [],
    linked = true,
    busy = false;

  const tell = (name, value) => {
    if (JSON.stringify(model.get(name)) === JSON.stringify(value)) return;
    model.set(name, value);
    model.save_changes();
  };

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
    const comparison = both.length > 1 ? compareGraphs(...both) : null;
    panes = both.map((graph, i) =>
      createPane(graph, {
        title: both.length > 1 ? (model.get("titles")?.[i] ?? "") : "",
        height: model.get("height") || 620,
        selected: model.get(`selected${SIDES[i]}`) ?? "",
        expanded: model.get(`expanded${SIDES[i]}`) ?? [],
        mark: comparison ? (cell) => comparison.mark(i, cell) : undefined,
        extra: comparison ? (cell) => comparison.rows(i, cell) : undefined,
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
        ? [h("div", { class: "nnb-versus" }, comparison.summary(model.get("titles") ?? []), h("label", {}, link, " open both together"))]
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

  const stopTheme = watchTheme(root, () => panes.forEach((pane) => pane.repaint()));
  build();
  const observer = new ResizeObserver(() => requestAnimationFrame(() => panes.forEach((pane) => pane.resize())));
  observer.observe(root);
  const listeners = [
    ["change:graph", build],
    ["change:other", build],
    ...SIDES.flatMap((side, i) => [
      [`change:selected${side}`, () => panes[i]?.setSelected(model.get(`selected${side}`))],
      [`change:expanded${side}`, () => panes[i]?.setExpanded(model.get(`expanded${side}`))],
    ]),
  ];
  for (const [event, f] of listeners) model.on(event, f);
  const stopKernel = page ? () => {} : watchKernel(model, () => setText(notice, LOST));

  return () => {
    for (const [event, f] of listeners) model.off(event, f);
    stopKernel();
    stopTheme();
    observer.disconnect();
  };
}

export default { render };
