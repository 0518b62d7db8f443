// Labels on a line: none covers another.

/**
 * Places for labels of one height between `low` and `high`, each as near as can be to where it belongs, in the same order.
 * @param {number[]} wanted middles, px
 * @param {number} height px
 * @returns {number[]} middles, in the order of `wanted`
 */
export function spread(wanted, height, low, high) {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a] - wanted[b]),
    places = new Array(wanted.length);
  const groups = []; // labels that touch: their middle, and how many
  for (const i of order) {
    let group = { sum: wanted[i], count: 1 };
    for (;;) {
      const half = (group.count * height) / 2;
      group.at = Math.min(Math.max(group.sum / group.count, low + half), high - half);
      const above = groups.at(-1);
      if (!above || group.at - half >= above.at + (above.count * height) / 2) break;
      groups.pop();
      group = { sum: above.sum + group.sum, count: above.count + group.count };
    }
    groups.push(group);
  }
  let next = 0;
  for (const { at, count } of groups)
    for (let k = 0; k < count; k++) places[order[next++]] = at + (k - (count - 1) / 2) * height;
  return places;
}
