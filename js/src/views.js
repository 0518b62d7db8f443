// ViewsPlayground: every knob of a recipe of views, and the views it makes, with the same luck.
import { row, unpack } from "./lib/arrays.js";
import { copyText } from "./lib/clipboard.js";
import { h, setAttribute, setText } from "./lib/dom.js";
import { createFrame } from "./lib/frame.js";
import { createScheduler } from "./lib/scheduler.js";
import { createKnobs } from "./views/knobs.js";
import { createStage } from "./views/stage.js";
import { readViews } from "./views/state.js";

const LOST = "The kernel was restarted: the knobs have nobody to make views. Run the cell again to connect.";
const PAGE =
  "This page has no Python behind it. Each knob has a few positions whose views were made beforehand, and one knob moves at a time: the others go back.";
const PATIENCE = 3000; // ms until a knob asks again without an answer

function render({ model, el }) {
  const frame = createFrame({ model, el }, { name: "views", label: "Views playground", lost: LOST, onResize: () => plan.request() });
  const { root, body, page, on, tell, say } = frame;
  const states = page ? model.get("states") : null;
  let images = unpack(model.get("images")),
    chosen = states?.start ?? 0,
    draw = 0,
    wanted = null, // knobs that Python has not been told yet
    asked = false, // is an answer awaited?
    timer = 0;

  const positions = states && Object.fromEntries(Object.entries(states.knobs).map(([k, list]) => [k, list.map((e) => e.value)]));
  const knobs = createKnobs({ positions, onChange: page ? showSet : ask });
  const stage = createStage({ onFocus: (i) => (tell("focus", i), plan.request()) });
  const menu = h("select", { "aria-label": "Recipe", on: { change: () => tell("recipe", menu.value) } });
  const luck = h("output", { class: "nnb-luck" });
  const again = h("button", { type: "button", class: "nnb-button", on: { click: newDraw } }, "New draw");
  const back = h("button", { type: "button", class: "nnb-button nnb-quiet", on: { click: reset } }, "Reset knobs");
  const lines = h("code", {});
  const copy = h("button", { type: "button", class: "nnb-button", on: { click: copyCode } }, "Copy");
  const listing = h("div", { class: "nnb-listing", hidden: true }, h("pre", { tabindex: 0, "aria-label": "Python of this recipe" }, lines), copy);
  const show = h("button", { type: "button", class: "nnb-button", "aria-expanded": "false", on: { click: toggleCode } }, "Show the code");
  body.append(
    h(
      "div",
      { class: "nnb-bar" },
      h("label", { class: "nnb-recipe" }, "Recipe", menu),
      again,
      luck,
      h("span", { class: "nnb-gap" }),
      back,
      show,
    ),
    listing,
    h("div", { class: "nnb-split" }, knobs.root, stage.root),
    h("p", { class: "nnb-foot", hidden: !page }, PAGE),
  );
  const plan = createScheduler(paint, root);

  /** Python is asked for one thing at a time; what was moved meanwhile is asked for when it has answered. */
  function ask(key, value) {
    wanted = { ...(wanted ?? {}), [key]: value };
    if (!asked) send();
  }
  function send() {
    const now = model.get("knobs"),
      next = { ...now, ...wanted };
    wanted = null;
    if (JSON.stringify(next) === JSON.stringify(now)) return; // nothing new, so nobody would answer
    asked = true;
    clearTimeout(timer);
    timer = setTimeout(answered, PATIENCE); // refused, or lost
    model.set("knobs", next);
    model.save_changes();
  }
  function answered() {
    asked = false;
    clearTimeout(timer);
    if (wanted) send();
    plan.request();
  }

  function showSet(key, value) {
    knobs.resetOthers(key);
    draw = 0; // every position was made with the first seed
    chosen = states.knobs[key].find((entry) => JSON.stringify(entry.value) === JSON.stringify(value)).set;
    plan.request();
  }
  function newDraw() {
    if (!page) return tell("seed", (model.get("seed") + 1) % 2 ** 31);
    draw = (draw + 1) % states.draws.length;
    chosen = states.draws[draw];
    knobs.resetOthers();
    plan.request();
  }
  function reset() {
    knobs.resetOthers();
    if (page) {
      [chosen, draw] = [states.start, 0];
      return plan.request();
    }
    const start = {};
    for (const group of model.get("panel"))
      for (const step of group.steps) for (const knob of step.knobs) start[knob.key] = knob.start;
    for (const [key, value] of Object.entries(start)) wanted = { ...(wanted ?? {}), [key]: value };
    send();
  }
  function toggleCode() {
    listing.hidden = !listing.hidden;
    setAttribute(show, "aria-expanded", String(!listing.hidden));
    setText(show, listing.hidden ? "Show the code" : "Hide the code");
  }
  async function copyCode() {
    const done = await copyText(model.get("code"), root);
    if (!done) getSelection().selectAllChildren(lines); // no permission: at least it is selected
    setText(copy, done ? "Copied" : "Selected");
    setTimeout(() => setText(copy, "Copy"), 1500);
  }

  function paint() {
    const drawn = states ? states.sets[chosen] : model.get("drawn")?.views;
    if (!drawn || !images) return;
    const seed = states ? states.seeds[draw] : model.get("seed");
    setText(luck, `draw ${seed}`);
    const views = readViews(drawn, states?.banks);
    const focus = Math.min(model.get("focus"), images.shape[0] - 1);
    stage.draw(images, (i) => row(images, i), model.get("labels") ?? [], views, focus);
    setText(lines, model.get("code"));
    Object.assign(root.dataset, { ready: "true", serial: String(states ? chosen : model.get("drawn").serial) });
  }

  function names() {
    menu.replaceChildren(...model.get("recipes").map((name) => h("option", { value: name }, name.replaceAll("_", " "))));
    menu.value = model.get("recipe");
    menu.disabled = page;
  }

  names();
  knobs.update(model.get("panel") ?? []);
  say(model.get("problem") ?? "");
  plan.request();
  on("change:panel", () => knobs.update(model.get("panel")));
  on("change:drawn", answered);
  on("change:problem", () => {
    say(model.get("problem"));
    answered();
  });
  on("change:recipes", names);
  on("change:recipe", () => (menu.value = model.get("recipe")));
  on("change:focus", () => plan.request());
  on("change:code", () => plan.request());
  on("change:images", () => {
    images = unpack(model.get("images"));
    plan.request();
  });
  return () => {
    clearTimeout(timer);
    plan.dispose();
    frame.dispose();
  };
}

export default { render };
