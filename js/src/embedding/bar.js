// The row of tools above the picture, and the row of numbers below it.
import { h, s, setAttribute, setText } from "../lib/dom.js";
import { formatCount, formatPercent } from "../lib/format.js";
import { helpBox } from "../lib/help.js";

// lines on a 16 x 16 grid
const ICONS = {
  move: "M8 1.5v13M1.5 8h13M6 3.5l2-2 2 2M6 12.5l2 2 2-2M3.5 6l-2 2 2 2M12.5 6l2 2-2 2",
  box: "M2 5V2h3M7 2h2M11 2h3v3M14 7v2M14 11v3h-3M9 14H7M5 14H2v-3M2 9V7",
  lasso: "M5.2 10.4C3.1 9.7 1.8 8.3 1.8 6.6 1.8 4 4.6 2 8 2s6.2 2 6.2 4.6S11.4 11.2 8 11.2c-.8 0-1.5-.1-2.2-.3M5.6 9.2a1.3 1.3 0 1 0 .1 0M5.6 11.8c.2 1-.4 2-1.8 2.4",
};

function tool(name) {
  const path = s("path", { d: ICONS[name], fill: "none", stroke: "currentColor", "stroke-width": 1.3, "stroke-linecap": "round", "stroke-linejoin": "round" });
  return s("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", class: "nnb-icon" }, path);
}

/**
 * @param {{tool: (name: string) => void, zoom: (factor: number) => void, fit: () => void, colour: (name: string) => void,
 *   names: (on: boolean) => void}} hooks
 */
export function createBar(hooks) {
  const tools = [
    ["move", "Move: drag the picture; with Shift, draw around points"],
    ["box", "Box: drag a box around points; with Shift, add them"],
    ["lasso", "Lasso: draw around points; with Shift, add them"],
  ].map(([name, title]) =>
    h("button", { type: "button", title, "aria-label": title, "aria-pressed": "false", data: { tool: name }, on: { click: () => choose(name) } }, tool(name)),
  );
  const plain = (text, title, f) => h("button", { type: "button", title, "aria-label": title, on: { click: f } }, text),
    select = h("select", { "aria-label": "Colour of the points", on: { change: () => hooks.colour(select.value) } }),
    field = h("label", { class: "nnb-colour" }, h("span", {}, "Colour"), select),
    check = h("input", { type: "checkbox", checked: true, on: { change: () => hooks.names(check.checked) } }),
    names = h("label", { class: "nnb-names" }, check, "Names");
  const root = h(
    "div",
    { class: "nnb-bar" },
    h("div", { class: "nnb-segments", role: "group", "aria-label": "What dragging does" }, ...tools),
    h(
      "div",
      { class: "nnb-segments", role: "group", "aria-label": "Zoom" },
      plain("−", "Zoom out (−)", () => hooks.zoom(1 / 1.4)),
      plain("+", "Zoom in (+)", () => hooks.zoom(1.4)),
      plain("Fit", "Fit the points shown now (0)", () => hooks.fit()),
    ),
    h("span", { class: "nnb-space" }),
    names,
    field,
  );
  let offered = "";
  function choose(name) {
    tools.forEach((button) => setAttribute(button, "aria-pressed", String(button.dataset.tool === name)));
    hooks.tool(name);
  }
  return {
    root,
    choose,
    setCloud(cloud) {
      const options = [["label", "class"], ...(cloud.k && cloud.labels ? [["agreement", "neighbour agreement"]] : []), ...cloud.columns.map((c) => [c.name, c.name])];
      if (!cloud.labels) options[0][1] = "one colour";
      const now = JSON.stringify(options);
      if (now === offered) return; // an open menu stays open
      offered = now;
      select.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
      field.hidden = options.length < 2;
      names.hidden = !cloud.labels;
    },
    setColour: (name) => (select.value = name),
  };
}

const FACTS = [
  ["explained", "variance shown", formatPercent, "The share of all variance of the features that this plane shows. The rest is hidden: points on top of each other may be far apart in truth."],
  ["agreement", "agreement", (x) => x.toFixed(2), "Of the nearest neighbours in the full space, the share that has the same label, averaged over all points. 1 is perfect."],
  ["spread", "spread", (x) => x.toFixed(2), "How widely the features spread on the unit sphere: about 1 is healthy, 0 means that all images have got the same features (collapse)."],
];

/** The numbers of the picture shown. */
export function createFacts() {
  const count = h("span", { class: "nnb-fact" }),
    cells = FACTS.map(([key, name, format, text]) => {
      const value = h("b", {});
      return { key, format, value, root: h("span", { class: "nnb-fact", data: { fact: key } }, value, ` ${name} `, helpBox(`About ${name}`, text)) };
    }),
    method = h("span", { class: "nnb-fact" });
  const root = h("div", { class: "nnb-facts" }, method, count, ...cells.map((c) => c.root));
  return {
    root,
    show(cloud, moment, name) {
      const frame = cloud.frames[moment] ?? {};
      count.replaceChildren(h("b", {}, formatCount(cloud.n)), " images");
      setText(method, name.toUpperCase());
      for (const cell of cells) {
        cell.root.hidden = !Number.isFinite(frame[cell.key]);
        if (!cell.root.hidden) setText(cell.value, cell.format(frame[cell.key]));
      }
    },
  };
}
