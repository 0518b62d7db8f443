// Pointing and zooming in a chart, by mouse, finger and keys; what is found is told to the view, which all panels follow.
const DRAG = 5; // px before a press becomes a selection

/**
 * @param {HTMLElement} frame
 * @param {object} panel
 * @param {() => ReturnType<import("./chart.js").chartOf>|null} panel.chart
 * @param {ReturnType<import("./view.js").createView>} panel.view
 * @param {import("./panels.js").PanelSpec} panel.spec
 * @param {HTMLElement} panel.band shows the selection
 * @param {(px: number, py: number) => string|null} panel.nearest the run whose curve is nearest
 */
export function createPointer(frame, { chart, view, spec, band, nearest }) {
  let pressed = null, // px where the button went down
    byKeys = false; // the crosshair was put there by keys and stays when the mouse goes
  const place = (event) => {
    const { x } = chart();
    const px = event.clientX - frame.getBoundingClientRect().left;
    return Math.min(Math.max(px, x.from), x.to);
  };
  const showBand = (from, to) => {
    const { box } = chart();
    band.style.opacity = "1";
    band.style.transform = `translate(${Math.min(from, to)}px, ${box.top}px)`;
    band.style.width = `${Math.abs(to - from)}px`;
    band.style.height = `${box.height}px`;
  };
  const endBand = () => {
    pressed = null;
    band.style.opacity = "0";
  };

  function down(event) {
    if (!chart() || event.button !== 0) return;
    pressed = place(event);
    frame.setPointerCapture?.(event.pointerId);
  }
  function move(event) {
    if (!chart()) return;
    byKeys = false;
    const px = place(event);
    if (pressed != null && Math.abs(px - pressed) >= DRAG) showBand(pressed, px);
    view.point(chart().x.back(px), spec.id, nearest(px, event.clientY - frame.getBoundingClientRect().top));
  }
  function up(event) {
    if (pressed == null || !chart()) return endBand();
    const px = place(event),
      ends = [pressed, px].sort((a, b) => a - b).map(chart().x.back);
    const dragged = Math.abs(px - pressed) >= DRAG;
    endBand();
    if (dragged) view.zoom(ends);
  }
  const leave = () => pressed == null && !byKeys && view.point(null, spec.id);

  /** The next place in a direction: a point of the curve, or so many points that it is seen to move. */
  function next(direction, far) {
    const { x } = chart();
    const shown = view.shown();
    const run = shown.find((one) => one.current && one.store.get(spec.metric).n) ?? shown.find((one) => one.store.get(spec.metric).n);
    if (!run) return null;
    const series = run.store.get(spec.metric),
      index = (value) => series.nearestIndex(run.map.toStep(value));
    const inside = Math.max(1, index(x.high) - index(x.low));
    const stride = Math.max(1, Math.round(inside / 100)) * (far ? 10 : 1);
    const from = view.cursor ?? (direction > 0 ? x.low : x.high);
    const i = Math.min(Math.max(index(from) + direction * stride, index(x.low)), index(x.high));
    return run.map.toX(series.steps[Math.min(Math.max(i, 0), series.n - 1)]);
  }
  function nextEvent(direction) {
    const from = view.cursor ?? (direction > 0 ? -Infinity : Infinity);
    const ahead = chart().marks.map(({ value }) => value).filter((value) => direction * (value - from) > 1e-9);
    return ahead.length ? (direction > 0 ? Math.min(...ahead) : Math.max(...ahead)) : null;
  }
  function zoomBy(factor) {
    const { x } = chart(),
      centre = x.at(view.cursor ?? x.back((x.from + x.to) / 2));
    const ends = [x.from, x.to].map((px) => x.back(centre + (px - centre) * factor));
    const [low, high] = factor > 1 ? view.whole() : [-Infinity, Infinity];
    const range = [Math.max(ends[0], low), Math.min(ends[1], high)];
    view.zoom(factor > 1 && range[0] <= low && range[1] >= high ? null : range);
  }

  function key(event) {
    if (!chart() || event.ctrlKey || event.metaKey || event.altKey) return;
    const { x } = chart();
    const to = {
      ArrowLeft: () => next(-1, event.shiftKey),
      ArrowRight: () => next(1, event.shiftKey),
      Home: () => x.low,
      End: () => x.high,
      PageUp: () => nextEvent(-1),
      PageDown: () => nextEvent(1),
    }[event.key];
    if (to) {
      const place = to();
      byKeys = true;
      if (place != null) view.point(place, spec.id);
    } else if (event.key === "+" || event.key === "=") zoomBy(0.5);
    else if (event.key === "-") zoomBy(2);
    else if (event.key === "Escape" || event.key === "0") {
      endBand();
      if (view.range) view.zoom(null);
      else view.point(null, spec.id);
    } else return;
    event.preventDefault();
  }

  const listeners = {
    pointerdown: down,
    pointermove: move,
    pointerup: up,
    pointercancel: endBand,
    pointerleave: leave,
    dblclick: () => view.zoom(null),
    keydown: key,
    blur: () => view.point(null, spec.id),
  };
  for (const [name, f] of Object.entries(listeners)) frame.addEventListener(name, f);
  return {
    dispose() {
      for (const [name, f] of Object.entries(listeners)) frame.removeEventListener(name, f);
    },
  };
}
