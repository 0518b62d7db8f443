// The loss as a figure, the parts it is the sum of as one bar, and the numbers that explain it.
import { h, setText } from "../lib/dom.js";
import { formatNumber } from "../lib/format.js";
import { helpBox } from "../lib/help.js";
import { NUMBERS, PARTS } from "./words.js";

export function createTally() {
  const loss = h("output", { class: "nnb-figure" }),
    own = h("span", { class: "nnb-own-loss" }),
    bar = h("div", { class: "nnb-parts", "aria-hidden": "true" }),
    list = h("dl", { class: "nnb-numbers" });
  const headline = h("div", { class: "nnb-headline" }, h("span", {}, "Loss"), loss, bar, own);
  const root = h("div", { class: "nnb-tally" }, headline, list);
  let kind = "",
    fields = {},
    shares = [];

  function build(next) {
    kind = next;
    fields = {};
    const parts = PARTS[kind] ?? [],
      colour = (key) => `var(--nnb-series-${parts.indexOf(key) + 1})`;
    shares = parts.map((key) => {
      const share = h("i", {});
      share.style.background = colour(key);
      return [key, share];
    });
    bar.hidden = !parts.length;
    bar.replaceChildren(...shares.map(([, share]) => share));
    list.replaceChildren(
      ...Object.entries(NUMBERS[kind]).map(([key, [label, write, help]]) => {
        const chip = parts.includes(key) && h("i", { class: "nnb-chip" }),
          value = h("dd", { data: { number: key } });
        if (chip) chip.style.background = colour(key);
        fields[key] = (x) => setText(value, write(x));
        return h("div", {}, h("dt", {}, chip, label, helpBox(`About ${label}`, help)), value);
      }),
    );
  }

  return {
    root,
    /**
     * @param {string} next kind of the frame
     * @param {Record<string, number>} numbers without the frame's scale
     * @param {number} value the loss as it is shown
     * @param {string} remark what to say about the algorithm's own
     */
    draw(next, numbers, value, remark) {
      if (next !== kind) build(next);
      setText(loss, formatNumber(value, 4));
      setText(own, remark);
      for (const [key, set] of Object.entries(fields)) set(numbers[key]);
      for (const [key, share] of shares) share.style.flexGrow = (100 * Math.max(numbers[key], 0)) / numbers.loss || 0;
    },
  };
}
