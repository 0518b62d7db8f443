// Talking to the kernel: commands on every road, messages in order, and whether anybody is still there.
import { roadsOf, watchKernel } from "../lib/host.js";
import { createLadder } from "../lib/ladder.js";
import { uniqueId } from "../lib/dom.js";
import { unpackColumns, unpackSnapshot } from "../lib/series.js";
import { ACTIVE } from "./state.js";

const LISTEN_FOR = 4000; // ms until a question without an answer means "not connected"
const SILENCE = 10000; // ms without a word from an active run after which we ask

/**
 * @param {any} model
 * @param {object} options
 * @param {{on: Function, page: boolean}} options.frame
 * @param {import("../lib/series.js").RunStore} options.store takes the rows
 * @param {(status: object, before: object) => void} options.onStatus
 * @param {() => void} options.changed something to show is new
 */
export function createLink(model, { frame, store, onStatus, changed }) {
  const { page } = frame;
  let status = model.get("status") ?? {},
    heard = 0,
    asked = 0,
    messages = 0,
    lost = false,
    rung = "",
    disposed = false;
  const ladder = createLadder({
    roads: page ? { control: null, comm: null, interrupt: null } : roadsOf(model, model.get("rungs") ?? [], uniqueId),
    newId: uniqueId,
    mayInterrupt: () => Boolean(status.interruptible) && ACTIVE.has(status.state),
    onChange: (sent) => {
      if (sent.rung) rung = sent.rung;
      if (!disposed) changed();
    },
  });
  const command = (what, args = {}) => ladder.send(what, status.run ?? store.run, args);

  let lastAsked = -Infinity,
    lastSync = -Infinity;
  /** Asks the kernel: "sync" for the whole history, "ping" whether it is there. */
  function ask(what) {
    lastAsked = performance.now();
    const sent = command(what);
    // only the control road is answered by a busy kernel; without it, or before the first word, silence says little
    if (!asked && (sent.rungs.includes("control") || !heard)) asked = performance.now();
  }
  let patience = 1000,
    syncTimer = 0; // ms; doubles with every question that stays open, not to fill a busy kernel's queue
  function sync() {
    if (page || syncTimer) return;
    syncTimer = setTimeout(
      () => {
        syncTimer = 0;
        patience = Math.min(2 * patience, 60000);
        ask("sync");
      },
      Math.max(0, lastSync + patience - performance.now()),
    );
    lastSync = Math.max(performance.now(), lastSync + patience);
  }

  /** Asks a run that has been silent for long whether it is still there. */
  function watch() {
    const quiet = performance.now() - Math.max(heard, lastAsked) > SILENCE;
    if (ACTIVE.has(status.state) && !lost && !document.hidden && quiet) ask("ping");
    changed();
  }

  function onMessage(message, buffers) {
    heard = performance.now();
    asked = 0;
    lost = false;
    if (message.kind === "ack") {
      ladder.acknowledge(message);
    } else if (message.kind === "rows") {
      messages++;
      const missing = store.receive(message, unpackColumns(message.layout, buffers?.[0]), message.events);
      if (message.status) showStatus(message.status);
      if (message.full) patience = 1000;
      if (missing) sync();
    }
    changed();
  }

  function showStatus(next) {
    const before = status;
    status = next;
    if (status.state === "paused") ladder.settle("pause");
    if (status.state === "running" && before.state === "paused") ladder.settle("resume");
    if (!["idle", "running", "paused"].includes(status.state)) ladder.settle("stop");
    if (status.run && status.run !== store.run) store.reset(status.run);
    onStatus(status, before);
    changed();
  }

  /** The stored history: all there is without a kernel, and a check that nothing was missed with one. */
  function onSnapshot() {
    const bytes = model.get("snapshot");
    const stored = bytes && unpackSnapshot(bytes);
    const known = store.run === stored?.header.run && store.next > stored.header.seq && !store.incomplete && store.points;
    if (!stored || known) return;
    store.receive({ run: stored.header.run, seq: stored.header.seq, full: true }, stored.columns, stored.header.events);
    sync();
    changed();
  }

  frame.on("msg:custom", onMessage);
  frame.on("change:status", () => showStatus(model.get("status") ?? {}));
  frame.on("change:snapshot", onSnapshot);
  const watching = page ? 0 : setInterval(watch, 2500);
  const stopKernel = watchKernel(model, () => {
    lost = true;
    changed();
  });

  return {
    command,
    waiting: (what) => ladder.waiting(what),
    get status() {
      return status;
    },
    get messages() {
      return messages;
    },
    get rung() {
      return rung;
    },
    get state() {
      return { connected: !asked || performance.now() - asked < LISTEN_FOR, lost, page };
    },
    /** Reads what is stored, and asks for the rest. */
    start() {
      onSnapshot();
      sync();
    },
    dispose() {
      disposed = true;
      clearInterval(watching);
      clearTimeout(syncTimer);
      stopKernel();
      ladder.dispose();
    },
  };
}
