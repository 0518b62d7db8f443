// What every widget stands in: a themed root that keeps its keys to itself, and one place for what went wrong.
import { h, setAttribute, setText } from "./dom.js";
import { hostName, watchKernel } from "./host.js";
import { watchTheme } from "./theme.js";

/**
 * @param {{model: any, el: Element}} place what anywidget gave to `render`
 * @param {object} options
 * @param {string} options.name class of the root: "diagram" gives nnb-diagram
 * @param {string} options.label what a screen reader says
 * @param {string} options.lost what to say when the kernel was restarted
 * @param {() => void} [options.onTheme] after a change between light and dark
 * @param {(width: number) => void} [options.onResize] after a change of the width, in a frame of its own
 * @returns {{root: HTMLElement, body: HTMLElement, page: boolean, say: (text: string, tone?: "warn"|"bad") => void,
 *   on: (event: string, f: Function) => void, tell: (name: string, value: any) => void, dispose: () => void}}
 */
export function createFrame({ model, el }, { name, label, lost, onTheme = () => {}, onResize }) {
  const page = hostName(model) === "page";
  const notice = h("div", { class: "nnb-notice", role: "alert" });
  const body = h("div", { class: "nnb-body" });
  const root = h(
    "div",
    {
      class: `nnb-root nnb-${name}`,
      role: "region",
      "aria-label": label,
      "data-lm-suppress-shortcuts": "true",
      on: { keydown: (event) => event.stopPropagation() },
    },
    notice,
    body,
  );
  el.append(root);
  let trouble = "",
    gone = ""; // what the widget says, and that the kernel is lost: neither hides the other
  const write = () => setText(notice, [trouble, gone].filter(Boolean).join("\n"));
  const listeners = [];
  let disposed = false;
  const stops = [watchTheme(root, onTheme), page ? () => {} : watchKernel(model, () => ((gone = lost), write()))];
  if (onResize) {
    const observer = new ResizeObserver(() => requestAnimationFrame(() => disposed || onResize(root.clientWidth)));
    observer.observe(root);
    stops.push(() => observer.disconnect());
  }
  return {
    root,
    body,
    page,
    /** Shows one line of trouble above everything; "" when it is over. */
    say(text, tone = "warn") {
      trouble = text;
      setAttribute(notice, "data-tone", text ? tone : null);
      write();
    },
    /** Listens to the model until the widget goes. */
    on(event, f) {
      listeners.push([event, f]);
      model.on(event, f);
    },
    /** Sets a trait, and tells the kernel if it is new. */
    tell(trait, value) {
      if (JSON.stringify(model.get(trait)) === JSON.stringify(value)) return;
      model.set(trait, value);
      model.save_changes();
    },
    dispose() {
      disposed = true;
      for (const [event, f] of listeners) model.off(event, f);
      for (const stop of stops) stop();
      root.remove();
    },
  };
}
