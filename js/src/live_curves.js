// LiveCurves: the state of a training run, its curves, and the handles to steer it.
import { h, icon, setAttribute, setText, uniqueId } from "./lib/dom.js";
import { dotted, formatCount, formatFactor, formatNumber, formatPercent } from "./lib/format.js";
import { hostName, roadsOf, watchKernel } from "./lib/host.js";
import { createLadder } from "./lib/ladder.js";
import { createPanel } from "./lib/panel.js";
import { createScheduler, throttle } from "./lib/scheduler.js";
import { RunStore, secondsLeft, unpackColumns, unpackSnapshot } from "./lib/series.js";
import { palette, watchTheme } from "./lib/theme.js";
import { deviceSpec, PANELS, QUIET, spreadTone, spreadWord } from "./live_curves/panels.js";
import { ACTIVE, controlState, PAUSE, progressText, STOP } from "./live_curves/state.js";

const SPEAK_EVERY = 5000; // ms between announcements to screen readers
const LISTEN_FOR = 4000; // ms until a question without an answer means "not connected"
const SILENCE = 10000; // ms without a word from an active run after which we ask
const MOST_PANELS = 18; // with those for metrics that we do not know

/** One big number with a small unit. */
function readOut(title) {
  const value = h("span", {}, "–"),
    unit = h("small", {});
  return {
    root: h(
      "div",
      { class: "nnb-out" },
      h("div", { class: "nnb-out-name" }, title),
      h("div", { class: "nnb-out-value" }, value, unit),
    ),
    set(text, small = "", tone = null) {
      setAttribute(unit, "data-tone", tone);
      setText(value, text);
      setText(unit, small && text !== "–" ? ` ${small}` : "");
    },
  };
}

function render({ model, el }) {
  const page = hostName(model) === "page";
  const store = new RunStore();
  const counters = { msgs: 0, frames: 0 };
  let status = model.get("status") ?? {},
    heard = 0,
    asked = 0,
    lost = false,
    rung = "",
    disposed = false,
    spoke = -Infinity;
  let unplacedResize = true;

  // ---- the page -------------------------------------------------------------------------------------------------
  const chip = h("span", { class: "nnb-chip", role: "status" });
  const name = h("span", { class: "nnb-name" });
  const progress = h("span", { class: "nnb-progress-text" });
  const pauseText = h("span", {}),
    pauseIcon = icon(PAUSE),
    stopText = h("span", {});
  const pause = h(
    "button",
    { class: "nnb-button nnb-pause", type: "button", on: { click: () => command(pause.dataset.command) } },
    pauseIcon,
    pauseText,
  );
  const stop = h(
    "button",
    { class: "nnb-button nnb-stop", type: "button", on: { click: () => command("stop") } },
    icon(STOP),
    stopText,
  );
  const actions = h("div", { class: "nnb-actions" }, pause, stop);
  const bar = h("div", { class: "nnb-bar" });
  const track = h(
    "div",
    {
      class: "nnb-track",
      role: "progressbar",
      "aria-label": "Training progress",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
    },
    bar,
  );
  const notice = h("div", { class: "nnb-notice", role: "alert" });
  const outs = {
    loss: readOut("Loss"),
    knn: readOut("k-NN accuracy"),
    pace: readOut("Throughput"),
    std: readOut("Embedding spread"),
  };
  const slider = h("input", {
    type: "range",
    min: -1,
    max: 1,
    step: 0.05,
    value: 0,
    "aria-label": "Factor on the learning rate",
  });
  const factor = h("output", {}, "×1");
  const reset = h(
    "button",
    {
      class: "nnb-link",
      type: "button",
      "aria-label": "Reset the factor on the learning rate to 1",
      on: { click: () => setSlider(1, true) },
    },
    "reset",
  );
  const rate = h(
    "div",
    { class: "nnb-rate" },
    h("div", { class: "nnb-rate-head" }, h("span", {}, "Learning rate"), reset, factor),
    h(
      "div",
      { class: "nnb-rate-row" },
      h("span", { "aria-hidden": "true" }, "×0.1"),
      slider,
      h("span", { "aria-hidden": "true" }, "×10"),
    ),
  );
  const speech = h("div", { class: "nnb-hidden", "aria-live": "polite" });
  const grid = h("div", { class: "nnb-grid" });
  const root = h(
    "div",
    {
      class: "nnb-root nnb-live",
      role: "region",
      "aria-label": "Live training curves",
      "data-lm-suppress-shortcuts": "true",
      on: { keydown: (event) => event.stopPropagation() },
    },
    h("div", { class: "nnb-live-head" }, chip, name, progress, actions),
    track,
    notice,
    h(
      "div",
      { class: "nnb-now" },
      h("div", { class: "nnb-outs" }, ...Object.values(outs).map((out) => out.root)),
      rate,
    ),
    grid,
    speech,
  );
  el.append(root);

  let colours;
  const shared = { syncKey: uniqueId(), colours: () => (colours ??= palette(root)) };
  const stopTheme = watchTheme(root, () => {
    colours = null;
    for (const panel of panels) panel.repaint();
    schedule.request();
  });
  let device = deviceSpec(store);
  const specs = PANELS.map((spec) => (spec.id === "device" ? { ...spec, ...device } : spec));
  const panels = specs.map((spec) => createPanel(spec, shared));
  grid.append(...panels.map((panel) => panel.root));

  // ---- drawing --------------------------------------------------------------------------------------------------
  function draw() {
    if (unplacedResize) resize();
    replaceDevice();
    addOthers();
    const step = Math.max(store.lastStep, 0);
    const context = { lastStep: step, stepsPerEpoch: status.steps_per_epoch ?? 0 };
    for (const panel of panels) panel.update(store, context);
    drawHeader(step);
    drawNow();
    counters.frames++;
    count();
  }

  function resize() {
    unplacedResize = !root.clientWidth;
    for (const panel of panels) panel.resize();
  }

  /** The device panel is chosen when its first numbers have come. */
  function replaceDevice() {
    const now = deviceSpec(store);
    if (now.curves[0].metric === device.curves[0].metric) return;
    device = now;
    const i = specs.findIndex((spec) => spec.id === "device");
    const panel = createPanel({ ...PANELS[i], ...device }, shared);
    panels[i].root.replaceWith(panel.root);
    panels[i].destroy();
    panels[i] = panel;
    panel.resize();
  }

  /** One more panel for each metric that no panel shows. */
  function addOthers() {
    for (let i = panels.length - 1; i >= PANELS.length; i--)
      if (!store.series.has(specs[i].curves[0].metric)) {
        panels[i].destroy();
        panels[i].root.remove();
        panels.splice(i, 1);
        specs.splice(i, 1);
      }
    for (const metric of store.series.keys()) {
      if (
        QUIET.has(metric) ||
        panels.length >= MOST_PANELS ||
        specs.some((spec) => spec.curves.some((curve) => curve.metric === metric))
      )
        continue;
      const spec = {
        id: `metric-${panels.length}`,
        title: metric,
        empty: "",
        curves: [{ metric, label: "", format: formatNumber }],
        summary: (now) => formatNumber(now.get(metric).last),
      };
      const panel = createPanel(spec, shared);
      specs.push(spec);
      panels.push(panel);
      grid.append(panel.root);
      panel.resize();
    }
  }

  const viewState = () => controlState(status, (what) => ladder.waiting(what), { connected: connected(), lost, page });

  function drawHeader(step) {
    const view = viewState();
    setText(chip, view.label);
    setAttribute(chip, "data-tone", view.tone || null);
    setText(name, status.name === "run" ? "" : (status.name ?? ""));
    setAttribute(name, "title", status.name || null);
    const time = store.get("time");
    setText(
      progress,
      progressText(
        view.active ? status : { ...status, state: "" },
        step,
        secondsLeft(time, status.total_steps),
        view.active ? 0 : time.last,
      ),
    );
    const share = status.total_steps ? Math.min(step / status.total_steps, 1) : 0;
    bar.style.transform = `scaleX(${share})`;
    setAttribute(track, "aria-valuenow", Math.round(100 * share));
    actions.hidden = rate.hidden = !view.controls;
    setText(pauseText, view.pause.text);
    setAttribute(pauseIcon.firstChild, "d", view.pause.icon);
    pause.dataset.command = view.pause.command;
    for (const [button, how] of [
      [pause, view.pause],
      [stop, view.stop],
    ]) {
      button.disabled = how.disabled;
      setAttribute(button, "aria-busy", how.busy ? "true" : null);
    }
    setText(stopText, view.stop.text);
    slider.disabled = view.rateDisabled;
    reset.disabled = view.rateDisabled || Number(slider.value) === 0;
    setText(notice, view.notice);
    setAttribute(notice, "data-tone", view.noticeTone);
    speak(view.label, step);
  }

  function drawNow() {
    const { get } = { get: (metric) => store.get(metric).last };
    outs.loss.set(formatNumber(get("loss")));
    outs.knn.set(formatPercent(get("knn")));
    outs.pace.set(formatCount(get("images_per_s")), "images/s");
    outs.std.set(formatNumber(get("std")), spreadWord(get("std")), spreadTone(get("std")));
  }

  /** A sentence for screen readers, at most every few seconds. */
  function speak(label, step) {
    if (performance.now() - spoke < SPEAK_EVERY) return;
    const loss = store.get("loss").last;
    const text = dotted([
      label,
      progressText({ ...status, state: "" }, step),
      Number.isFinite(loss) && `loss ${formatNumber(loss)}`,
    ]);
    if (text === speech.textContent) return;
    spoke = performance.now();
    setText(speech, text);
  }

  /** Numbers for tests and for the curious, up to date even while nothing is drawn. */
  function count() {
    Object.assign(root.dataset, {
      ready: "true",
      points: store.points,
      msgs: counters.msgs,
      frames: counters.frames,
      rung,
      run: store.run,
      state: viewState().state,
    });
  }

  // ---- talking to the kernel ------------------------------------------------------------------------------------
  const schedule = createScheduler(draw, root);
  const ladder = createLadder({
    roads: page ? { control: null, comm: null, interrupt: null } : roadsOf(model, model.get("rungs") ?? [], uniqueId),
    newId: uniqueId,
    mayInterrupt: () => Boolean(status.interruptible) && ACTIVE.has(status.state),
    onChange: (sent) => {
      if (sent.rung) rung = sent.rung;
      if (disposed) return;
      count();
      schedule.request();
    },
  });

  function command(what, args = {}) {
    ladder.send(what, status.run ?? store.run, args);
  }

  let lastAsked = -Infinity,
    lastSync = -Infinity;
  /** Asks the kernel: "sync" for the whole history, "ping" whether it is there. */
  function ask(what) {
    lastAsked = performance.now();
    const sent = ladder.send(what, status.run ?? store.run);
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

  const connected = () => !asked || performance.now() - asked < LISTEN_FOR;

  /** Asks a run that has been silent for long whether it is still there. */
  function watch() {
    if (
      ACTIVE.has(status.state) &&
      !lost &&
      !document.hidden &&
      performance.now() - Math.max(heard, lastAsked) > SILENCE
    )
      ask("ping");
    schedule.request();
  }

  function onMessage(message, buffers) {
    heard = performance.now();
    asked = 0;
    lost = false;
    if (message.kind === "ack") {
      ladder.acknowledge(message);
    } else if (message.kind === "rows") {
      counters.msgs++;
      const missing = store.receive(message, unpackColumns(message.layout, buffers?.[0]), message.events);
      if (message.status) showStatus(message.status);
      if (message.full) patience = 1000;
      if (missing) sync();
    }
    count();
    schedule.request();
  }

  function showStatus(next) {
    const before = status;
    status = next;
    if (status.run !== before.run || (status.lr_scale !== before.lr_scale && !ladder.waiting("lr_scale")))
      setSlider(status.lr_scale ?? 1);
    if (status.state === "paused") ladder.settle("pause");
    if (status.state === "running" && before.state === "paused") ladder.settle("resume");
    if (!["idle", "running", "paused"].includes(status.state)) ladder.settle("stop");
    if (status.run && status.run !== store.run) store.reset(status.run);
    count();
    schedule.request();
  }
  const onStatus = () => showStatus(model.get("status") ?? {});

  /** The stored history: all there is without a kernel, and a check that nothing was missed with one. */
  function onSnapshot() {
    const bytes = model.get("snapshot");
    const stored = bytes && unpackSnapshot(bytes);
    if (!stored || (stored.header.run === store.run && store.next > stored.header.seq && !store.incomplete)) return;
    store.receive({ run: stored.header.run, seq: stored.header.seq, full: true }, stored.columns, stored.header.events);
    sync();
    schedule.request();
  }

  const sendRate = throttle(() => command("lr_scale", { value: Number((10 ** slider.value).toPrecision(3)) }), 200);
  function setSlider(scale, send = false) {
    slider.value = Math.log10(scale);
    showFactor();
    if (send) sendRate();
  }
  function showFactor() {
    const text = formatFactor(10 ** slider.value);
    setText(factor, text);
    setAttribute(slider, "aria-valuetext", text);
    reset.disabled = slider.disabled || Number(slider.value) === 0;
  }
  slider.addEventListener("input", showFactor);
  slider.addEventListener("change", sendRate);

  model.on("msg:custom", onMessage);
  model.on("change:status", onStatus);
  model.on("change:snapshot", onSnapshot);
  const sizes = new ResizeObserver(() =>
    requestAnimationFrame(() => {
      if (disposed) return;
      resize();
      schedule.request();
    }),
  );
  sizes.observe(root);
  setSlider(status.lr_scale ?? 1);
  onSnapshot();
  sync();
  const watching = page ? 0 : setInterval(watch, 2500);
  const stopKernel = watchKernel(model, () => {
    lost = true;
    schedule.request();
  });
  draw();

  return () => {
    disposed = true;
    clearInterval(watching);
    stopKernel();
    model.off("msg:custom", onMessage);
    model.off("change:status", onStatus);
    model.off("change:snapshot", onSnapshot);
    sizes.disconnect();
    stopTheme();
    schedule.dispose();
    sendRate.cancel();
    clearTimeout(syncTimer);
    ladder.dispose();
    for (const panel of panels) panel.destroy();
    root.remove();
  };
}

export default { render };
