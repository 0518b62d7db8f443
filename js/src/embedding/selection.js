// The selected points: how many, of which classes, and their images.
import { h, setText } from "../lib/dom.js";
import { dotted, formatCount, formatPercent } from "../lib/format.js";
import { labelOf, numberOf, thumbnail } from "./card.js";
import { classCounts } from "./cloud.js";
import { marker } from "./colours.js";

const MOST_IMAGES = 60,
  MOST_CLASSES = 6;

/** @param {{clear: () => void, spot: (i: number) => void, pick: (i: number) => void}} hooks */
export function createSelection({ clear, spot, pick }) {
  const title = h("span", { "aria-live": "polite" }),
    reset = h("button", { type: "button", class: "nnb-link", title: "Esc", on: { click: clear } }, "Clear"),
    mix = h("div", { class: "nnb-mix" }),
    strip = h("div", { class: "nnb-strip" }),
    hint = h("p", { class: "nnb-quiet nnb-hint" });
  const root = h("section", { class: "nnb-selection" }, h("div", { class: "nnb-side-head" }, title, reset), hint, mix, strip);

  return {
    root,
    show(cloud, selected) {
      const any = selected.length > 0;
      setText(title, any ? `${formatCount(selected.length)} selected` : "Selection");
      setText(hint, any ? "" : "Point at an image to see it with its nearest neighbours. Draw around points, with Shift or with the lasso, to select them.");
      hint.hidden = any;
      reset.hidden = !any;
      mix.hidden = strip.hidden = !any;
      const [counts, unknown] = classCounts(cloud, selected);
      const found = [...counts.map((n, c) => [n, c]), [unknown, -1]].filter(([n]) => n && any).sort((a, b) => b[0] - a[0]);
      const rest = found.slice(MOST_CLASSES).reduce((sum, [n]) => sum + n, 0);
      mix.replaceChildren(
        ...found.slice(0, MOST_CLASSES).map(([n, c]) => {
          const bar = h("i", { "data-hue": c < 0 ? -1 : c % 6 });
          bar.style.width = `${(100 * n) / selected.length}%`;
          return h(
            "div",
            { class: "nnb-mix-row" },
            marker(c),
            h("span", { class: "nnb-class-name" }, c < 0 ? "no label" : cloud.classes[c]),
            h("span", { class: "nnb-mix-bar" }, bar),
            h("span", { class: "nnb-class-count", title: formatPercent(n / selected.length) }, formatCount(n)),
          );
        }),
        ...(rest ? [h("div", { class: "nnb-quiet" }, `${formatCount(rest)} of ${found.length - MOST_CLASSES} other classes`)] : []),
      );
      if (!cloud.image) return strip.replaceChildren();
      strip.replaceChildren(
        ...selected.slice(0, MOST_IMAGES).map((i) =>
          h(
            "button",
            {
              type: "button",
              class: "nnb-thumb",
              "aria-label": dotted([labelOf(cloud, i), numberOf(cloud, i)]),
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
        ...(selected.length > MOST_IMAGES ? [h("span", { class: "nnb-quiet" }, `and ${formatCount(selected.length - MOST_IMAGES)} more`)] : []),
      );
    },
  };
}
