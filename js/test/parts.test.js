// Parts of widgets, made and used on as little of a page as they need.
import assert from "node:assert/strict";
import { test } from "node:test";
import "./fixtures/dom.js";
import { RunStore } from "../src/lib/series.js";
import { createBar } from "../src/embedding/bar.js";
import { createCard } from "../src/embedding/card.js";
import { readCloud } from "../src/embedding/cloud.js";
import { createLegend } from "../src/embedding/legend.js";
import { createSelection } from "../src/embedding/selection.js";
import { createGrid } from "../src/live_curves/grid.js";
import { createRate } from "../src/live_curves/rate.js";
import { createRuns } from "../src/live_curves/runs.js";
import { createView } from "../src/live_curves/view.js";
import { createMatrix } from "../src/loss_lab/matrix.js";
import { createReadout } from "../src/loss_lab/readout.js";
import { createStage } from "../src/reconstruction/stage.js";
import { createKnobs } from "../src/views/knobs.js";

test("a factor on the learning rate beyond the slider is told as it is", () => {
  const sent = [],
    rate = createRate({ send: (value) => sent.push(value) }),
    [slider] = rate.root.all("input"),
    [factor] = rate.root.all("output");
  for (const [scale, text] of [[0.01, "×0.01"], [20, "×20"], [0, "×0"], [1, "×1"]]) {
    rate.set(scale);
    assert.equal(factor.textContent, text);
  }
  rate.set(20);
  slider.value = 0.5;
  slider.fire("input");
  slider.fire("change");
  assert.equal(factor.textContent, "×3.2");
  assert.deepEqual(sent, [3.16]);
  rate.dispose();
});

test("metrics beyond those that are drawn are named", () => {
  const store = new RunStore();
  store.append(Array.from({ length: 20 }, (_, i) => [`m${i}`, { steps: [0], values: [i] }]));
  const runs = createRuns(store),
    view = createView({ on() {}, tell() {} }, { get: () => undefined }, runs, () => {}),
    grid = createGrid({ runs, view, colours: () => ({}) });
  grid.draw();
  assert.match(grid.root.textContent, /7 more metrics are not drawn: m13, m14, m15, m16, m17, m18, m19/);
});

const packed = (dtype, shape, array) => ({ dtype, shape, data: new DataView(array.buffer) });
const SPRITE = packed("uint8", [3, 1, 1, 1], new Uint8Array(3));
/** Three points, of which the last has no label; each has the other two as neighbours. */
function cloud(labels = [0, 0, -1], classes = ["sun"]) {
  const traits = {
    points: packed("float32", [1, 3, 2], new Float32Array(6)),
    nearest: packed("int32", [1, 3, 2], Int32Array.of(1, 2, 0, 2, 0, 1)),
    labels: packed("int32", [3], Int32Array.from(labels)),
    classes,
    sprite: SPRITE,
  };
  return readCloud((name) => traits[name]);
}

test("a new picture leaves menus, classes and chosen images alone; new ones come", () => {
  const bar = createBar({}),
    legend = createLegend(() => {}),
    selection = createSelection({});
  const show = (now, selected = [0, 1]) => {
    bar.setCloud(now);
    legend.setCloud(now);
    legend.setSelected(now, []);
    selection.show(now, selected);
    return [bar, legend, selection].map(({ root }) => root.all("option")[0] ?? root.all("button").at(-1));
  };
  const first = show(cloud());
  assert.deepEqual(show(cloud()).map((node, i) => node === first[i]), [true, true, true]);
  assert.match(legend.root.textContent, /sun2.*no label1/);
  const other = show(cloud([0, 1, 1], ["sun", "moon"]), [1]);
  assert.deepEqual(other.map((node, i) => node === first[i]), [true, false, false]); // the same colours to choose from
  assert.match(legend.root.textContent, /sun1.*moon2$/);
});

test("the card of a point is made anew for a new run, and says nothing of the agreement of what has no label", () => {
  const card = createCard();
  card.show(cloud(), 0, 0, null);
  assert.match(card.root.textContent, /sunimage 01 of 2 neighbours agree/);
  card.show(cloud([0, -1, 0]), 2, 0, null);
  assert.match(card.root.textContent, /image 21 of 2/);
  card.show(cloud([-1, -1, -1]), 2, 0, null);
  assert.equal(card.root.textContent, "image 2");
});

test("an arrow key at the border of a matrix keeps the cell", () => {
  const told = [],
    matrix = createMatrix((cell, pinned) => told.push([cell, pinned])),
    [canvas] = matrix.root.all("canvas"),
    key = (name) => canvas.fire("keydown", { key: name });
  const order = [0, 1];
  matrix.draw({ title: "", rows: 2, columns: 2, data: [0, 1, 2, 3], low: 0, high: 3, map: "viridis", rowOrder: order, columnOrder: order, rowName: "", columnName: "" });
  matrix.point([1, 1]);
  key("ArrowRight");
  key("ArrowDown");
  assert.deepEqual(told, []);
  key("ArrowUp");
  assert.deepEqual(told, [[[0, 1], true]]);
});

test("a cell that is kept is read out, one that a pointer passes is not", () => {
  const readout = createReadout(),
    picture = { unit: "", rowName: "image", columnName: "image" },
    [text] = readout.root.all("span");
  const live = (passing) => {
    readout.draw([0, 1], { values: [[picture, 0.5]], picture, images: null, classes: [], names: [], passing });
    return text.getAttribute("aria-live");
  };
  assert.deepEqual([live(true), live(false)], ["off", "polite"]);
});

test("a picture without a mask has no patches to choose", () => {
  const told = [],
    stage = createStage({ onPatch: (patch) => told.push(patch) }),
    picture = stage.root.firstChild;
  const use = () => {
    picture.fire("pointerdown", { clientX: 80, clientY: 80 });
    picture.fire("keydown", { key: "ArrowLeft" });
    return told.splice(0);
  };
  picture.clientWidth = 100;
  stage.setPatch([], null);
  assert.deepEqual(use(), []);
  assert.equal(picture.getAttribute("aria-label"), "The picture");
  stage.setPatch([1, 1], [2, 2]);
  assert.deepEqual(use(), [[1, 1], [1, 0]]);
  stage.setPatch([], null);
  assert.deepEqual(use(), []);
});

test("knobs go back to where the recipe has them; on a page to where its views were made", () => {
  const knob = { key: "hue", kind: "number", label: "Hue", low: 0, high: 1, step: 0.1, value: 0.3, start: 0.1, choices: [] },
    panel = [{ views: [0, 1], steps: [{ name: "ColorJitter", knobs: [knob] }] }];
  const after = (positions) => {
    const knobs = createKnobs({ positions, onChange() {} });
    knobs.update(panel);
    knobs.resetOthers();
    return knobs.root.all("output")[0].textContent;
  };
  assert.deepEqual([after(null), after({ hue: [0, 0.3, 1] })], ["0.1", "0.3"]);
});
