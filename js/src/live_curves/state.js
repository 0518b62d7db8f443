// What header and buttons say: pure functions of the run's state and of what was asked for.
import { dotted, formatCount, formatDuration } from "../lib/format.js";

export const ACTIVE = new Set(["running", "paused", "stopping"]);
const LABELS = {
  idle: ["Idle", ""],
  running: ["Running", "good"],
  paused: ["Paused", "warn"],
  stopping: ["Stopping…", "warn"],
  stopped: ["Stopped", "warn"],
  finished: ["Finished", "good"],
  failed: ["Failed", "bad"],
  recorded: ["Recorded", ""],
};
export const PAUSE = "M2 1h3v10H2zM7 1h3v10H7z",
  PLAY = "M2.5 1l8 5-8 5z",
  STOP = "M2 2h8v8H2z"; // icons

/**
 * What the header shows: the run's own state, and over it what was asked for but not yet answered.
 * @param {{state?: string, error?: string}} status
 * @param {(name: string) => {late: boolean}|undefined} waiting unanswered commands
 * @param {{connected: boolean, lost: boolean, page: boolean}} link `lost`: the kernel is gone for good
 */
export function controlState(status, waiting, { connected = true, lost = false, page = false } = {}) {
  let state = Object.keys(LABELS).includes(status.state) ? status.state : "idle";
  const active = ACTIVE.has(state) && !page && !lost;
  const stop = active && waiting("stop"),
    pause = active && waiting("pause"),
    resume = active && waiting("resume");
  if (stop) state = "stopping";
  let [label, tone] = LABELS[state];
  if (ACTIVE.has(state) && (page || lost || !connected)) [label, tone] = [page ? "Recorded" : "Not connected", ""];
  const paused = state === "paused";
  const late = [stop, pause, resume, active && waiting("lr_scale")].some((command) => command?.late);
  return {
    state,
    label,
    tone,
    active,
    controls: !page && state !== "recorded",
    stop: {
      text: state === "stopping" ? "Stopping…" : "Stop",
      disabled: !active || state === "stopping",
      busy: state === "stopping" && active,
    },
    pause: {
      text: pause ? "Pausing…" : resume ? "Resuming…" : paused ? "Resume" : "Pause",
      icon: paused ? PLAY : PAUSE,
      command: paused ? "resume" : "pause",
      disabled: !active || state === "stopping" || Boolean(pause || resume),
      busy: Boolean(pause || resume),
    },
    rateDisabled: !active || state === "stopping",
    notice: late
      ? "The kernel is busy and has not answered yet. To stop now, press ■ in the notebook's toolbar, or the I key twice."
      : status.state === "failed"
        ? (status.error ?? "")
        : "",
    noticeTone: late ? "warn" : "bad",
  };
}

/** "epoch 3 of 20 · step 1,204 of 8,000 · 2 min 10 s left" */
export function progressText(status, step, left, elapsed) {
  const { epochs, steps_per_epoch: perEpoch, total_steps: total } = status;
  if (!step && !total) return "";
  // of a run that goes on, the one that has begun
  const begun = perEpoch ? (ACTIVE.has(status.state) ? Math.floor(step / perEpoch) + 1 : Math.ceil(step / perEpoch)) : 0,
    epoch = Math.min(begun, epochs || Infinity);
  return dotted([
    epoch ? `epoch ${formatCount(epoch)}${epochs ? ` of ${formatCount(epochs)}` : ""}` : "",
    `step ${formatCount(step)}${total ? ` of ${formatCount(total)}` : ""}`,
    status.state === "running"
      ? Number.isFinite(left) && `${formatDuration(left)} left`
      : elapsed > 0 && `took ${formatDuration(elapsed)}`,
  ]);
}
