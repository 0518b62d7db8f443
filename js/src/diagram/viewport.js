// Zoom and pan of a picture inside a frame: pointer, wheel (only with Ctrl or ⌘, or after a click into it), fingers, keys.

const MOST = 3,
  LEAST = 0.04; // scale

/**
 * @param {HTMLElement} frame what one looks through
 * @param {HTMLElement} layer what is moved
 * @param {{onMove?: () => void}} [hooks]
 */
export function createViewport(frame, layer, { onMove = () => {} } = {}) {
  let x = 0,
    y = 0,
    k = 1,
    size = { w: 1, h: 1 },
    moved = false,
    inUse = false;
  // asking the page makes it lay itself out, so the answer is kept until the frame changes
  let known = null;
  const room = () => (known ??= { w: frame.clientWidth, h: frame.clientHeight });

  /** A part of the picture always stays in sight. */
  function apply() {
    const { w, h } = room(),
      keep = 60;
    x = Math.min(w - keep, Math.max(keep - size.w * k, x));
    y = Math.min(h - keep, Math.max(keep - size.h * k, y));
    layer.style.transform = `translate(${Math.round(x * 2) / 2}px, ${Math.round(y * 2) / 2}px) scale(${k})`;
    onMove();
  }

  function zoom(factor, cx = room().w / 2, cy = room().h / 2) {
    const next = Math.min(MOST, Math.max(LEAST, k * factor));
    x = cx - ((cx - x) * next) / k;
    y = cy - ((cy - y) * next) / k;
    k = next;
    moved = true;
    apply();
  }

  /** Everything in sight, never larger than life; `least` keeps text readable and shows the top instead. */
  function fit(least = LEAST) {
    const { w, h } = room();
    if (!w || !h) return;
    k = Math.min(1, w / size.w, h / size.h);
    const whole = k >= least;
    if (!whole) k = Math.max(LEAST, Math.min(1, Math.max(least, Math.min(1, w / size.w))));
    x = (w - size.w * k) / 2;
    y = whole ? (h - size.h * k) / 2 : 0;
    if (size.w * k > w) x = (w - size.w * k) / 2;
    moved = false;
    apply();
  }

  /** Moves as little as possible so that the box is in sight. */
  function reveal(box, margin = 28) {
    const { w, h } = room();
    const [left, top, right, bottom] = [box.x * k + x, box.y * k + y, (box.x + box.w) * k + x, (box.y + box.h) * k + y];
    if (right - left > w - 2 * margin) x += w / 2 - (left + right) / 2;
    else if (left < margin) x += margin - left;
    else if (right > w - margin) x -= right - (w - margin);
    if (bottom - top > h - 2 * margin) y += margin - top;
    else if (top < margin) y += margin - top;
    else if (bottom > h - margin) y -= bottom - (h - margin);
    apply();
  }

  const pointers = new Map();
  let drag = null,
    dragged = false;
  const at = (event) => {
    const box = frame.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const down = (event) => {
    if (event.button || event.target.closest(".nnb-minimap")) return;
    inUse = true;
    pointers.set(event.pointerId, at(event));
    dragged = false;
    drag = { from: at(event), x, y };
  };
  const move = (event) => {
    if (!pointers.has(event.pointerId)) return;
    if (!event.buttons) return up(event); // it was let go outside
    const before = pointers.get(event.pointerId),
      now = at(event);
    pointers.set(event.pointerId, now);
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
      const factor = Math.hypot(now.x - other.x, now.y - other.y) / (Math.hypot(before.x - other.x, before.y - other.y) || 1);
      zoom(factor, (now.x + other.x) / 2, (now.y + other.y) / 2);
      dragged = true;
      return;
    }
    if (!drag) return;
    if (!dragged && Math.hypot(now.x - drag.from.x, now.y - drag.from.y) > 4) {
      dragged = moved = true;
      frame.setPointerCapture?.(event.pointerId);
      frame.dataset.dragging = "true";
    }
    if (!dragged) return;
    x = drag.x + now.x - drag.from.x;
    y = drag.y + now.y - drag.from.y;
    apply();
  };
  const up = (event) => {
    pointers.delete(event.pointerId);
    drag = null;
    delete frame.dataset.dragging;
  };
  // the click that ends a drag is no click
  const click = (event) => {
    if (!dragged) return;
    dragged = false;
    event.stopPropagation();
    event.preventDefault();
  };
  const wheel = (event) => {
    const modified = event.ctrlKey || event.metaKey;
    if (!modified && !(inUse && frame.contains(frame.getRootNode().activeElement))) return;
    const unit = event.deltaMode === 1 ? 16 : 1;
    if (modified) {
      event.preventDefault();
      const p = at(event);
      return zoom(Math.exp((-event.deltaY * unit) / 300), p.x, p.y);
    }
    const [ox, oy] = [x, y];
    x -= (event.shiftKey ? event.deltaY : event.deltaX) * unit;
    y -= (event.shiftKey ? 0 : event.deltaY) * unit;
    const { w, h } = room();
    // at an end of the picture the page scrolls on
    x = Math.min(Math.max(ox, 24), Math.max(Math.min(ox, w - 24 - size.w * k), x));
    y = Math.min(Math.max(oy, 24), Math.max(Math.min(oy, h - 24 - size.h * k), y));
    if (x === ox && y === oy) return;
    event.preventDefault();
    moved = true;
    apply();
  };
  const leave = (event) => {
    if (!frame.contains(event.relatedTarget)) inUse = false;
  };
  const focus = () => (inUse = true);
  const listeners = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: up, focusin: focus, focusout: leave };
  for (const [name, f] of Object.entries(listeners)) frame.addEventListener(name, f);
  frame.addEventListener("click", click, true);
  frame.addEventListener("wheel", wheel, { passive: false });

  return {
    get view() {
      return { x, y, k, ...room() };
    },
    get moved() {
      return moved;
    },
    /** The frame may have another size now. */
    measure() {
      known = null;
      return room();
    },
    setSize(w, h) {
      size = { w, h };
    },
    moveTo(nx, ny, nk = k) {
      [x, y, k] = [nx, ny, nk];
      moved = true;
      apply();
    },
    /** Keeps a point of the picture where it is on the screen while the picture changes. */
    shift(dx, dy) {
      x += dx * k;
      y += dy * k;
      apply();
    },
    zoom,
    fit,
    reveal,
    apply,
  };
}
