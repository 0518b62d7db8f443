// Which curves are shown, and what is said about each.
import { formatCount, formatMiB, formatNumber, formatPercent, formatPlain, formatTicks } from "../lib/format.js";

/**
 * @typedef {object} PanelSpec
 * @property {string} id
 * @property {string} metric name in the history
 * @property {string} title
 * @property {string} help plain words for the tooltip
 * @property {string} empty what to do to see something here
 * @property {(x: number) => string} format
 * @property {[number|null, number|null]} [limits] ends of the axis, null where the data decide
 * @property {number} [headroom] how many times the highest value the axis reaches
 * @property {boolean} [log] offer a logarithmic axis
 * @property {boolean} [exact] is never smoothed: it has no noise, or is measured seldom
 * @property {number} [unit] round numbers along the axis are multiples of it
 * @property {boolean} [gauge] one of the small panels for the machine
 * @property {(x: number[]) => string[]} [ticks]
 * @property {{from: number, to: number, tone: "bad"|"warn"|"good", label: string}[]} [bands]
 * @property {(store: import("../lib/series.js").RunStore) => {value: number, label: string}|null} [baseline]
 * @property {(store: import("../lib/series.js").RunStore) => string} summary shown while nothing is pointed at
 */

const extreme = (series, key, format) => (series.n && Number.isFinite(series[key]) ? format(series[key]) : "");
const latest = (metric, format) => (store) => (store.get(metric).n ? format(store.get(metric).last) : "");
/** Whole numbers with a unit, and ticks as exact as they must be. */
const inUnit = (unit) => ({ format: (x) => `${formatCount(x)} ${unit}`, ticks: (ticks) => formatTicks(ticks).map((text) => `${text} ${unit}`) });

/** @type {PanelSpec[]} */
export const PANELS = [
  {
    id: "loss",
    metric: "loss",
    title: "Loss",
    log: true,
    empty: "The loss appears with the first steps.",
    help: "What the optimizer makes small. Its height says little about what was learned, and its value cannot be compared between methods.",
    format: formatNumber,
    summary: (store) => extreme(store.get("loss"), "low", (x) => `lowest ${formatNumber(x)}`),
  },
  {
    id: "knn",
    metric: "knn",
    title: "k-NN accuracy",
    empty: "Add a KNNMonitor to the callbacks to see what the features are worth.",
    help: "How often an image's nearest neighbours in feature space have its class. Labels are used for this check only. The dashed line is the untrained network.",
    exact: true,
    format: formatPercent,
    ticks: (ticks) => inUnit("%").ticks(ticks.map((x) => 100 * x)),
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
    metric: "std",
    title: "Embedding spread",
    log: true,
    empty: "Appears when the algorithm logs std.",
    help: "Standard deviation of the normalised embeddings times √D. Near 1 they are spread over the whole sphere, which is healthy. Near 0 every image gets the same embedding: the network has collapsed and has learned nothing, however small the loss is.",
    format: formatNumber,
    limits: [0, 1.2],
    bands: [
      { from: 0, to: 0.2, tone: "bad", label: "collapsed" },
      { from: 0.2, to: 0.5, tone: "warn", label: "watch" },
      { from: 0.5, to: 10, tone: "good", label: "healthy" },
    ],
    summary: (store) => extreme(store.get("std"), "low", (x) => `lowest ${formatNumber(x)}`),
  },
  {
    id: "lr",
    metric: "lr",
    title: "Learning rate",
    log: true,
    empty: "The learning rate appears with the first steps.",
    help: "The optimizer's step size now: the schedule times the factor of the slider.",
    exact: true,
    format: formatPlain,
    limits: [0, null],
    summary: latest("lr", formatPlain),
  },
  {
    id: "throughput",
    metric: "images_per_s",
    title: "Throughput",
    empty: "Images per second appear with the first steps.",
    help: "Images per second through the whole step: loading, views, forward, backward, update.",
    format: formatCount,
    limits: [0, null],
    summary: latest("images_per_s", (x) => `${formatCount(x)} images/s`),
  },
];

const MEMORY = { format: formatMiB, ticks: (ticks) => ticks.map(formatMiB) };
const gauge = (id, metric, title, how, help, more = {}) => ({
  id,
  metric,
  title,
  ...how,
  help,
  empty: "",
  gauge: true,
  exact: true,
  summary: latest(metric, how.format),
  ...more,
});

/** Small panels for the machine; each is there when its driver tells something. @type {PanelSpec[]} */
export const GAUGES = [
  gauge("gpu-use", "gpu_util", "GPU use", inUnit("%"), "How much of the time the GPU was computing. Low use means that it waits, most often for data.", { limits: [0, 100] }),
  gauge("gpu-memory", "gpu_mem", "GPU memory", MEMORY, "Memory in use on the card, by all programs. The dashed line is the most that this process ever held.", {
    headroom: 1.3,
    unit: 1024,
    baseline: (store) => {
      const peak = store.get("gpu_mem_peak").last;
      return peak > 0 ? { value: peak, label: `peak ${formatMiB(peak)}` } : null;
    },
  }),
  gauge("gpu-temperature", "gpu_temp", "GPU temperature", inUnit("°C"), "A card that gets too hot slows itself down, often from about 85 °C.", {}),
  gauge("gpu-power", "gpu_power", "GPU power", inUnit("W"), "What the card draws. Far below its limit while use is high: memory or small kernels are the bottleneck.", { limits: [0, null] }),
  gauge("cpu-use", "cpu_util", "CPU use", inUnit("%"), "How busy this process keeps the processor; 100 % is all cores.", { limits: [0, 100] }),
  gauge("memory", "ram", "Process memory", MEMORY, "Main memory of this process. A steady rise over epochs is a leak.", { headroom: 1.3, unit: 1024 }),
]; // prettier-ignore

/** The name of the group of gauges. */
export const gaugeTitle = (metrics) => (metrics.some((name) => name.startsWith("gpu_")) ? "GPU and processor" : "Processor");

/** Metrics that stand in another panel or in the header. */
export const QUIET = new Set(["time", "knn_untrained", "gpu_mem_peak"]);

/** A panel for a metric that we do not know. @returns {PanelSpec} */
export const otherPanel = (metric) => ({
  id: `metric:${metric}`,
  metric,
  title: metric,
  help: "",
  empty: "",
  log: true,
  format: formatNumber,
  summary: latest(metric, formatNumber),
});

/** The spread of the embeddings in a word. */
export function spreadWord(x) {
  return !(x >= 0) ? "" : x < 0.2 ? "collapsed" : x < 0.5 ? "watch this" : "healthy";
}

/** Good, to be watched, or bad: the colour of that word. */
export const spreadTone = (x) => ({ collapsed: "bad", "watch this": "warn", healthy: "good" })[spreadWord(x)];
