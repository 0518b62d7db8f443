// Finding parts by name.

/**
 * Parts whose path, type or label holds all words of the query, best first: equal labels, beginnings, then the rest in order.
 * @param {import("./graph.js").Graph} graph
 * @returns {import("./graph.js").GraphNode[]}
 */
export function findNodes(graph, query, most = 500) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const found = [];
  for (const node of graph.nodes) {
    const text = `${node.id} ${node.type}`.slice(0, 2000).toLowerCase();
    if (!words.every((word) => text.includes(word))) continue;
    const label = String(node.label).slice(0, 200).toLowerCase(),
      type = String(node.type).slice(0, 200).toLowerCase();
    const first = words[0];
    const rank = label === first || type === first || node.id.toLowerCase() === first ? 0 : label.startsWith(first) || type.startsWith(first) ? 1 : 2;
    found.push({ node, rank });
  }
  return found
    .sort((a, b) => a.rank - b.rank || a.node.index - b.node.index)
    .slice(0, most)
    .map(({ node }) => node);
}
