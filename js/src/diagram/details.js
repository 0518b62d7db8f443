// What is known about the selected part; about the whole network while nothing is selected.
import { h } from "../lib/dom.js";
import { formatCount, formatPercent } from "../lib/format.js";
import { typeOf } from "./draw.js";
import { copyText } from "../lib/clipboard.js";
import { shapesText } from "./graph.js";
import { formatBytes, formatCompact, ROLES, roleOf } from "./roles.js";
import { cut } from "./text.js";

const HELP = {
  Parameters: "Learned numbers in this part and all parts inside it; shared weights count once.",
  MACs: "One multiplication with one addition, for the traced input. Operations that nobody has a rule for are named, not guessed.",
  Activations: "Memory of the results that are kept for the backward pass, for the traced input.",
};

/** @param {import("./graph.js").Graph} graph */
export function createDetails(graph) {
  const root = h("aside", { class: "nnb-details", "aria-label": "Details" });

  const fill = (...parts) => root.replaceChildren(...parts.filter(Boolean));
  const row = (name, ...value) => {
    const help = HELP[name];
    return h("div", { class: "nnb-row" }, h("dt", help ? { title: help, class: "nnb-explained" } : {}, name), h("dd", {}, ...value));
  };

  function amount(name, value, total, format) {
    const share = total && value < total ? ` · ${formatPercent(value / total)}` : "";
    return row(name, h("span", { title: `${formatCount(value)}${name === "Activations" ? " bytes" : ""}` }, format(value)), h("small", {}, share));
  }

  function codeBox(code) {
    const button = h("button", { class: "nnb-copy", type: "button", "aria-label": "Copy the code" }, "Copy");
    button.addEventListener("click", async () => {
      const done = await copyText(code, root);
      button.textContent = done ? "Copied" : "Press Ctrl+C";
      if (!done) getSelection()?.selectAllChildren(box.firstChild);
      setTimeout(() => (button.textContent = "Copy"), 1600);
    });
    const box = h("div", { class: "nnb-code" }, h("code", { tabindex: 0 }, cut(code)), button);
    return box;
  }

  function showPart(cell, extra) {
    const { node } = cell,
      { totals, batch } = graph,
      role = roleOf(node);
    const kind = node.kind === "op" ? "operation" : node.kind === "module" ? ROLES[role].name : node.kind;
    const rows = [
      node.shapes_in.length > 0 && row("Takes", shapesText(node.shapes_in, batch, 6)),
      node.shapes_out.length > 0 && row("Gives", shapesText((cell.last ?? node).shapes_out, batch, 6)),
      node.kind !== "input" && node.kind !== "output" && amount("Parameters", cell.cost.params, totals.params, formatCompact),
      node.kind !== "input" && node.kind !== "output" && amount("MACs", cell.cost.macs, totals.macs, formatCompact),
      cell.cost.bytes > 0 && amount("Activations", cell.cost.bytes, totals.bytes, formatBytes),
      node.detail && row("Settings", h("span", { class: "nnb-mono" }, cut(node.detail, 400))),
      node.calls > 1 && row("Runs", `${formatCount(node.calls)} times in this trace`),
      node.shares && row("Shares", `parameters of ${cut(node.shares, 200)}`),
      node.uncounted?.length && row("Not counted", cut(node.uncounted.join(", "), 300)),
      node.source && row("Source", h("span", { class: "nnb-mono" }, cut(node.source, 200))),
      ...extra.map(([name, value]) => row(name, value)),
    ];
    fill(
      h("div", { class: "nnb-kind", data: { tone: ROLES[role].tone } }, h("i", {}), kind),
      h("h3", { class: "nnb-title", title: cut(node.id, 600) }, cut(cell.count > 1 ? `${node.id} … ${cell.last.label}` : node.kind === "module" ? node.id : node.label, 300), cell.count > 1 && ` ×${cell.count}`),
      node.type && node.type !== node.label && node.kind === "module" && h("div", { class: "nnb-class" }, cut(typeOf(cell), 200)),
      node.code && codeBox(node.code),
      h("dl", {}, ...rows),
      node.doc && h("p", { class: "nnb-doc" }, cut(node.doc, 400)),
      cell.count > 1 && h("p", { class: "nnb-doc" }, `${cell.count} parts of equal structure in a row; numbers are of all of them. The shown code is of the first.`),
    );
  }

  function showWhole(extra) {
    const { totals, nodes, edges, unused, notes } = graph;
    const inputs = nodes.filter((node) => node.kind === "input").flatMap((node) => node.shapes_out);
    const outputs = nodes.filter((node) => node.kind === "output").flatMap((node) => node.shapes_in);
    fill(
      h("div", { class: "nnb-kind" }, "whole network"),
      h("h3", { class: "nnb-title", title: cut(graph.name, 600) }, cut(graph.name, 300)),
      h(
        "dl",
        {},
        inputs.length > 0 && row("Takes", shapesText(inputs, graph.batch, 6)),
        outputs.length > 0 && row("Gives", shapesText(outputs, graph.batch, 6)),
        amount("Parameters", totals.params, 0, formatCompact),
        amount("MACs", totals.macs, 0, formatCompact),
        amount("Activations", totals.bytes, 0, formatBytes),
        row("Parts", formatCount(nodes.length)),
        row("Connections", formatCount(edges.length)),
        ...extra.map(([name, value]) => row(name, value)),
      ),
      ...notes.slice(0, 20).map((note) => h("p", { class: "nnb-note" }, cut(note, 500))),
      unused.length > 0 && unusedList(unused),
      h("p", { class: "nnb-doc" }, "Click a part to see what it does. Parts in a stack open. Drawn is what ran for this input; code that looks at shapes or chance may take another way for the next one."),
    );
  }

  function unusedList(unused) {
    const shown = unused.slice(0, 40).map((part) => {
      const params = part.params ? `, ${formatCompact(part.params)} params` : "";
      return h("li", {}, `${cut(part.path, 120)} (${cut(part.type, 60)}${params})`);
    });
    return h(
      "details",
      { class: "nnb-unused" },
      h("summary", {}, `${formatCount(unused.length)} ${unused.length === 1 ? "module was" : "modules were"} not used in this trace`),
      h("ul", {}, ...shown, unused.length > 40 && h("li", {}, `… and ${formatCount(unused.length - 40)} more`)),
    );
  }

  return {
    root,
    /** @param {import("./fold.js").Cell|null} cell @param {[string, string][]} extra more rows */
    show(cell, extra = []) {
      if (cell) showPart(cell, extra);
      else showWhole(extra);
      requestAnimationFrame(() => (root.scrollTop = 0)); // at once would force a layout
    },
  };
}
