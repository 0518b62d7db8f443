// What colours and shapes mean, and how many of each class there are, or are selected; a click on a class shows it alone.
import { h, setAttribute, setText } from "../lib/dom.js";
import { formatCount, formatPlain } from "../lib/format.js";
import { classCounts } from "./cloud.js";
import { marker, scaleColour } from "./colours.js";

/** @param {(classes: number[]) => void} isolate */
export function createLegend(isolate) {
  const title = h("span", {}, "Classes"),
    all = h("button", { type: "button", class: "nnb-link", hidden: true, on: { click: () => isolate([]) } }, "Show all"),
    list = h("div", { class: "nnb-classes", role: "group", "aria-label": "Classes: press one to show it alone" }),
    scale = h("div", { class: "nnb-scale", hidden: true });
  const root = h("section", { class: "nnb-legend" }, h("div", { class: "nnb-side-head" }, title, all), list, scale);
  let buttons = [],
    rows = [],
    totals = [],
    alone = [],
    listed = "";

  function click(event, c) {
    const more = event.shiftKey || event.ctrlKey || event.metaKey,
      has = alone.includes(c);
    if (more) isolate(has ? alone.filter((x) => x !== c) : [...alone, c]);
    else isolate(has && alone.length === 1 ? [] : [c]);
  }

  return {
    root,
    setCloud(cloud) {
      const [counts, unknown] = classCounts(cloud);
      totals = [...counts, unknown];
      const now = JSON.stringify(cloud.labels && [cloud.classes, unknown > 0]);
      if (now === listed) return; // focus and scroll stay
      listed = now;
      buttons = cloud.labels
        ? cloud.classes.map((name, c) =>
            h(
              "button",
              { type: "button", class: "nnb-class", "aria-pressed": "false", title: name, on: { click: (e) => click(e, c) } },
              marker(c),
              h("span", { class: "nnb-class-name" }, name),
              h("span", { class: "nnb-class-count" }),
            ),
          )
        : [];
      const rest = h("div", { class: "nnb-class" }, marker(-1), h("span", { class: "nnb-class-name" }, "no label"), h("span", { class: "nnb-class-count" }));
      rows = unknown && cloud.labels ? [...buttons, rest] : buttons;
      list.replaceChildren(...rows);
      root.hidden = !buttons.length && scale.hidden;
      title.hidden = !buttons.length;
    },
    /** How many of each class are selected, in place of how many there are, and as a bar. */
    setSelected(cloud, selected) {
      const [counts, unknown] = classCounts(cloud, selected),
        found = [...counts, unknown],
        most = Math.max(...found, 1);
      rows.forEach((row, c) => {
        const count = row.lastChild,
          any = selected.length > 0;
        setText(count, formatCount((any ? found : totals)[c]));
        setAttribute(count, "title", any && `${formatCount(found[c])} of ${formatCount(totals[c])} are selected`);
        count.toggleAttribute("data-selected", any);
        row.style.setProperty("--share", any ? found[c] / most : 0);
      });
    },
    setIsolated(classes) {
      alone = classes;
      all.hidden = !classes.length;
      buttons.forEach((button, c) => {
        setAttribute(button, "aria-pressed", String(classes.includes(c)));
        button.toggleAttribute("data-faded", classes.length > 0 && !classes.includes(c));
      });
    },
    setScheme(scheme, dark) {
      scale.hidden = scheme.kind !== "scale";
      root.toggleAttribute("data-plain", scheme.kind !== "class");
      root.hidden = !buttons.length && scale.hidden;
      if (scale.hidden) return;
      const stops = Array.from({ length: 9 }, (_, i) => `rgb(${scaleColour(i / 8, dark).join(" ")})`),
        bar = h("div", { class: "nnb-scale-bar" });
      bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
      const name = h("div", { class: "nnb-scale-name" });
      setText(name, scheme.name);
      scale.replaceChildren(name, bar, h("div", { class: "nnb-scale-ends" }, h("span", {}, formatPlain(scheme.low)), h("span", {}, formatPlain(scheme.high))));
    },
  };
}
