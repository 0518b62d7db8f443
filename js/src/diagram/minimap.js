// The whole picture in a corner, while only a part of it is in sight.
import { h } from "../lib/dom.js";

const WIDTH = 132,
  HEIGHT = 96;

/** @param {ReturnType<import("./viewport.js").createViewport>} viewport */
export function createMinimap(viewport, colours) {
  const canvas = h("canvas", { class: "nnb-minimap", "aria-hidden": "true", title: "Drag to move" });
  let scene = null,
    still = null,
    scale = 1;
  const ratio = () => Math.min(2, globalThis.devicePixelRatio || 1);

  function remember(next) {
    scene = next;
    still = null;
  }

  /** The parts, drawn once per scene. */
  function paint() {
    const area = { w: WIDTH - 8, h: HEIGHT - 8 };
    scale = Math.min(area.w / scene.width, area.h / scene.height);
    const [w, h_] = [Math.ceil(scene.width * scale) + 8, Math.ceil(scene.height * scale) + 8];
    const q = ratio();
    still = Object.assign(document.createElement("canvas"), { width: w * q, height: h_ * q });
    Object.assign(canvas, { width: w * q, height: h_ * q });
    Object.assign(canvas.style, { width: `${w}px`, height: `${h_}px` });
    const ctx = still.getContext("2d"),
      tone = tones;
    ctx.scale(q, q);
    ctx.translate(4, 4);
    for (const item of scene.items) {
      const box = [item.x * scale, item.y * scale, Math.max(1, item.w * scale), Math.max(1, item.h * scale)];
      ctx.fillStyle = item.open ? tone.frame : tone.part;
      ctx.globalAlpha = item.open ? 0.25 : 0.75;
      ctx.fillRect(...box);
    }
  }

  let pending = 0,
    tones = null;
  /** Once per frame, however often the picture moves. */
  function update() {
    pending ||= requestAnimationFrame(() => {
      pending = 0;
      show();
    });
  }

  function show() {
    if (!scene) return;
    tones ??= colours();
    const { x, y, k, w, h: height } = viewport.view;
    const hidden = scene.width * k <= w + 2 && scene.height * k <= height + 2;
    canvas.hidden = hidden || w < 300;
    if (canvas.hidden) return;
    if (!still) paint();
    const ctx = canvas.getContext("2d"),
      q = ratio();
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, canvas.width, canvas.height);
    ctx.drawImage(still, 0, 0);
    ctx.setTransform(q, 0, 0, q, 4 * q, 4 * q);
    ctx.strokeStyle = tones.accent;
    ctx.lineWidth = 1.5;
    const left = Math.max(0, -x / k) * scale,
      top = Math.max(0, -y / k) * scale;
    const right = Math.min(scene.width, (w - x) / k) * scale,
      bottom = Math.min(scene.height, (height - y) / k) * scale;
    ctx.strokeRect(left, top, Math.max(2, right - left), Math.max(2, bottom - top));
  }

  const go = (event) => {
    if (!event.buttons) return;
    event.preventDefault();
    event.stopPropagation();
    const box = canvas.getBoundingClientRect(),
      { k, w, h: height } = viewport.view;
    const [px, py] = [(event.clientX - box.left - 4) / scale, (event.clientY - box.top - 4) / scale];
    viewport.moveTo(w / 2 - px * k, height / 2 - py * k);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture?.(event.pointerId);
    go(event);
  });
  canvas.addEventListener("pointermove", go);
  canvas.addEventListener("click", (event) => event.stopPropagation());
  return { canvas, remember, update, repaint: () => ((still = tones = null), update()) };
}
