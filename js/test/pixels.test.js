import assert from "node:assert/strict";
import { test } from "node:test";
import { row, rowLength, unpack } from "../src/lib/arrays.js";
import { colourMap } from "../src/lib/pixels.js";

const packed = (dtype, shape, array, offset = 0) => {
  const bytes = new Uint8Array(array.byteLength + offset);
  bytes.set(new Uint8Array(array.buffer), offset);
  return { dtype, shape, data: new DataView(bytes.buffer, offset, array.byteLength) };
};

test("arrays come out as they were packed, wherever their bytes begin", () => {
  for (const offset of [0, 1, 4]) {
    const { data, shape } = unpack(packed("float32", [2, 2], new Float32Array([1, 2.5, -3, 4]), offset));
    assert.deepEqual([...data], [1, 2.5, -3, 4]);
    assert.deepEqual(shape, [2, 2]);
  }
  assert.deepEqual([...unpack(packed("int32", [2], new Int32Array([7, -8]))).data], [7, -8]);
  const bytes = new Uint8Array([9, 1, 2, 3]).subarray(1); // as Colab gives buffers
  assert.deepEqual([...unpack({ dtype: "uint8", shape: [3], data: bytes }).data], [1, 2, 3]);
});

test("nothing, or an unknown kind of number, is null", () => {
  for (const value of [null, undefined, {}, { dtype: "float64", shape: [0], data: new DataView(new ArrayBuffer(0)) }])
    assert.equal(unpack(value), null);
});

test("an entry of the first axis is a view on the same numbers", () => {
  const array = unpack(packed("uint8", [2, 1, 3], new Uint8Array([1, 2, 3, 4, 5, 6])));
  assert.equal(rowLength(array.shape), 3);
  assert.deepEqual([...row(array, 1).data], [4, 5, 6]);
  assert.deepEqual(row(array, 1).shape, [1, 3]);
  assert.equal(row(array, 1).data.buffer, array.data.buffer);
});

test("colour maps have 256 colours between their ends", () => {
  assert.deepEqual([...colourMap("grey").slice(0, 3), ...colourMap("grey").slice(765)], [0, 0, 0, 255, 255, 255]);
  const signed = colourMap("signed");
  const middle = [...signed.slice(3 * 127, 3 * 129)];
  assert.ok(middle.every((value) => value > 240)); // zero is white
  const lightness = (map, i) => 0.2126 * map[3 * i] + 0.7152 * map[3 * i + 1] + 0.0722 * map[3 * i + 2];
  for (let i = 1; i < 256; i++) assert.ok(lightness(colourMap("viridis"), i) >= lightness(colourMap("viridis"), i - 1) - 0.6);
});
