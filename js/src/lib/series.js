// What has been measured so far: columns of (step, value), as they arrive from the kernel in pieces.

/**
 * Bytes of a message buffer, wherever they start: DataView in JupyterLab, Uint8Array in Colab, ArrayBuffer on a page.
 * @returns {Uint8Array}
 */
export function bytesOf(buffer) {
  return buffer instanceof ArrayBuffer
    ? new Uint8Array(buffer)
    : new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

/**
 * Unpacks columns: first every axis (float64 steps), then every column's values (float32), all little-endian.
 * @param {{axes: number[], columns: [string, number, number?][]}} layout lengths of the axes; name and axis of each column,
 *   and how many rows it had where it was thinned out
 * @returns {Map<string, {steps: Float64Array, values: Float32Array, total?: number}>}
 */
export function unpackColumns(layout, buffer) {
  const bytes = bytesOf(buffer ?? new ArrayBuffer(0));
  const values = layout.columns.reduce((sum, [, axis]) => sum + layout.axes[axis], 0);
  const length = 8 * layout.axes.reduce((sum, n) => sum + n, 0) + 4 * values;
  if (bytes.byteLength !== length) throw new RangeError(`columns need ${length} bytes, got ${bytes.byteLength}`);
  const own = bytes.slice().buffer; // aligned
  let offset = 0;
  const axes = layout.axes.map((n) => {
    const steps = new Float64Array(own, offset, n);
    offset += 8 * n;
    return steps;
  });
  return new Map(
    layout.columns.map(([name, axis, total]) => {
      const column = { steps: axes[axis], values: new Float32Array(own, offset, layout.axes[axis]), total };
      offset += 4 * layout.axes[axis];
      return [name, column];
    }),
  );
}

/** Unpacks a stored run: length of the header (uint32), JSON header padded to 8 bytes, columns. */
export function unpackSnapshot(buffer) {
  const bytes = bytesOf(buffer);
  if (bytes.byteLength < 4) return null;
  const length = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return { header, columns: unpackColumns(header.layout, bytes.subarray(4 + length)) };
}

/**
 * Keeps the lowest and the highest finite point of every four, in order, so that peaks stay visible.
 * @returns {number} how many points are left; the arrays are changed in place
 */
export function thin(steps, values, n) {
  let kept = 0;
  for (let start = 0; start < n; start += 4) {
    const end = Math.min(start + 4, n);
    let low = start,
      high = start;
    for (let i = start + 1; i < end; i++) {
      if (!Number.isFinite(values[i])) continue;
      if (!Number.isFinite(values[low]) || values[i] < values[low]) low = i;
      if (!Number.isFinite(values[high]) || values[i] > values[high]) high = i;
    }
    for (const i of low < high ? [low, high] : low > high ? [high, low] : [low]) {
      steps[kept] = steps[i];
      values[kept++] = values[i];
    }
  }
  return kept;
}

/** One metric: steps that only rise, and their values, in arrays that grow up to `limit` points. */
export class Series {
  constructor(limit = 131072) {
    this.limit = limit;
    this.clear();
  }

  clear() {
    this.n = 0;
    this.received = 0; // points accepted, also those thinned out since
    this.measured = 0; // the same, with those thinned out before they came
    this.odd = 0; // of those received: no finite numbers
    this.nonPositive = 0; // finite, and not above 0
    this.low = Infinity;
    this.high = -Infinity;
    this.generation = (this.generation ?? 0) + 1; // changes when points are moved
    this._steps = new Float64Array(256);
    this._values = new Float32Array(256);
  }

  get steps() {
    return this._steps.subarray(0, this.n);
  }
  get values() {
    return this._values.subarray(0, this.n);
  }
  get lastStep() {
    return this.n ? this._steps[this.n - 1] : -Infinity;
  }
  get last() {
    return this.n ? this._values[this.n - 1] : NaN;
  }

  /** Steps from one point to the next when it was measured, on average. */
  get spacing() {
    return this.measured > 1 ? (this.lastStep - this._steps[0]) / (this.measured - 1) || 1 : 1;
  }

  /** Appends rows; a row that would go back in steps is dropped, since a curve cannot show it. */
  push(steps, values, total = steps.length) {
    this.measured += total - steps.length;
    for (let i = 0; i < steps.length; i++) {
      if (!(steps[i] >= this.lastStep)) continue;
      if (this.n === this._steps.length) this._makeRoom();
      const value = values[i];
      this._steps[this.n] = steps[i];
      this._values[this.n++] = value;
      this.received++;
      this.measured++;
      if (!Number.isFinite(value)) this.odd++;
      else if (value <= 0) this.nonPositive++;
      if (value < this.low) this.low = value;
      if (value > this.high) this.high = value;
    }
  }

  /** Doubles the arrays; at the limit, thins out the older three quarters instead. */
  _makeRoom() {
    if (2 * this.n <= this.limit) {
      const steps = new Float64Array(2 * this.n),
        values = new Float32Array(2 * this.n);
      steps.set(this._steps);
      values.set(this._values);
      [this._steps, this._values] = [steps, values];
      return;
    }
    const old = 4 * Math.floor((3 * this.n) / 16);
    const kept = thin(this._steps, this._values, old);
    this._steps.copyWithin(kept, old, this.n);
    this._values.copyWithin(kept, old, this.n);
    this.n -= old - kept;
    this.generation++;
  }

  /** Index of the last point at or before `step`, or -1. */
  indexAt(step) {
    let low = 0,
      high = this.n;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this._steps[middle] <= step) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Index of the point nearest to `step`, or -1. */
  nearestIndex(step) {
    const i = this.indexAt(step);
    if (i < 0) return this.n ? 0 : -1;
    return i + 1 < this.n && this._steps[i + 1] - step < step - this._steps[i] ? i + 1 : i;
  }

  /** The value at the point nearest to `step`. */
  nearest(step) {
    const i = this.nearestIndex(step);
    return i < 0 ? NaN : this._values[i];
  }
}

/**
 * Everything one run has told us. Messages are numbered; a number that is missing means that a message was lost.
 * A `full` message holds everything up to its own number.
 */
export class RunStore {
  constructor(run = "") {
    this.reset(run);
  }

  reset(run) {
    this.run = run;
    this.next = 0; // number of the message that should come next
    this.incomplete = false; // a message was lost and the whole history has not come since
    /** @type {Map<string, Series>} */
    this.series = new Map();
    /** @type {{step: number, kind: string, text: string}[]} */
    this.events = [];
    this.version = (this.version ?? 0) + 1;
  }

  get(name) {
    return this.series.get(name) ?? EMPTY;
  }

  /** The furthest step of any metric. */
  get lastStep() {
    let last = 0;
    for (const series of this.series.values()) if (series.n && series.lastStep > last) last = series.lastStep;
    return last;
  }

  /** Points received over all metrics. */
  get points() {
    let sum = 0;
    for (const series of this.series.values()) sum += series.received;
    return sum;
  }

  /** Whether some rows have been left out since they were measured. */
  get thinned() {
    return [...this.series.values()].some((series) => series.measured > series.n);
  }

  append(columns, events = []) {
    for (const [name, { steps, values, total }] of columns) {
      if (!this.series.has(name)) this.series.set(name, new Series());
      this.series.get(name).push(steps, values, total);
    }
    for (const event of events)
      if (!this.events.some((e) => e.step === event.step && e.kind === event.kind && e.text === event.text))
        this.events.push(event);
    this.version++;
  }

  /**
   * Takes in one message.
   * @returns {boolean} true if rows are missing, from this message or an earlier one: ask for the whole history
   */
  receive({ run, seq, full = false }, columns, events = []) {
    if (run !== this.run) this.reset(run);
    else if (full) {
      this.series.clear();
      this.events = [];
    } else if (seq < this.next) return false; // already part of a full message
    this.incomplete = !full && (this.incomplete || seq > this.next);
    this.append(columns, events);
    this.next = seq + 1;
    return this.incomplete;
  }
}

const EMPTY = new Series(0);

/**
 * Seconds until the last step, from the pace of the most recent points, or NaN when that cannot be said yet.
 * @param {Series} time seconds since the start, by step
 */
export function secondsLeft(time, totalSteps, window = 30) {
  if (time.n < 2 || !totalSteps) return NaN;
  const end = time.n - 1;
  let start = end - 1;
  while (start > 0 && time._values[end] - time._values[start] < window) start--;
  const pace = (time._values[end] - time._values[start]) / (time._steps[end] - time._steps[start]);
  return pace >= 0 ? pace * Math.max(totalSteps - time._steps[end], 0) : NaN;
}
