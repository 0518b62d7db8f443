// Numbers as people read them. Every function answers "–" for a value that is missing.

const MISSING = "–";
const missing = (x) => typeof x !== "number" || Number.isNaN(x);

/** Three significant digits, powers of ten only for the very small and very large: 0.412, 1,204, 3.1e-5. */
export function formatNumber(x, digits = 3) {
  if (missing(x)) return MISSING;
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 1e6)
    return x
      .toExponential(Math.max(digits - 1, 0))
      .replace("e+", "e")
      .replaceAll("-", "−");
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return minus(x.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
}

/** Three significant digits without trailing zeros: 0.01, 1.5e−5. */
export function formatPlain(x) {
  return missing(x)
    ? MISSING
    : formatNumber(x)
        .replace(/(\.\d*?)0+(e|$)/, "$1$2")
        .replace(/\.(e|$)/, "$1");
}

/** Whole numbers with thousands separators: 12,345. */
export function formatCount(x) {
  return missing(x) ? MISSING : minus(Math.round(x).toLocaleString("en"));
}

/** A fraction of one as a percentage: 0.712 is 71.2 %. */
export function formatPercent(x) {
  return missing(x) ? MISSING : `${(100 * x).toFixed(Math.abs(x) >= 0.9995 ? 0 : 1)} %`;
}

/** Memory given in MiB: 512 MiB, 5.2 GiB. */
export function formatMiB(x) {
  if (missing(x)) return MISSING;
  return x < 1000 ? `${Math.round(x)} MiB` : `${(x / 1024).toFixed(1)} GiB`;
}

/** Seconds as 48 s, 3 min 20 s, 2 h 05 min. */
export function formatDuration(seconds) {
  if (missing(seconds) || !Number.isFinite(seconds)) return MISSING;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

/** A factor: ×0.5, ×1, ×2.5. */
export function formatFactor(x) {
  return missing(x) ? MISSING : `×${x >= 9.95 ? x.toFixed(0) : Number(x.toPrecision(2))}`;
}

/** Labels of an axis, all in one unit and with the fewest decimals that say each tick exactly. */
export function formatTicks(ticks) {
  const size = Math.max(...ticks.map(Math.abs), 0),
    [unit, sign] = size >= 1e6 ? [1e6, "M"] : size >= 1e5 ? [1e3, "k"] : [1, ""],
    power = size > 0 && (size < 1e-2 || size >= 1e9);
  const exact = (digits) => ticks.every((x) => Math.abs((power ? x.toExponential(digits) : (x / unit).toFixed(digits) * unit) - x) < 1e-9 * size);
  const digits = [0, 1, 2, 3, 4, 5].find(exact) ?? 6;
  return ticks.map((x) => {
    if (x === 0 && (power || sign)) return "0";
    if (power) return x.toExponential(digits).replace("e+", "e").replaceAll("-", "−");
    return minus((x / unit).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })) + sign;
  });
}

/** Thousands and millions: 950, 12k, 1.5M. */
export function formatShort(x) {
  if (missing(x)) return MISSING;
  const [scale, unit] = Math.abs(x) >= 1e6 ? [1e6, "M"] : Math.abs(x) >= 1e4 ? [1e3, "k"] : [1, ""];
  return minus(`${Number((x / scale).toPrecision(3)).toLocaleString("en")}${unit}`);
}

/** Parts that are there, with dots between. */
export const dotted = (parts) => parts.filter(Boolean).join(" · ");

const minus = (text) => text.replace(/^-/, "−");
