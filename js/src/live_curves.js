// LiveCurves: the state of a training run, its curves beside those of others, and the handles to steer it.
import { h } from "./lib/dom.js";
import { createFrame } from "./lib/frame.js";
import { createScheduler } from "./lib/scheduler.js";
import { RunStore, secondsLeft } from "./lib/series.js";
import { palette } from "./lib/theme.js";
import { createGrid } from "./live_curves/grid.js";
import { createHeader } from "./live_curves/header.js";
import { createLegend } from "./live_curves/legend.js";
import { createLink } from "./live_curves/link.js";
import { createNumbers } from "./live_curves/numbers.js";
import { createRate } from "./live_curves/rate.js";
import { createRuns } from "./live_curves/runs.js";
import { saveAs } from "./live_curves/save.js";
import { controlState, progressText } from "./live_curves/state.js";
import { createToolbar } from "./live_curves/toolbar.js";
import { createView } from "./live_curves/view.js";

const LOST = "The kernel was restarted: the curves stay, but this run is over. Run the cell again to train.";

function render({ model, el }) {
  const store = new RunStore();
  let colours = null,
    frames = 0,
    ready = false;
  const changed = () => {
    if (!ready) return;
    count();
    schedule.request();
  };
  const frame = createFrame(
    { model, el },
    {
      name: "live",
      label: "Live training curves",
      lost: LOST,
      onTheme: () => {
        colours = null;
        grid.repaint();
        changed();
      },
      onResize: () => {
        grid.resize();
        changed();
      },
    },
  );
  const { root, body } = frame;
  const runs = createRuns(store);
  const view = createView(frame, model, runs, changed);
  const link = createLink(model, { frame, store, onStatus, changed });
  const shared = { view, runs, colours: () => (colours ??= palette(root)) };

  const header = createHeader(link),
    numbers = createNumbers(),
    legend = createLegend(shared),
    grid = createGrid(shared);
  const rate = createRate({ send: (value) => link.command("lr_scale", { value }) });
  const toolbar = createToolbar(shared, save, grid.filled);
  body.append(
    header.root,
    h("div", { class: "nnb-now" }, numbers.root, rate.root),
    h("div", { class: "nnb-tools" }, legend.root, toolbar.root),
    grid.root,
    numbers.speech,
  );
  const schedule = createScheduler(draw, root);

  const readOthers = () => runs.set(link.status, model.get("others") ?? []);
  function onStatus(status, before) {
    readOthers();
    if (status.run !== before.run || (status.lr_scale !== before.lr_scale && !link.waiting("lr_scale")))
      rate.set(status.lr_scale ?? 1);
  }
  frame.on("change:others", () => {
    readOthers();
    changed();
  });

  const stateNow = () => controlState(link.status, link.waiting, link.state);

  function draw() {
    const began = performance.now(),
      { status } = link,
      state = stateNow();
    const step = Math.max(store.lastStep, 0),
      time = store.get("time");
    header.draw(state, status, { step, left: secondsLeft(time, status.total_steps), elapsed: time.last });
    rate.draw(state);
    frame.say(state.notice, state.noticeTone);
    numbers.draw(store);
    numbers.speak(state.label, progressText({ ...status, state: "" }, step), store.get("loss").last);
    legend.draw();
    toolbar.draw();
    grid.draw();
    frames++;
    root.dataset.cost = (performance.now() - began).toFixed(2);
    count();
  }

  /** Numbers for tests and for the curious, up to date even while nothing is drawn. */
  function count() {
    Object.assign(root.dataset, {
      ready: "true",
      points: store.points,
      msgs: link.messages,
      frames,
      rung: link.rung,
      run: store.run,
      runs: runs.list.length,
      state: stateNow().state,
    });
  }

  function save(kind, id) {
    const panels = grid.filled().filter((panel) => !id || panel.id === id);
    const metrics = panels.map((panel) => panel.metric);
    saveAs(kind, {
      name: [link.status.name || "run", id.replace(/^metric:/, "")].filter(Boolean).join("-"),
      status: link.status,
      step: Math.max(store.lastStep, 0),
      runs: view.shown(),
      metrics,
      range: view.ends(),
      panels,
      colours: shared.colours(),
    });
  }

  readOthers();
  rate.set(link.status.lr_scale ?? 1);
  ready = true;
  link.start();
  grid.resize();
  draw();

  return () => {
    link.dispose();
    rate.dispose();
    schedule.dispose();
    grid.dispose();
    frame.dispose();
  };
}

export default { render };
