// The selected points: how many, and their images.
import { h, setText } from "../lib/dom.js";
import { dotted, formatCount } from "../lib/format.js";
import { labelOf, numberOf, thumbnail } from "./card.js";

const MOST_IMAGES = 60;

/** @param {{clear: () => void, spot: (i: number) => void, pick: (i: number) => void}} hooks */
export function createSelection({ clear, spot, pick }) {
  const title = h("span", { "aria-live": "polite" }),
    reset = h("button", { type: "button", class: "nnb-link", title: "Esc", on: { click: clear } }, "Clear"),
    strip = h("div", { class: "nnb-strip" }),
    hint = h("p", { class: "nnb-quiet nnb-hint" });
  let shown = "",
    sprite = null;
  const root = h("section", { class: "nnb-selection" }, h("div", { class: "nnb-side-head" }, title, reset), hint, strip);

  return {
    root,
    show(cloud, selected) {
      const any = selected.length > 0;
      setText(title, any ? `${formatCount(selected.length)} selected` : "Selection");
      setText(hint, any ? "" : "Point at an image to see it with its nearest neighbours. Draw around points, with Shift or with the lasso, to select them.");
      hint.hidden = any;
      reset.hidden = !any;
      strip.hidden = !any;
      const images = cloud.image ? selected.slice(0, MOST_IMAGES).map((i) => [i, dotted([labelOf(cloud, i), numberOf(cloud, i)])]) : [],
        now = JSON.stringify([images, selected.length]);
      if (now === shown && cloud.sprite === sprite) return; // focus and scroll stay
      [shown, sprite] = [now, cloud.sprite];
      strip.replaceChildren(
        ...images.map(([i, name]) =>
          h(
            "button",
            {
              type: "button",
              class: "nnb-thumb",
              "aria-label": name,
              on: {
                pointerenter: () => spot(i),
                pointerleave: () => spot(-1),
                focus: () => spot(i),
                blur: () => spot(-1),
                click: () => pick(i),
              },
            },
            thumbnail(cloud, i, 32, ""),
          ),
        ),
        ...(images.length && selected.length > MOST_IMAGES ? [h("span", { class: "nnb-quiet" }, `and ${formatCount(selected.length - MOST_IMAGES)} more`)] : []),
      );
    },
  };
}
