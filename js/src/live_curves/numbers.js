// The numbers of the moment, large, of the run that is followed; and a sentence of them for screen readers.
import { h, setAttribute, setText } from "../lib/dom.js";
import { dotted, formatCount, formatNumber, formatPercent } from "../lib/format.js";
import { spreadTone, spreadWord } from "./panels.js";

const SPEAK_EVERY = 5000; // ms between announcements

/** One big number with a small unit. */
function readOut(title) {
  const value = h("span", {}, "–"),
    unit = h("small", {});
  return {
    root: h("div", { class: "nnb-out" }, h("div", { class: "nnb-out-name" }, title), h("div", { class: "nnb-out-value" }, value, unit)),
    set(text, small = "", tone = null) {
      setAttribute(unit, "data-tone", tone);
      setText(value, text);
      setText(unit, small && text !== "–" ? ` ${small}` : "");
    },
  };
}

export function createNumbers() {
  const outs = {
    loss: readOut("Loss"),
    knn: readOut("k-NN accuracy"),
    pace: readOut("Throughput"),
    std: readOut("Embedding spread"),
  };
  const speech = h("div", { class: "nnb-hidden", "aria-live": "polite" });
  let spoke = -Infinity;
  return {
    root: h("div", { class: "nnb-outs" }, ...Object.values(outs).map((out) => out.root)),
    speech,
    /** @param {import("../lib/series.js").RunStore} store */
    draw(store) {
      const get = (metric) => store.get(metric).last;
      outs.loss.set(formatNumber(get("loss")));
      outs.knn.set(formatPercent(get("knn")));
      outs.pace.set(formatCount(get("images_per_s")), "images/s");
      outs.std.set(formatNumber(get("std")), spreadWord(get("std")), spreadTone(get("std")));
    },
    /** At most every few seconds, and only what is new. */
    speak(label, progress, loss) {
      if (performance.now() - spoke < SPEAK_EVERY) return;
      const text = dotted([label, progress, Number.isFinite(loss) && `loss ${formatNumber(loss)}`]);
      if (text === speech.textContent) return;
      spoke = performance.now();
      setText(speech, text);
    },
  };
}
