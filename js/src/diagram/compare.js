// Two networks side by side: which parts differ, and by how much.
import { h } from "../lib/dom.js";
import { readGraph } from "./graph.js";
import { formatBytes, formatCompact } from "./roles.js";
import { cut } from "./text.js";

/** "×1.83" of b beside a. */
export function ratioText(a, b) {
  if (!a || !b) return "";
  const ratio = b / a;
  return `×${ratio >= 100 ? ratio.toFixed(0) : Number(ratio.toPrecision(3))}`;
}

export function compareGraphs(first, second) {
  const graphs = [readGraph(first), readGraph(second)];

  function mark(side, cell) {
    if (cell.node.kind === "input" || cell.node.kind === "output") return null;
    const twin = graphs[1 - side].byId.get(cell.node.id);
    if (!twin) return { sign: "only here", text: "The other network has no part of this name." };
    if (twin.signature !== cell.node.signature) return { sign: "≠", text: "The part of this name in the other network has another structure." };
    return null;
  }

  function rows(side, cell) {
    const twin = cell && graphs[1 - side].byId.get(cell.node.id);
    if (!cell || !twin || cell.count > 1) return [];
    const beside = (name, format) => (twin[name] === cell.node[name] ? "the same" : format(twin[name]));
    return [
      ["Other: parameters", beside("params", formatCompact)],
      ["Other: MACs", beside("macs", formatCompact)],
    ];
  }

  function summary(titles) {
    const [a, b] = graphs.map((graph) => graph.totals);
    const row = (name, key, format) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, format(a[key])), h("td", {}, format(b[key])), h("td", {}, ratioText(a[key], b[key])));
    const name = (i) => cut(titles[i] || graphs[i].name, 40);
    return h(
      "table",
      {},
      h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, name(0)), h("th", { scope: "col" }, name(1)), h("td", {}))),
      h("tbody", {}, row("Parameters", "params", formatCompact), row("MACs", "macs", formatCompact), row("Activations", "bytes", formatBytes)),
    );
  }
  return { mark, rows, summary };
}
