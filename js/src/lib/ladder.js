// Commands for a kernel that may be busy. A command takes every road at once (the same id, Python runs it once):
//   control    a comm message on the control channel, which a busy kernel still reads
//   comm       the widget's ordinary channel: threads, async cells, some kernels
//   interrupt  only for Stop and only if nothing was heard: the signal behind the toolbar's stop button
// Python answers {kind: "ack", cmd_id, rung, ok}; `rung` is the road that was fastest.

export const INTERRUPT_AFTER = 700; // ms without an answer
export const BUSY_AFTER = 2000;

/**
 * @param {object} options
 * @param {{control: Function|null, comm: Function|null, interrupt: Function|null}} options.roads each returns true if it sent
 * @param {() => string} options.newId
 * @param {() => boolean} [options.mayInterrupt] is it our run that a signal would stop?
 * @param {(command: object) => void} [options.onChange] called when a command is sent, answered, late or given up
 */
export function createLadder({ roads, newId, mayInterrupt = () => false, onChange = () => {}, timers = globalThis }) {
  /** @type {Map<string, {id: string, name: string, args: object, late: boolean, rungs: string[], timers: any[]}>} */
  const pending = new Map();
  let disposed = false;
  const later = (command, delay, f) =>
    command.timers.push(timers.setTimeout(() => pending.has(command.id) && f(), delay));

  function attempt(command, rung, payload) {
    try {
      if (roads[rung]?.(payload)) command.rungs.push(rung);
    } catch (error) {
      console.warn(`nenya_nb: the ${rung} road failed`, error);
    }
  }

  function finish(command, change) {
    command.timers.forEach((timer) => timers.clearTimeout(timer));
    pending.delete(command.id);
    Object.assign(command, change);
    onChange(command);
    return command;
  }

  return {
    pending,

    /** The newest unanswered command of that name. */
    waiting(name) {
      return [...pending.values()].reverse().find((command) => command.name === name);
    },

    /** Sends a command on every road; an older one of the same name is forgotten. */
    send(name, run, args = {}) {
      for (const old of [...pending.values()]) if (old.name === name) finish(old, { replaced: true });
      const command = { id: newId(), name, run, args, late: false, rungs: [], timers: [] };
      pending.set(command.id, command);
      for (const rung of ["control", "comm"])
        attempt(command, rung, { kind: "command", command: name, cmd_id: command.id, run, rung, ...args });
      if (name === "stop")
        later(command, INTERRUPT_AFTER, () => {
          if (mayInterrupt()) attempt(command, "interrupt");
          onChange(command);
        });
      later(command, BUSY_AFTER, () => {
        command.late = true;
        onChange(command);
      });
      onChange(command);
      return command;
    },

    /** Python's answer. Answers to other views' commands are not ours and change nothing. */
    acknowledge({ cmd_id, rung, ok }) {
      const command = pending.get(cmd_id);
      return command && !disposed ? finish(command, { rung, ok }) : undefined;
    },

    /** The state shows that a command has worked, whether or not an answer came. */
    settle(name, rung) {
      for (const command of [...pending.values()])
        if (command.name === name) finish(command, { ok: true, rung: rung ?? command.rungs[command.rungs.length - 1] });
    },

    dispose() {
      disposed = true;
      for (const command of pending.values()) command.timers.forEach((timer) => timers.clearTimeout(timer));
      pending.clear();
    },
  };
}
