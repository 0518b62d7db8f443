// Which curves are shown, and what is said about each.
import { dotted, formatCount, formatMiB, formatNumber, formatPercent, formatPlain } from "../lib/format.js";

const extreme = (series, key, format) => (series.n && Number.isFinite(series[key]) ? format(series[key]) : "");

/** @type {import("../lib/panel.js").PanelSpec[]} */
export const PANELS = [
  {
    id: "loss",
    title: "Loss",
    log: true,
    empty: "The loss appears with the first steps.",
    help: "What the optimizer makes small. Its height says little about what was learned, and its value cannot be compared between methods.",
    curves: [{ metric: "loss", label: "", format: formatNumber }],
    summary: (store) => extreme(store.get("loss"), "low", (x) => `lowest ${formatNumber(x)}`),
  },
  {
    id: "knn",
    title: "k-NN accuracy",
    empty: "Add a KNNMonitor to the callbacks to see what the features are worth.",
    help: "How often an image's nearest neighbours in feature space have its class. Labels are used for this check only. The dashed line is the untrained network.",
    curves: [{ metric: "knn", label: "", format: formatPercent }],
    ticks: (ticks) => ticks.map((x) => (x == null ? "" : `${Number((100 * x).toFixed(1))} %`)),
    baseline: (store) => {
      const untrained = store.get("knn_untrained"),
        first = store.get("knn");
      const value = untrained.n ? untrained.last : first.n && first.steps[0] === 0 ? first.values[0] : null;
      return value == null ? null : { value, label: `untrained ${formatPercent(value)}` };
    },
    summary: (store) => extreme(store.get("knn"), "high", (x) => `best ${formatPercent(x)}`),
  },
  {
    id: "std",
    title: "Embedding spread",
    empty: "Appears when the algorithm logs std.",
    help: "Standard deviation of the normalised embeddings times √D. Near 1 they are spread over the whole sphere, which is healthy. Near 0 every image gets the same embedding: the network has collapsed and has learned nothing, however small the loss is.",
    curves: [{ metric: "std", label: "", format: formatNumber, limits: [0, 1.2] }],
    bands: [
      { from: 0, to: 0.2, tone: "bad", label: "collapsed" },
      { from: 0.2, to: 0.5, tone: "warn", label: "watch" },
      { from: 0.5, to: 10, tone: "good", label: "healthy" },
    ],
    summary: (store) => extreme(store.get("std"), "low", (x) => `lowest ${formatNumber(x)}`),
  },
  {
    id: "lr",
    title: "Learning rate",
    empty: "The learning rate appears with the first steps.",
    help: "The optimizer's step size now: the schedule times the factor of the slider.",
    curves: [{ metric: "lr", label: "", format: formatPlain, limits: [0, null] }],
    summary: (store) => (store.get("lr").n ? formatPlain(store.get("lr").last) : ""),
  },
  {
    id: "throughput",
    title: "Throughput",
    empty: "Images per second appear with the first steps.",
    help: "Images per second through the whole step: loading, views, forward, backward, update.",
    curves: [{ metric: "images_per_s", label: "", format: formatCount, limits: [0, null] }],
    summary: (store) => (store.get("images_per_s").n ? `${formatCount(store.get("images_per_s").last)} images/s` : ""),
  },
  {
    id: "device",
    title: "Device",
    empty: "Utilisation and memory appear after a second or two.",
    help: "Solid: how busy the device is. Dashed: memory. Low utilisation means that it waits, most often for data.",
    curves: [],
    summary: () => "", // chosen by `deviceCurves`
  },
];

/** Utilisation and memory of the GPU if there is one, else of this process. */
export function deviceSpec(store) {
  const gpu = store.get("gpu_util").n || store.get("gpu_mem").n;
  const [busy, memory] = gpu ? ["gpu_util", "gpu_mem"] : ["cpu_util", "ram"];
  return {
    title: gpu ? "GPU" : "CPU and memory",
    curves: [
      { metric: busy, label: "use", format: (x) => `${formatCount(x)} %`, limits: [0, 100] },
      { metric: memory, label: "memory", format: formatMiB, scale: "memory", headroom: 1.3 },
    ],
    ticks: (ticks) => ticks.map((x) => (x == null ? "" : `${x} %`)),
    summary: (now) =>
      dotted([
        gpu && now.get("gpu_temp").n && `${formatCount(now.get("gpu_temp").last)} °C`,
        gpu && now.get("gpu_power").n && `${formatCount(now.get("gpu_power").last)} W`,
      ]),
  };
}

/** Metrics that stand in another panel or in the header. */
export const QUIET = new Set([
  "time",
  "knn_untrained",
  "gpu_util",
  "gpu_mem",
  "gpu_mem_peak",
  "gpu_temp",
  "gpu_power",
  "cpu_util",
  "ram",
]);

/** The spread of the embeddings in a word. */
export function spreadWord(x) {
  return !(x >= 0) ? "" : x < 0.2 ? "collapsed" : x < 0.5 ? "watch this" : "healthy";
}

/** Good, to be watched, or bad: the colour of that word. */
export const spreadTone = (x) => ({ collapsed: "bad", "watch this": "warn", healthy: "good" })[spreadWord(x)];
