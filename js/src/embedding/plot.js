// The picture itself: points, and what pointer and keys do with them.
import { h } from "../lib/dom.js";
import { createScheduler } from "../lib/scheduler.js";
import { between, fitBox, panBy, toScreen, toWorld, zoomAt } from "./camera.js";
import { extent, pointsAt, shuffled } from "./cloud.js";
import { buildGrid, nearestPoint, pointsInside } from "./grid.js";
import { drawOverlay } from "./overlay.js";
import { createRaster, pointStyle } from "./raster.js";

const REACH = 14, // px around the pointer in which a point is found
  MOVE = 48; // px that an arrow key moves

/**
 * @param {object} hooks theme() colours in force; hover(i), pick(i, more), region(points, more), clear() tell what was done, drawn() that the picture is new
 */
export function createPlot(hooks) {
  const ground = h("canvas", { class: "nnb-points", "aria-hidden": "true" }),
    above = h("canvas", { class: "nnb-above", "aria-hidden": "true" });
  const root = h(
    "div",
    {
      class: "nnb-plot",
      tabindex: "0",
      role: "application",
      "aria-label": "Points. Arrow keys move the picture, plus and minus zoom, 0 shows all, Enter looks at the point in the middle, Escape clears.",
    },
    ground,
    above,
  );
  const ctx = ground.getContext("2d", { alpha: false }),
    over = above.getContext("2d");
  const state = { cloud: null, time: 0, camera: null, home: 1, hover: -1, spot: -1, tool: "move", named: true, ruler: true };
  let [w, height, dpr] = [0, 0, 1];
  let raster, look, points, order, grid, image;
  let isolated = new Set(),
    selected = new Set(),
    dim = null,
    moved = false,
    glide = null,
    drag = null,
    inUse = false;

  const motion = () => !globalThis.matchMedia?.("(prefers-reduced-motion: reduce)").matches;
  const scheduler = createScheduler(draw, root);
  const request = () => scheduler.request();
  const visible = (i) => !isolated.size || !state.cloud.labels || isolated.has(state.cloud.labels[i]);

  function draw() {
    const { cloud, camera } = state;
    if (!cloud || !w || !height || !raster) return;
    const started = performance.now(),
      theme = hooks.theme();
    raster.clear(theme.rgb);
    if (cloud.moments && camera) {
      const style = pointStyle(cloud.n, w * height, camera.k / state.home);
      state.radius = style.r;
      if (dim) stamp({ ...style, r: style.r * 0.85, ring: 0, opacity: 0.22 }, (i) => dim[i], theme.grey);
      stamp(style, dim ? (i) => !dim[i] : null, null);
    }
    ctx.putImageData(image, 0, 0);
    over.setTransform(dpr, 0, 0, dpr, 0, 0);
    if (cloud.moments && camera)
      drawOverlay(over, { ...state, w, h: height, points, theme, isolated, moment: Math.round(state.time), drag: drag?.line });
    else over.clearRect(0, 0, w, height);
    hooks.drawn();
    root.dataset.draw = (performance.now() - started).toFixed(1);
  }

  /** Stamps all points that `which` lets through, in their own colours or in one. */
  function stamp({ r, ring, opacity }, which, one) {
    const { camera, cloud } = state,
      k = camera.k * dpr,
      ox = (w * dpr) / 2 - camera.x * k,
      oy = (height * dpr) / 2 + camera.y * k,
      { place, shape, table } = look,
      brushes = [0, 1, 2, 3, 4].map((s) => raster.brush(s, r * dpr, ring * dpr, opacity));
    for (let at = 0; at < cloud.n; at++) {
      const i = order[at];
      if (which && !which(i)) continue;
      const c = 3 * place[i],
        x = ox + points[2 * i] * k,
        y = oy - points[2 * i + 1] * k;
      if (one) brushes[shape[i]](x, y, one[0], one[1], one[2]);
      else brushes[shape[i]](x, y, table[c], table[c + 1], table[c + 2]);
    }
  }

  function dimming() {
    const { cloud } = state;
    dim = null;
    if (!selected.size && !isolated.size) return request();
    dim = new Uint8Array(cloud.n);
    for (let i = 0; i < cloud.n; i++) dim[i] = (selected.size && !selected.has(i)) || !visible(i) ? 1 : 0;
    request();
  }

  /** Everything of all moments (or of this one) in sight. */
  function fit(all = false, smooth = true) {
    const { cloud } = state;
    if (!cloud?.moments || !w) return;
    const target = fitBox(extent(all ? cloud.points : points), w, height, 36);
    if (all) state.home = target.k;
    moved = !all;
    goTo(target, smooth);
  }

  function goTo(target, smooth) {
    if (glide) cancelAnimationFrame(glide);
    glide = null;
    const from = state.camera;
    if (!from || !smooth || !motion()) {
      state.camera = target;
      return request();
    }
    const began = performance.now();
    const step = (now) => {
      const share = Math.max(0, Math.min(1, (now - began) / 260)),
        eased = share * share * (3 - 2 * share);
      state.camera = between(from, target, eased);
      glide = share < 1 ? requestAnimationFrame(step) : null;
      request();
    };
    glide = requestAnimationFrame(step);
  }

  function setCamera(camera) {
    if (glide) cancelAnimationFrame(glide);
    glide = null;
    state.camera = camera;
    moved = true;
    request();
  }
  const zoom = (factor, x = w / 2, y = height / 2) =>
    state.camera && setCamera(zoomAt(state.camera, factor, x, y, w, height, state.home / 8, state.home * 4000));

  const find = (x, y, reach = REACH) => {
    if (!state.camera || !state.cloud.moments) return -1;
    grid ??= buildGrid(points, extent(points));
    return nearestPoint(grid, ...toWorld(state.camera, w, height, x, y), reach / state.camera.k, visible);
  };
  function setHover(i) {
    if (i === state.hover) return;
    state.hover = i;
    hooks.hover(i);
    request();
  }

  // --- pointer
  const at = (event) => {
    const box = root.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const fingers = new Map();
  const world = (p) => toWorld(state.camera, w, height, ...p);
  const handlers = {
    pointerdown(event) {
      if (event.button || !state.camera || event.target.closest("button")) return;
      inUse = true;
      const p = at(event);
      fingers.set(event.pointerId, p);
      root.setPointerCapture?.(event.pointerId);
      const kind = state.tool === "move" ? (event.shiftKey ? "lasso" : "move") : state.tool;
      drag = { kind, from: p, last: p, more: event.shiftKey, far: false, line: null };
    },
    pointermove(event) {
      const p = at(event);
      if (fingers.size === 2 && fingers.has(event.pointerId)) return pinch(event.pointerId, p);
      if (fingers.has(event.pointerId)) fingers.set(event.pointerId, p);
      if (!drag) return setHover(find(...p));
      drag.far ||= Math.hypot(p[0] - drag.from[0], p[1] - drag.from[1]) > 4;
      if (!drag.far) return;
      setHover(-1);
      root.dataset.dragging = drag.kind;
      if (drag.kind === "move") setCamera(panBy(state.camera, p[0] - drag.last[0], p[1] - drag.last[1]));
      else if (drag.kind === "lasso") (drag.line ??= [world(drag.from)]).push(world(p));
      else {
        const [a, b] = [drag.from, p];
        drag.line = [a, [b[0], a[1]], b, [a[0], b[1]]].map(world);
      }
      drag.last = p;
      request();
    },
    pointerup(event) {
      fingers.delete(event.pointerId);
      const done = drag;
      drag = null;
      delete root.dataset.dragging;
      if (!done) return;
      request();
      if (done.far) {
        if (done.line?.length > 2) hooks.region(pointsInside(points, done.line, visible), done.more);
        return;
      }
      const i = find(...at(event));
      if (i >= 0) hooks.pick(i, event.shiftKey || event.ctrlKey || event.metaKey);
      else hooks.clear();
    },
    pointercancel(event) {
      fingers.delete(event.pointerId);
      drag = null;
      delete root.dataset.dragging;
      request();
    },
    pointerleave: () => drag || setHover(-1),
    focusout(event) {
      if (!root.contains(event.relatedTarget)) inUse = false;
    },
    dblclick: (event) => event.target.closest("button") || zoom(2, ...at(event)),
    keydown,
  };
  function pinch(id, p) {
    const [other] = [...fingers].filter(([key]) => key !== id).map(([, q]) => q),
      before = fingers.get(id),
      spread = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
    fingers.set(id, p);
    drag = null;
    zoom(spread(p, other) / spread(before, other), (p[0] + other[0]) / 2, (p[1] + other[1]) / 2);
  }
  function keydown(event) {
    if (event.target !== root || event.ctrlKey || event.metaKey || event.altKey) return;
    const way = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (way && state.camera) setCamera(panBy(state.camera, MOVE * way[0], MOVE * way[1]));
    else if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "0") fit();
    else if (event.key === "Escape") hooks.clear();
    else if (event.key === "Enter") {
      const i = find(w / 2, height / 2, Math.max(w, height));
      if (i >= 0) hooks.pick(i, event.shiftKey);
    } else return;
    event.preventDefault();
  }
  for (const [name, f] of Object.entries(handlers)) root.addEventListener(name, f);
  root.addEventListener(
    "wheel",
    (event) => {
      // the page scrolls until somebody asks for the picture: by Ctrl or ⌘, or by a click into it
      if (!(event.ctrlKey || event.metaKey || (inUse && root.contains(root.getRootNode().activeElement)))) return;
      event.preventDefault();
      zoom(Math.exp((-event.deltaY * (event.deltaMode === 1 ? 16 : 1)) / 300), ...at(event));
    },
    { passive: false },
  );

  return {
    root,
    state,
    request,
    fit,
    zoom,
    /** New numbers; the view stays if somebody has moved it. */
    setCloud(cloud) {
      const other = !state.cloud || state.cloud.n !== cloud.n;
      state.cloud = cloud;
      if (other) {
        order = shuffled(cloud.n);
        points = new Float32Array(2 * cloud.n);
        selected = new Set([...selected].filter((i) => i < cloud.n));
      }
      this.setTime(Math.min(state.time, Math.max(cloud.moments - 1, 0)));
      if (!moved || !state.camera) fit(true, !!state.camera);
      else state.home = fitBox(extent(cloud.points), w, height, 36).k;
      dimming();
    },
    setTime(time) {
      state.time = time;
      if (state.cloud.moments) pointsAt(state.cloud, time, points);
      grid = null;
      request();
    },
    setLook(next) {
      look = next;
      request();
    },
    setMarks(marks) {
      selected = new Set(marks.selected);
      isolated = new Set(marks.isolated);
      dimming();
    },
    set(changes) {
      Object.assign(state, changes);
      request();
    },
    /** Where a point is, in CSS pixels of the picture. */
    place: (i) => toScreen(state.camera, w, height, points[2 * i], points[2 * i + 1]),
    size: () => [w, height],
    resize(tall) {
      const wide = root.clientWidth,
        ratio = Math.min(2, globalThis.devicePixelRatio || 1);
      root.style.height = `${tall}px`;
      if (!wide || (wide === w && tall === height && ratio === dpr)) return;
      [w, height, dpr] = [wide, tall, ratio];
      for (const canvas of [ground, above]) {
        canvas.width = Math.round(w * dpr);
        canvas.height = Math.round(height * dpr);
      }
      raster = createRaster(ground.width, ground.height);
      image = new ImageData(raster.bytes, ground.width, ground.height);
      if (!moved) fit(true, false);
      request();
    },
    dispose: () => (scheduler.dispose(), glide && cancelAnimationFrame(glide)),
  };
}
