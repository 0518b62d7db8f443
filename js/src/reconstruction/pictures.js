// What is made of an image, its mask and its reconstruction, all bytes (H, W, C): masked, pasted in, error, single patches.

const HIDDEN = 127; // grey of a hidden patch

/** Height and width of a patch in px. */
export const patchSize = ([height, width], [rows, columns]) => [height / rows, width / columns];

/** For each pixel of (H, W) whether its patch is hidden. */
export function hiddenPixels(mask, [height, width]) {
  const [rows, columns] = mask.shape,
    out = new Uint8Array(height * width);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) out[y * width + x] = mask.data[Math.floor((y * rows) / height) * columns + Math.floor((x * columns) / width)];
  return out;
}

function chosen(image, hidden, otherwise) {
  const channels = image.shape[2],
    data = image.data.slice();
  for (let i = 0; i < data.length; i++) if (hidden[Math.floor(i / channels)]) data[i] = otherwise(i);
  return { data, shape: image.shape };
}

/** The image with grey in place of what is hidden. */
export const masked = (image, hidden) => chosen(image, hidden, () => HIDDEN);

/** The image with the reconstruction in place of what is hidden. */
export const pasted = (image, painted, hidden) => chosen(image, hidden, (i) => painted.data[i]);

/** Absolute difference, mean of the channels, 0 to 1: {data, shape: (H, W)}. */
export function errorMap(image, painted) {
  const [height, width, channels] = image.shape,
    data = new Float32Array(height * width);
  for (let i = 0; i < image.data.length; i++) data[Math.floor(i / channels)] += Math.abs(image.data[i] - painted.data[i]) / 255 / channels;
  return { data, shape: [height, width] };
}

/** The pixels of one patch as an image. */
export function patchOf(image, grid, [row, column]) {
  const [height, width, channels] = image.shape,
    [p, q] = patchSize(image.shape, grid).map(Math.floor);
  const data = new Uint8Array(p * q * channels);
  for (let y = 0; y < p; y++)
    for (let x = 0; x < q * channels; x++) data[y * q * channels + x] = image.data[((row * p + y) * width + column * q) * channels + x];
  return { data, shape: [Math.min(p, height), q, channels] };
}

/** Mean and spread of each channel of an image, 0 to 1. */
export function channelStats({ data, shape: [height, width, channels] }) {
  const count = height * width;
  return Array.from({ length: channels }, (_, c) => {
    let sum = 0,
      squares = 0;
    for (let i = c; i < data.length; i += channels) {
      sum += data[i] / 255;
      squares += (data[i] / 255) ** 2;
    }
    const mean = sum / count;
    return { mean, spread: Math.sqrt(Math.max(0, squares / count - mean ** 2)) };
  });
}

/** Mean squared difference of two images, in units where white is 1. */
export function squaredError(a, b) {
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) sum += ((a.data[i] - b.data[i]) / 255) ** 2;
  return sum / a.data.length;
}
