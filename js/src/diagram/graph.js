// The network as the kernel sent it: nodes with their parts, edges between parts that cannot be opened.

/**
 * @typedef {object} GraphNode
 * @property {string} id
 * @property {GraphNode|null} parent the group that holds it; null at the top
 * @property {GraphNode[]} children in the order they ran
 * @property {"module"|"op"|"function"|"input"|"output"} kind
 * @property {string} type class, or name of the operation
 * @property {string} role colour and sign, see roles.js
 * @property {string} label
 * @property {string} path
 * @property {string} code
 * @property {number[][]} shapes_in
 * @property {number[][]} shapes_out
 * @property {number} params
 * @property {number} macs
 * @property {number} bytes
 * @property {string} signature
 * @property {number} index place in the list of all nodes
 *
 * @typedef {{from: GraphNode, to: GraphNode, shape: number[], slot: number}} GraphEdge
 * @typedef {{name: string, nodes: GraphNode[], byId: Map<string, GraphNode>, top: GraphNode[], edges: GraphEdge[],
 *   batch: number|null, totals: {params: number, macs: number, bytes: number}, unused: any[], notes: string[],
 *   complete: boolean, error: string}} Graph
 */

const TEXTS = ["kind", "type", "role", "label", "signature", "detail", "doc", "source"];
const RELATIVE = ["id", "code"]; // stored as what they add to the same field of the parent
const NUMBERS = ["params", "macs", "bytes"];

/** Undoes `pack_graph` of Python: columns and a table of words become a list of nodes. */
export function unpackGraph(packed) {
  if (!packed.words) return packed;
  const { words, shapes } = packed;
  const numbers = (text, between) => (text ? text.split(between).map(Number) : []);
  const columns = Object.fromEntries(
    Object.entries(packed.columns).map(([name, text]) => [
      name,
      name.startsWith("shapes") ? text.split(" ").map((list) => numbers(list, ",")) : numbers(text, " "),
    ]),
  );
  const nodes = columns.parent.map((_, i) => ({ index: i }));
  nodes.forEach((node, i) => {
    const parent = nodes[columns.parent[i]];
    node.parent = parent?.id ?? "";
    for (const name of TEXTS) node[name] = words[columns[name][i]];
    for (const name of RELATIVE) {
      const text = words[columns[name][i]];
      node[name] = text[0] === "+" ? (parent?.[name] ?? "") + text.slice(1) : text.slice(1);
    }
    for (const name of NUMBERS) node[name] = columns[name][i];
    node.shapes_in = columns.shapes_in[i].map((at) => shapes[at]);
    node.shapes_out = columns.shapes_out[i].map((at) => shapes[at]);
    node.path = node.kind === "module" ? node.id.replace(/@\d+/g, "") : "";
    Object.assign(node, packed.more[i]);
  });
  const edges = [];
  const flat = numbers(packed.edges, " ");
  for (let i = 0; i < flat.length; i += 4) {
    const [from, to, shape, slot] = flat.slice(i, i + 4);
    edges.push({ from: nodes[from].id, to: nodes[to].id, shape: shapes[shape], slot });
  }
  return { ...packed, nodes, edges };
}

/**
 * The graph with its parts joined; whatever points nowhere is dropped.
 * @returns {Graph}
 */
export function readGraph(data) {
  const plain = unpackGraph(data ?? {});
  const byId = new Map();
  const nodes = (plain.nodes ?? []).map((node, index) => {
    const own = { calls: 1, shapes_in: [], shapes_out: [], params: 0, macs: 0, bytes: 0, ...node, index, children: [] };
    byId.set(own.id, own);
    return own;
  });
  const top = [];
  for (const node of nodes) {
    const parent = byId.get(node.parent);
    node.parent = parent && parent.index < node.index ? parent : null;
    (node.parent?.children ?? top).push(node);
  }
  const edges = (plain.edges ?? [])
    .map((edge) => ({ ...edge, from: byId.get(edge.from), to: byId.get(edge.to) }))
    .filter((edge) => edge.from && edge.to && edge.from !== edge.to);
  return {
    name: plain.name || "model",
    nodes,
    byId,
    top,
    edges,
    batch: batchOf(top),
    totals: { params: 0, macs: 0, bytes: 0, ...plain.totals },
    unused: plain.unused ?? [],
    notes: plain.notes ?? [],
    complete: plain.complete !== false,
    error: plain.error ?? "",
  };
}

/** The size of the first axis, if all inputs agree on it. */
function batchOf(top) {
  const shapes = top.filter((node) => node.kind === "input").flatMap((node) => node.shapes_out);
  const firsts = new Set(shapes.map((shape) => (shape.length > 1 ? shape[0] : null)));
  return firsts.size === 1 ? [...firsts][0] : null;
}

/** "64×56×56" without the batch axis; in brackets if the first axis is something else. */
export function shapeText(shape, batch) {
  if (!shape.length) return "scalar";
  if (batch != null && shape.length > 1 && shape[0] === batch) return shape.slice(1).join("×");
  return `[${shape.join("×")}]`;
}

/** Several shapes, each different one once: "64×56×56, 2 × 128×28×28". */
export function shapesText(shapes, batch, most = 3) {
  const count = new Map();
  for (const shape of shapes) {
    const text = shapeText(shape, batch);
    count.set(text, (count.get(text) ?? 0) + 1);
  }
  const texts = [...count].map(([text, n]) => (n > 1 ? `${n} × ${text}` : text));
  return texts.length > most ? `${texts.slice(0, most).join(", ")}, …` : texts.join(", ");
}
