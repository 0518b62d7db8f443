import assert from "node:assert/strict";
import { test } from "node:test";
import { between, fitBox, panBy, scaleBar, toScreen, toWorld, zoomAt } from "../src/embedding/camera.js";
import { agree, agreementAt, classCounts, extent, middles, neighboursOf, pointsAt, readCloud, shuffled } from "../src/embedding/cloud.js";
import { classLook, colouring, paint, range, scaleColour } from "../src/embedding/colours.js";
import { buildGrid, nearestPoint, pointsInside } from "../src/embedding/grid.js";
import { placeLabels } from "../src/embedding/overlay.js";
import { createRaster, pointStyle } from "../src/embedding/raster.js";
import { sparkline } from "../src/embedding/timeline.js";

const packed = (dtype, shape, array) => ({ dtype, shape, data: new DataView(array.buffer) });
const random = (n, seed = 1) => Float32Array.from({ length: n }, () => ((seed = (seed * 16807) % 2147483647) / 2147483647) * 2 - 1);

/** Two moments of four points in two classes, two neighbours each. */
function cloud(more = {}) {
  const traits = {
    points: packed("float32", [2, 4, 2], new Float32Array([0, 0, 1, 0, 0, 1, 1, 1, 2, 2, 3, 2, 2, 3, 3, 3])),
    nearest: packed("int32", [2, 4, 2], new Int32Array([1, 2, 0, 3, 3, 0, 2, 1, 2, 1, 3, 0, 0, 3, 1, 2])),
    labels: packed("int32", [4], new Int32Array([0, 0, 1, 1])),
    classes: ["a", "b"],
    frames: [{}, {}],
    ...more,
  };
  return readCloud((name) => traits[name]);
}

test("points between two pictures lie between", () => {
  const c = cloud(),
    out = new Float32Array(8);
  assert.deepEqual([...pointsAt(c, 0, out)], [0, 0, 1, 0, 0, 1, 1, 1]);
  assert.deepEqual([...pointsAt(c, 0.5, out)], [1, 1, 2, 1, 1, 2, 2, 2]);
  assert.deepEqual([...pointsAt(c, 1, out)], [2, 2, 3, 2, 2, 3, 3, 3]);
  assert.deepEqual([...pointsAt(c, 9, out)], [2, 2, 3, 2, 2, 3, 3, 3]);
});

test("agreement is the share of neighbours with the same label, at each moment", () => {
  const c = cloud();
  assert.deepEqual([...neighboursOf(c, 1, 3)], [1, 2]);
  assert.deepEqual([...agreementAt(c, 0)], [0.5, 0.5, 0.5, 0.5]);
  assert.deepEqual([...agreementAt(c, 1)], [0.5, 0.5, 0.5, 0.5]);
  assert.equal(agreementAt(cloud({ labels: null }), 0), null);
  assert.equal(agreementAt(cloud({ nearest: packed("int32", [2, 4, 0], new Int32Array(0)) }), 0), null);
});

test("a point without a label agrees with nobody", () => {
  const c = cloud({ labels: packed("int32", [4], new Int32Array([-1, 0, 0, -1])) });
  assert.deepEqual([...agreementAt(c, 0)], [NaN, 0, 0, NaN]);
  assert.deepEqual([agree(c, 1, 2), agree(c, 0, 3), agree(c, 0, 1), agree(cloud({ labels: null }), 0, 3)], [true, false, false, true]);
});

test("nothing yet, and nothing known, are clouds too", () => {
  const c = readCloud((name) => ({ rows: packed("int32", [7], new Int32Array(7)) })[name]);
  assert.deepEqual([c.n, c.moments, c.k, c.labels, c.image, c.columns], [7, 0, 0, null, null, []]);
  assert.deepEqual(middles(c, 0), []);
  assert.equal(colouring(c, "label", 0).kind, "plain");
  assert.deepEqual(classCounts(c), [[], 0]);
});

test("middles of classes move with the points; unknown labels count apart", () => {
  assert.deepEqual(middles(cloud(), 0.5), [[2, 1], [2, 2]]);
  const c = cloud({ labels: packed("int32", [4], new Int32Array([-1, 0, 0, -1])) });
  assert.deepEqual(classCounts(c), [[2, 0], 2]);
  assert.deepEqual(classCounts(c, [0, 1]), [[1, 0], 1]);
  assert.equal(middles(c, 0)[1], null);
});

test("the box around points is never empty", () => {
  assert.deepEqual(extent(new Float32Array([1, 2, -3, 5])), [-3, 2, 1, 5]);
  for (const points of [[], [4, 4], [NaN, NaN]]) {
    const [left, low, right, high] = extent(new Float32Array(points));
    assert.ok(right > left && high > low);
  }
});

test("the order of drawing is a permutation, the same each time", () => {
  const order = shuffled(1000);
  assert.deepEqual([...order].sort((a, b) => a - b), Array.from({ length: 1000 }, (_, i) => i));
  assert.deepEqual(order, shuffled(1000));
  assert.ok(order.slice(0, 100).some((i) => i > 500));
});

test("a camera goes there and back, and zooms around the pointer", () => {
  const camera = fitBox([-1, -2, 3, 4], 640, 480, 20);
  for (const [x, y] of [[-1, -2], [3, 4]]) {
    const [px, py] = toScreen(camera, 640, 480, x, y);
    assert.ok(px >= 19.9 && px <= 620.1 && py >= 19.9 && py <= 460.1);
    const back = toWorld(camera, 640, 480, px, py);
    assert.ok(Math.hypot(back[0] - x, back[1] - y) < 1e-9);
  }
  const under = toWorld(camera, 640, 480, 100, 77),
    closer = zoomAt(camera, 3, 100, 77, 640, 480, 0, 1e9),
    still = toScreen(closer, 640, 480, ...under);
  assert.ok(Math.hypot(still[0] - 100, still[1] - 77) < 1e-9 && Math.abs(closer.k - 3 * camera.k) < 1e-9);
  assert.equal(zoomAt(camera, 1e9, 0, 0, 640, 480, 0, 1000).k, 1000);
  const moved = toScreen(panBy(camera, 10, -20), 640, 480, ...under);
  assert.ok(Math.hypot(moved[0] - 110, moved[1] - 57) < 1e-9);
});

test("a glide begins and ends where it should", () => {
  const [a, b] = [{ x: 0, y: 0, k: 10 }, { x: 4, y: -2, k: 160 }];
  for (const [share, wanted] of [[0, a], [1, b]])
    for (const key of ["x", "y", "k"]) assert.ok(Math.abs(between(a, b, share)[key] - wanted[key]) < 1e-9);
  assert.deepEqual(between(a, { ...a, x: 4 }, 0.5), { x: 2, y: 0, k: 10 });
});

test("the ruler has a round length that fits", () => {
  for (const k of [0.003, 0.7, 12, 480, 91234]) {
    const { length, pixels } = scaleBar(k, 96);
    assert.ok(pixels <= 96 && pixels > 30, `${k}: ${pixels}`);
    assert.match(length.toPrecision(1), /^[125]e|^0?\.?0*[125]0*$|^[125]$/);
  }
});

test("the grid finds what a search through everything finds", () => {
  const points = random(4000),
    box = extent(points),
    grid = buildGrid(points, box),
    asked = random(400, 7);
  for (let q = 0; q < 200; q++) {
    const [x, y] = [1.2 * asked[2 * q], 1.2 * asked[2 * q + 1]];
    let best = -1,
      distance = 0.05 ** 2;
    for (let i = 0; i < 2000; i++) {
      const d = (points[2 * i] - x) ** 2 + (points[2 * i + 1] - y) ** 2;
      if (d <= distance && i % 3) [best, distance] = [i, d];
    }
    assert.equal(nearestPoint(grid, x, y, 0.05, (i) => i % 3), best);
  }
  assert.equal(nearestPoint(grid, 50, 50, 0.05), -1);
  assert.equal(nearestPoint(buildGrid(new Float32Array(6), extent(new Float32Array(6))), 0, 0, 1) >= 0, true);
});

test("points inside a line, also one that is bent or crosses itself", () => {
  const points = new Float32Array([0.5, 0.5, 1.5, 0.5, 0.5, 1.5, 1.5, 1.5]);
  assert.deepEqual(pointsInside(points, [[0, 0], [1, 0], [1, 1], [0, 1]]), [0]);
  assert.deepEqual(pointsInside(points, [[0, 0], [2, 0], [2, 2], [1.2, 2], [1.2, 1], [0, 1]]), [0, 1, 3]);
  assert.deepEqual(pointsInside(points, [[0, 0], [2, 0], [2, 2], [0, 2]], (i) => i > 1), [2, 3]);
  const round = Array.from({ length: 60 }, (_, i) => [Math.cos(i / 9.55), Math.sin(i / 9.55)]),
    many = random(2000, 3);
  for (const i of pointsInside(many, round)) assert.ok(Math.hypot(many[2 * i], many[2 * i + 1]) < 1.01);
});

test("stamps colour the pixels they cover and no others", () => {
  const raster = createRaster(20, 10);
  raster.clear([255, 255, 255]);
  raster.brush(0, 2, 0, 1)(10.5, 5.5, 200, 0, 100);
  const at = (x, y) => [...raster.bytes.subarray(4 * (20 * y + x), 4 * (20 * y + x) + 4)];
  assert.deepEqual(at(10, 5), [200, 0, 100, 255]);
  assert.deepEqual(at(14, 5), [255, 255, 255, 255]);
  assert.deepEqual(at(10, 9), [255, 255, 255, 255]);
  let ink = 0;
  for (let i = 0; i < 200; i++) ink += (255 - raster.bytes[4 * i + 1]) / 255;
  assert.ok(Math.abs(ink - Math.PI * 4) < 0.8, `${ink}`);
});

test("stamps at the border stay inside, and outside nothing happens", () => {
  for (const shape of [0, 1, 2, 3, 4]) {
    const raster = createRaster(9, 7);
    raster.clear([10, 20, 30]);
    const brush = raster.brush(shape, 2.4, 1, 0.9);
    for (const [x, y] of [[-50, 3], [4, 900], [NaN, 2], [Infinity, 0]]) brush(x, y, 255, 0, 0);
    assert.ok(raster.bytes.every((v, i) => v === [10, 20, 30, 255][i % 4]));
    for (const [x, y] of [[-1, 3], [9.5, -0.5], [0, 0], [8.9, 6.9]]) brush(x, y, 255, 0, 0);
    assert.ok(raster.bytes[0] > 60);
    for (let i = 3; i < raster.bytes.length; i += 4) assert.equal(raster.bytes[i], 255);
    assert.deepEqual([...raster.bytes.subarray(4 * (9 * 3 + 5), 4 * (9 * 3 + 5) + 3)], [10, 20, 30]);
  }
});

test("a half covering point is half its colour; many points are drawn small", () => {
  const raster = createRaster(9, 9);
  raster.clear([0, 0, 0]);
  raster.brush(3, 3, 0, 0.5)(4.5, 4.5, 200, 100, 0);
  assert.ok(Math.abs(raster.bytes[4 * (9 * 4 + 4)] - 100) <= 1);
  const area = 1000 * 500;
  assert.ok(pointStyle(100, area).r > pointStyle(5000, area).r && pointStyle(5000, area).r > pointStyle(50000, area).r);
  assert.ok(pointStyle(3000, area).r > pointStyle(3000, area / 4).r); // less room, smaller points
  assert.ok(pointStyle(5000, area, 30).r > pointStyle(5000, area).r && pointStyle(50000, area).ring === 0);
});

test("no two of the first thirty classes look the same", () => {
  assert.equal(new Set(Array.from({ length: 30 }, (_, c) => JSON.stringify(classLook(c)))).size, 30);
  assert.deepEqual(classLook(7), { hue: 1, shape: 1 });
});

test("what gives the colour: classes, agreement, numbers; what is missing is grey", () => {
  const columns = { names: ["loss"], data: packed("float32", [1, 4], new Float32Array([1, NaN, 3, 2])) },
    c = cloud({ columns }),
    theme = { series: [[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4], [5, 5, 5], [6, 6, 6]], grey: [9, 9, 9], dark: false };
  assert.deepEqual([...paint(c, colouring(c, "label", 0), theme).place], [1, 1, 2, 2]);
  const scheme = colouring(c, "loss", 0),
    { place, table } = paint(c, scheme, theme);
  assert.deepEqual([scheme.low, scheme.high], [1, 3]);
  assert.equal(place[1], 0);
  assert.deepEqual([...table.subarray(3 * place[2], 3 * place[2] + 3)], scaleColour(1, false));
  assert.equal(colouring(c, "agreement", 1).name, "neighbour agreement");
  assert.deepEqual(range([NaN, NaN]), [0, 1]);
});

test("labels that would lie on each other move apart, or stay away", () => {
  const placed = placeLabels([1, 2, 3, 4, 5, 6, 7].map(() => ({ text: "x", x: 50, y: 100, w: 30 })));
  assert.equal(placed.length, 5);
  assert.equal(new Set(placed.map((p) => p.y)).size, 5);
});

test("the line of a measure keeps to its box and leaves out what is missing", () => {
  const line = sparkline([0.1, NaN, 0.9], 200, 28);
  assert.deepEqual(line.map((p) => p[0]), [0, 200]);
  assert.ok(line[0][1] > line[1][1]);
  assert.deepEqual(sparkline([], 200, 28), []);
});
