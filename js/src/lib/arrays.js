// Arrays of numbers as Python packs them (pack_array in pixels.py): their kind, their shape and their bytes.

const KINDS = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };

/**
 * @param {{dtype: "uint8"|"int32"|"float32", shape: number[], data: DataView|ArrayBufferView}} packed
 * @returns {{data: Uint8Array|Int32Array|Float32Array, shape: number[]}|null} null while there is nothing
 */
export function unpack(packed) {
  if (!packed?.data || !KINDS[packed.dtype]) return null;
  const { buffer, byteOffset, byteLength } = packed.data;
  const Kind = KINDS[packed.dtype];
  const aligned = byteOffset % Kind.BYTES_PER_ELEMENT === 0;
  const data = aligned
    ? new Kind(buffer, byteOffset, byteLength / Kind.BYTES_PER_ELEMENT)
    : new Kind(buffer.slice(byteOffset, byteOffset + byteLength));
  return { data, shape: packed.shape };
}

/** How many numbers one entry of the first axis has. */
export const rowLength = (shape) => shape.slice(1).reduce((product, n) => product * n, 1);

/** The i-th entry along the first axis, as a view. */
export function row({ data, shape }, i) {
  const length = rowLength(shape);
  return { data: data.subarray(i * length, (i + 1) * length), shape: shape.slice(1) };
}
