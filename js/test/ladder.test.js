import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { BUSY_AFTER, createLadder, INTERRUPT_AFTER } from "../src/lib/ladder.js";
import { roadsOf } from "../src/lib/host.js";

/** Timers that a test moves by hand. */
function clock() {
  let now = 0,
    next = 1;
  const waiting = new Map();
  return {
    setTimeout: (f, delay) => (waiting.set(next, [now + delay, f]), next++),
    clearTimeout: (id) => waiting.delete(id),
    advance(ms) {
      now += ms;
      for (const [id, [at, f]] of [...waiting]) if (at <= now && waiting.delete(id)) f();
    },
    get size() {
      return waiting.size;
    },
  };
}

let timers, sent, changes, ids;
beforeEach(() => {
  [timers, sent, changes, ids] = [clock(), [], [], 0];
});
const road =
  (name, works = true) =>
  (payload) => (sent.push([name, payload]), works);
const make = (roads = {}, more = {}) =>
  createLadder({
    roads: { control: road("control"), comm: road("comm"), interrupt: road("interrupt"), ...roads },
    newId: () => `c${++ids}`,
    mayInterrupt: () => true,
    onChange: (c) => changes.push({ ...c }),
    timers,
    ...more,
  });

test("a command takes both message roads at once under one id", () => {
  make().send("pause", "r1", { extra: 1 });
  assert.deepEqual(
    sent.map(([name]) => name),
    ["control", "comm"],
  );
  assert.deepEqual(sent[0][1], {
    kind: "command",
    command: "pause",
    cmd_id: "c1",
    run: "r1",
    rung: "control",
    extra: 1,
  });
  assert.equal(sent[1][1].cmd_id, "c1");
  assert.equal(sent[1][1].rung, "comm");
});

test("the answer names the rung and ends the waiting", () => {
  const ladder = make(),
    command = ladder.send("stop", "r1");
  ladder.acknowledge({ cmd_id: "c1", rung: "control", ok: true });
  timers.advance(10000);
  assert.equal(command.rung, "control");
  assert.equal(ladder.waiting("stop"), undefined);
  assert.equal(sent.length, 2, "no signal was needed");
  assert.equal(timers.size, 0);
});

test("an unanswered Stop becomes a signal, once", () => {
  make().send("stop", "r1");
  timers.advance(INTERRUPT_AFTER);
  timers.advance(60000);
  assert.deepEqual(
    sent.map(([name]) => name),
    ["control", "comm", "interrupt"],
  );
});

test("only Stop becomes a signal, and only for a run of ours", () => {
  make().send("pause", "r1");
  make({}, { mayInterrupt: () => false }).send("stop", "r1");
  timers.advance(5000);
  assert.ok(!sent.some(([name]) => name === "interrupt"));
});

test("a command without an answer is late after two seconds", () => {
  const ladder = make();
  ladder.send("pause", "r1");
  timers.advance(BUSY_AFTER - 1);
  assert.equal(ladder.waiting("pause").late, false);
  timers.advance(1);
  assert.equal(ladder.waiting("pause").late, true);
  assert.equal(changes.at(-1).late, true);
});

test("a missing or broken road does not block the others", () => {
  const ladder = make({
    control: null,
    comm: () => {
      throw new Error("closed");
    },
  });
  const warn = console.warn;
  console.warn = () => {};
  const command = ladder.send("stop", "r1");
  timers.advance(INTERRUPT_AFTER);
  console.warn = warn;
  assert.deepEqual(command.rungs, ["interrupt"]);
});

test("what the state shows needs no answer", () => {
  const ladder = make(),
    command = ladder.send("stop", "r1");
  timers.advance(INTERRUPT_AFTER);
  ladder.settle("stop");
  assert.equal(command.ok, true);
  assert.equal(command.rung, "interrupt");
});

test("an answer to another view is not ours; a newer command replaces the older", () => {
  const ladder = make();
  ladder.send("lr_scale", "r1", { value: 2 });
  ladder.send("lr_scale", "r1", { value: 3 });
  assert.equal(ladder.acknowledge({ cmd_id: "other" }), undefined);
  assert.equal(ladder.pending.size, 1);
  assert.equal(ladder.waiting("lr_scale").args.value, 3);
});

test("after disposal nothing happens", () => {
  const ladder = make();
  ladder.send("stop", "r1");
  ladder.dispose();
  timers.advance(10000);
  assert.equal(sent.length, 2);
});

const model = (kernel) => ({
  traits: { comm_id: "abc" },
  sent: [],
  get(name) {
    return this.traits[name];
  },
  send(content) {
    this.sent.push(content);
  },
  widget_manager: kernel && { kernel },
});

test("the control road sends a comm message on the control channel", () => {
  const messages = [],
    m = model({ clientId: "me", sendControlMessage: (...args) => messages.push(args) });
  const roads = roadsOf(m, ["control", "comm", "interrupt"], () => "id");
  assert.equal(roads.control({ command: "stop" }), true);
  const [message, reply, disposes] = messages[0];
  assert.equal(message.channel, "control");
  assert.equal(message.header.msg_type, "comm_msg");
  assert.deepEqual(message.content, { comm_id: "abc", data: { method: "custom", content: { command: "stop" } } });
  assert.deepEqual([reply, disposes], [false, true]);
  roads.interrupt();
  assert.equal(messages[1][0].header.msg_type, "interrupt_request");
});

test("without a kernel object only the ordinary road remains", () => {
  const m = model(),
    roads = roadsOf(m, ["control", "comm", "interrupt"], () => "id");
  assert.ok(!roads.control({}));
  assert.equal(roads.interrupt(), false);
  assert.equal(roads.comm({ a: 1 }), true);
  assert.deepEqual(m.sent, [{ a: 1 }]);
});

test("rungs that are switched off do not exist; an old kernel object interrupts over REST", () => {
  let interrupted = 0;
  const kernel = { interrupt: () => interrupted++ };
  assert.deepEqual(
    roadsOf(model(kernel), [], () => "id"),
    { control: null, comm: null, interrupt: null },
  );
  roadsOf(model(kernel), ["interrupt"], () => "id").interrupt();
  assert.equal(interrupted, 1);
});
