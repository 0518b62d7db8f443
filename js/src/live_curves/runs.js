// The runs that are shown: the one that is followed, and those laid beside it. Each has a colour and a dash of its own.
import { RunStore, unpackSnapshot } from "../lib/series.js";

export const DASHES = [[], [6, 3], [2, 2.5], [9, 3, 2, 3], [4, 2, 1, 2]]; // px; the followed run is solid

/**
 * @typedef {object} Run
 * @property {string} name as shown, different for each
 * @property {RunStore} store
 * @property {{steps_per_epoch?: number, batch_size?: number}} info
 * @property {number} colour index into the palette
 * @property {number[]} dash
 * @property {boolean} current the run that is followed
 */

/** Colour and dash of the i-th run: twenty-four differ. */
export const styleOf = (i) => ({ colour: i % 6, dash: i ? DASHES[1 + ((i - 1) % (DASHES.length - 1))] : DASHES[0] });

/** Names as given, numbered where one comes again; what has none is "run". */
export function uniqueNames(names) {
  const taken = new Set();
  return names.map((name) => {
    const base = String(name || "run");
    let unique = base;
    for (let i = 2; taken.has(unique); i++) unique = `${base} ${i}`;
    taken.add(unique);
    return unique;
  });
}

/** @param {RunStore} current rows of the run that is followed */
export function createRuns(current) {
  /** @type {Run[]} */
  let list = [{ name: "run", store: current, info: {}, current: true, ...styleOf(0) }];
  let version = 0;
  const kept = new Map(); // bytes → store, so that unchanged runs are not unpacked again

  function storeOf(bytes) {
    if (kept.has(bytes)) return kept.get(bytes);
    const store = new RunStore(),
      found = bytes?.byteLength ? unpackSnapshot(bytes) : null;
    if (found) store.append(found.columns, found.header.events);
    kept.set(bytes, store);
    return store;
  }

  return {
    get list() {
      return list;
    },
    get current() {
      return list[0];
    },
    /** Changes with every run that comes, goes or is renamed. */
    get version() {
      return version;
    },
    /** The run that is followed has this status, and these are beside it. */
    set(status, others) {
      const names = uniqueNames([status.name, ...others.map((other) => other.name)]);
      list = [
        { ...list[0], name: names[0], info: status },
        ...others.map((other, i) => ({
          name: names[i + 1],
          store: storeOf(other.snapshot),
          info: other,
          current: false,
          ...styleOf(i + 1),
        })),
      ];
      const bytes = new Set(others.map((other) => other.snapshot));
      for (const key of [...kept.keys()]) if (!bytes.has(key)) kept.delete(key);
      version++;
    },
    /** All metrics of all runs, those of the followed run first. */
    metrics: () => [...new Set(list.flatMap((run) => [...run.store.series.keys()]))],
    /** Whether any of the runs in `shown` has measured it. */
    has: (metric, shown = list) => shown.some((run) => run.store.get(metric).n > 0),
  };
}
