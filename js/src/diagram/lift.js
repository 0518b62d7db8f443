// Edges join parts that cannot be opened. A closed group stands for all it holds, so its edges are lifted to it.

const MOST_PORTS = 6; // tensors that enter or leave a group on lines of their own

/**
 * @typedef {object} Link an edge inside one group
 * @property {import("./fold.js").Cell|null} from null: what enters the group
 * @property {import("./fold.js").Cell|null} to null: what leaves it
 * @property {string} fromPort tensor at an open end of `from` (or of the group itself)
 * @property {string} toPort
 * @property {number[][]} shapes
 * @property {Set<string>} ends ids of the parts it really joins, for highlighting
 *
 * @typedef {{links: Link[], inputs: string[], outputs: string[]}} Wiring of one group
 */

/**
 * The wiring of every open group.
 * @param {import("./graph.js").Graph} graph
 * @param {ReturnType<import("./fold.js").buildCells>} cells
 * @param {Set<string>} open
 * @returns {Map<import("./fold.js").Cell, Wiring>}
 */
export function liftEdges(graph, { root, ofNode }, open) {
  const wiring = new Map(),
    shown = new Map();
  const isOpen = (cell) => cell.kind === "root" || open.has(cell.id);
  /** From the root down to the deepest part that is on the page. */
  const visible = (node) => {
    if (shown.has(node)) return shown.get(node);
    const path = [];
    for (let at = ofNode.get(node); at; at = at.parent) path.unshift(at);
    const closed = path.findIndex((cell) => !isOpen(cell));
    const found = closed < 0 ? path : path.slice(0, closed + 1);
    shown.set(node, found);
    return found;
  };
  const of = (group) => {
    if (!wiring.has(group)) wiring.set(group, { table: new Map(), inputs: new Set(), outputs: new Set() });
    return wiring.get(group);
  };
  const join = (group, from, to, tensor, edge, ends) => {
    const fromPort = !from || isOpen(from) ? tensor : "",
      toPort = !to || isOpen(to) ? tensor : "";
    const { table } = of(group),
      id = `${from?.id ?? "\u0001"}\u0000${to?.id ?? "\u0002"}\u0000${fromPort}\u0000${toPort}`;
    if (!table.has(id)) table.set(id, { from, to, fromPort, toPort, shapes: [], ends: new Set(), tensors: new Set() });
    const link = table.get(id);
    if (!link.tensors.has(tensor)) {
      link.tensors.add(tensor);
      link.shapes.push(edge.shape);
    }
    for (const end of ends) link.ends.add(end);
  };

  for (const edge of graph.edges) {
    const a = visible(edge.from),
      b = visible(edge.to);
    let level = 0;
    while (level < a.length && level < b.length && a[level] === b[level]) level++;
    if (level >= a.length || level >= b.length) continue; // inside one closed group
    const tensor = `${edge.from.index}:${edge.shape.join()}`,
      ends = [a[a.length - 1].id, b[b.length - 1].id];
    join(a[level - 1], a[level], b[level], tensor, edge, ends);
    for (let i = level; i < a.length - 1; i++) {
      of(a[i]).outputs.add(tensor);
      join(a[i], a[i + 1], null, tensor, edge, ends);
    }
    for (let i = level; i < b.length - 1; i++) {
      of(b[i]).inputs.add(tensor);
      join(b[i], null, b[i + 1], tensor, edge, ends);
    }
  }
  of(root);
  const ready = new Map();
  for (const [group, { table, inputs, outputs }] of wiring)
    ready.set(group, {
      links: [...table.values()],
      inputs: inputs.size > MOST_PORTS ? ["*"] : [...inputs],
      outputs: outputs.size > MOST_PORTS ? ["*"] : [...outputs],
    });
  return ready;
}
