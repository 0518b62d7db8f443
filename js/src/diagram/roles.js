// What kind of part: a colour of Okabe and Ito's palette, and a sign, because colour alone is not enough.

/**
 * Name for people; colour (a CSS variable of diagram.css); sign on a 12 × 12 grid, drawn with a line.
 * @type {Record<string, {name: string, tone: string, sign: string}>}
 */
export const ROLES = {
  conv: { name: "convolution", tone: "blue", sign: "M1.5 1.5h9v9h-9zM1.5 6h9M6 1.5v9M1.5 1.5h4.500v4.500z" },
  norm: { name: "normalisation", tone: "sky", sign: "M1 10c3 0 3-8 5-8s2 8 5 8" },
  activation: { name: "activation", tone: "orange", sign: "M1 9.500h5L10.500 2" },
  pool: { name: "pooling", tone: "green", sign: "M1.500 2h9L7 6.500v4h-2v-4z" },
  linear: { name: "linear", tone: "purple", sign: "M2 2l8 8M2 10l8-8M2 6h8" },
  attention: { name: "attention", tone: "red", sign: "M1 6c3-5 7-5 10 0c-3 5-7 5-10 0zM6 4.800a1.200 1.200 0 1 0 .01 0" },
  embedding: { name: "embedding", tone: "yellow", sign: "M2 2.500h8M2 6h8M2 9.500h8M4.500 1v10" },
  recurrent: { name: "recurrent", tone: "red", sign: "M9.500 4A4.200 4.200 0 1 0 10 7.500M10.200 1.500v3h-3" },
  dropout: { name: "dropout", tone: "grey", sign: "M3 3h.01M9 3h.01M6 6h.01M3 9h.01M9 9h.01" },
  reshape: { name: "reshape", tone: "grey", sign: "M1.500 4.500h4v6h-4zM7.500 1.500h3v4h-3M7 8.500h3.500M9 7l1.500 1.500L9 10" },
  merge: { name: "merge", tone: "ink", sign: "M6 1.500v9M1.500 6h9" },
  block: { name: "block", tone: "stone", sign: "M1.500 2.500h9v7h-9zM1.500 6h9" },
  stage: { name: "stage", tone: "stone", sign: "M1.500 1.500h9v2.500h-9zM1.500 5h9v2.500h-9zM1.500 8.500h9v2h-9z" },
  input: { name: "input", tone: "ink", sign: "M6 1.500v8M2.500 6L6 9.500L9.500 6" },
  output: { name: "output", tone: "ink", sign: "M6 1.500v8M2.500 6L6 9.500L9.500 6" },
  other: { name: "other", tone: "grey", sign: "M6 4.500a1.500 1.500 0 1 0 .01 0" },
};

/** @param {import("./graph.js").GraphNode} node */
export function roleOf(node) {
  const key = node.kind === "input" || node.kind === "output" ? node.kind : node.role;
  return ROLES[key] ? key : "other";
}

/** Counts for people: 950, 9.41k, 25.6M, 4.09G. */
export function formatCompact(x) {
  if (x == null || Number.isNaN(x)) return "–";
  for (const [scale, unit] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ])
    if (Math.abs(x) >= 0.9995 * scale) return `${Number((x / scale).toPrecision(3))}${unit}`;
  return String(Math.round(x));
}

/** Bytes for people: 802 kB, 3.21 MB. */
export function formatBytes(x) {
  if (x == null || Number.isNaN(x)) return "–";
  const compact = formatCompact(x);
  return /[a-zA-Z]$/.test(compact) ? `${compact.slice(0, -1)} ${compact.slice(-1)}B` : `${compact} B`;
}
