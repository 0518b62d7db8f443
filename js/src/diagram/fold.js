// What can be shown: the parts of the network, with runs of equal parts folded into one that opens.

const FEWEST = 3; // equal parts in a row that are folded

/**
 * @typedef {object} Cell a part as it is shown
 * @property {string} id of the node; of a fold "first×count"
 * @property {import("./graph.js").GraphNode|null} node for a fold its first member's
 * @property {"leaf"|"group"|"fold"|"root"} kind
 * @property {Cell|null} parent
 * @property {Cell[]} children
 * @property {number} depth 0 for the root
 * @property {number} count members of a fold, else 1
 * @property {{params: number, macs: number, bytes: number}} cost
 */

const key = (node) => node.signature || null;

/**
 * Runs of equal siblings that form a chain: each member hands its result to the next and to nobody else here.
 * @param {import("./graph.js").GraphNode[]} siblings in order
 * @param {Map<object, Set<object>>} next sibling → siblings that take what it gives
 * @returns {[number, number][]} first and one past the last
 */
export function findRuns(siblings, next) {
  const runs = [];
  for (let start = 0; start < siblings.length; ) {
    let end = start + 1;
    while (end < siblings.length && key(siblings[start]) && key(siblings[end]) === key(siblings[start])) {
      const to = next.get(siblings[end - 1]);
      if (to?.size !== 1 || !to.has(siblings[end])) break;
      end++;
    }
    if (end - start >= FEWEST) runs.push([start, end]);
    start = end;
  }
  return runs;
}

/** For every group: which of its parts takes what another part gives. */
function links(graph) {
  const next = new Map();
  const depthOf = (node) => {
    let depth = 0;
    for (let at = node; at.parent; at = at.parent) depth++;
    return depth;
  };
  for (const edge of graph.edges) {
    let { from, to } = edge,
      [a, b] = [depthOf(from), depthOf(to)];
    const outside = from;
    for (; a > b; a--) from = from.parent;
    for (; b > a; b--) to = to.parent;
    while (from.parent !== to.parent) [from, to] = [from.parent, to.parent];
    if (from !== to) add(next, from, to);
    // a part whose result also leaves its group hands it to "outside"
    for (let at = outside; at && at !== from; at = at.parent) add(next, at, null);
  }
  return next;
}

function add(map, key, value) {
  if (!map.has(key)) map.set(key, new Set());
  map.get(key).add(value);
}

/**
 * @param {import("./graph.js").Graph} graph
 * @returns {{root: Cell, byId: Map<string, Cell>, ofNode: Map<object, Cell>}}
 */
export function buildCells(graph) {
  const byId = new Map(),
    ofNode = new Map(),
    next = links(graph);
  const root = { id: "", node: null, kind: "root", parent: null, children: [], depth: 0, count: 1, cost: graph.totals };
  const pending = [[root, graph.top]];
  while (pending.length) {
    const [parent, nodes] = pending.pop();
    const runs = parent.kind === "fold" ? [] : findRuns(nodes, next);
    const make = (node, holder) => {
      const cell = {
        id: node.id,
        node,
        kind: node.children.length ? "group" : "leaf",
        parent: holder,
        children: [],
        depth: holder.depth + 1,
        count: 1,
        cost: node,
      };
      holder.children.push(cell);
      byId.set(cell.id, cell);
      ofNode.set(node, cell);
      if (node.children.length) pending.push([cell, node.children]);
    };
    for (let i = 0; i < nodes.length; i++) {
      const run = runs.length && runs[0][0] === i ? runs.shift() : null;
      if (!run || (run[1] - run[0] === nodes.length && parent.kind === "group" && nodes.length <= FEWEST)) {
        make(nodes[i], parent);
        continue;
      }
      const members = nodes.slice(...run);
      const fold = {
        id: `${members[0].id}×${members.length}`,
        node: members[0],
        kind: "fold",
        parent,
        children: [],
        depth: parent.depth + 1,
        count: members.length,
        last: members[members.length - 1],
        cost: sum(members),
      };
      parent.children.push(fold);
      byId.set(fold.id, fold);
      for (const member of members) make(member, fold);
      i = run[1] - 1;
    }
  }
  return { root, byId, ofNode };
}

/** Costs added up; parameters shared with an earlier part count once. */
function sum(members) {
  const total = { params: 0, macs: 0, bytes: 0 };
  for (const node of members) {
    if (!node.shares) total.params += node.params;
    total.macs += node.macs;
    total.bytes += node.bytes;
  }
  return total;
}

/** The cells that are on the page, parents before children. */
export function visibleCells(root, open) {
  const seen = [];
  const pending = [...root.children].reverse();
  while (pending.length) {
    const cell = pending.pop();
    seen.push(cell);
    if (open.has(cell.id)) for (let i = cell.children.length - 1; i >= 0; i--) pending.push(cell.children[i]);
  }
  return seen;
}

/** The groups that must be open so that this cell can be seen. */
export function ancestors(cell) {
  const found = [];
  for (let at = cell.parent; at && at.kind !== "root"; at = at.parent) found.unshift(at);
  return found;
}
