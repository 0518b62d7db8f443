// EmbeddingExplorer: images as points; what they are, who their neighbours are, and how all that changes while a network learns.
import { createFrame } from "./lib/frame.js";
import { h, setText } from "./lib/dom.js";
import { formatPlain } from "./lib/format.js";
import { palette } from "./lib/theme.js";
import { createBar, createFacts } from "./embedding/bar.js";
import { createCard } from "./embedding/card.js";
import { neighboursOf, readCloud } from "./embedding/cloud.js";
import { colouring, paint, rgbOf } from "./embedding/colours.js";
import { createLegend } from "./embedding/legend.js";
import { createPlot } from "./embedding/plot.js";
import { createSelection } from "./embedding/selection.js";
import { createTimeline } from "./embedding/timeline.js";

const LOST =
  "The kernel was restarted: the picture still works, but Python does not hear what is selected. Run the cell again to connect.";
const NARROW = 680; // px; below, the legend goes under the picture

function render({ model, el }) {
  const started = performance.now();
  const frame = createFrame({ model, el }, {
    name: "embedding",
    label: "Embedding explorer",
    lost: LOST,
    onTheme: () => ((theme = readTheme()), recolour()),
    onResize: layout,
  });
  const { root, body, tell } = frame;
  let cloud = readCloud((name) => model.get(name)),
    theme = readTheme(),
    scheme = { kind: "plain" },
    moment = -1,
    pinned = -1,
    wanted = 0,
    gone = false;

  function readTheme() {
    const found = palette(root),
      dark = root.dataset.theme === "dark";
    return {
      ...found,
      dark,
      accent: found.series[0],
      rgb: rgbOf(found.background),
      series: found.series.map(rgbOf),
      grey: dark ? [110, 118, 127] : [150, 157, 165],
    };
  }

  const card = createCard(),
    facts = createFacts(),
    empty = h("div", { class: "nnb-empty", role: "status" });
  const plot = createPlot({
    theme: () => theme,
    hover: showCard,
    drawn: putCard,
    pick(i, more) {
      const chosen = model.get("selected") ?? [];
      if (!more) return select([i], i);
      select(chosen.includes(i) ? chosen.filter((j) => j !== i) : [...chosen, i]);
    },
    region: (found, more) => select(more ? [...new Set([...(model.get("selected") ?? []), ...found])] : found),
    clear: () => select([]),
  });
  const bar = createBar({
    tool: (name) => ((plot.root.dataset.tool = name), plot.set({ tool: name })),
    zoom: (factor) => plot.zoom(factor),
    fit: () => plot.fit(),
    colour: (name) => tell("colour", name),
    names: (on) => plot.set({ named: on }),
  });
  const timeline = createTimeline(setTime, (index) => tell("frame", index));
  const legend = createLegend((classes) => tell("isolated", classes));
  const selection = createSelection({
    clear: () => select([]),
    spot: (i) => (plot.set({ spot: i }), showCard(i)),
    pick: (i) => select([i], i),
  });
  plot.root.append(card.root, empty);
  body.append(
    bar.root,
    h("div", { class: "nnb-main" }, plot.root, h("div", { class: "nnb-side" }, legend.root, selection.root)),
    timeline.root,
    facts.root,
    card.spoken,
  );

  function select(points, pin = -1) {
    pinned = pin;
    tell("selected", points);
    showCard(-1);
  }

  /** The card of a point; of the one clicked last when the pointer is elsewhere. */
  function showCard(i) {
    const shown = i >= 0 ? i : pinned;
    root.dataset.hover = String(shown);
    if (shown < 0 || shown >= cloud.n || !cloud.moments) {
      plot.set({ hover: -1 });
      return card.hide();
    }
    plot.set({ hover: shown });
    const value = scheme.kind === "scale" && scheme.name !== "neighbour agreement" ? { text: `${scheme.name} ${formatPlain(scheme.data[shown])}` } : null;
    card.show(cloud, shown, moment, value);
    putCard();
  }
  function putCard() {
    const { hover } = plot.state;
    if (hover < 0 || !plot.state.camera || card.root.hidden) return;
    card.put(plot.place(hover), ...plot.size(), [...neighboursOf(cloud, moment, hover)].map(plot.place));
  }

  function recolour() {
    if (gone) return;
    scheme = colouring(cloud, model.get("colour"), Math.max(moment, 0));
    plot.setLook(paint(cloud, scheme, theme));
    legend.setScheme(scheme, theme.dark);
  }

  function setTime(time) {
    plot.setTime(time);
    const now = Math.min(Math.round(time), Math.max(cloud.moments - 1, 0));
    if (now !== moment) {
      moment = now;
      root.dataset.moment = String(now);
      facts.show(cloud, now, model.get("method"));
      if (model.get("colour") === "agreement") recolour();
      if (plot.state.hover >= 0) showCard(plot.state.hover);
    }
  }

  function showMarks() {
    const selected = model.get("selected") ?? [],
      isolated = model.get("isolated") ?? [];
    if (!(selected.length === 1 && selected[0] === pinned)) pinned = -1;
    plot.setMarks({ selected, isolated });
    legend.setIsolated(isolated);
    legend.setSelected(cloud, selected);
    selection.show(cloud, selected);
    root.dataset.selected = String(selected.length);
    if (pinned < 0) showCard(-1);
  }

  function rebuild() {
    const before = cloud.moments;
    cloud = readCloud((name) => model.get(name));
    moment = -1;
    bar.setCloud(cloud);
    bar.setColour(model.get("colour"));
    legend.setCloud(cloud);
    root.dataset.frames = String(cloud.moments);
    setText(empty, cloud.moments ? "" : "No picture yet: it appears when a training starts that this explorer is a callback of.");
    empty.hidden = cloud.moments > 0;
    plot.set({ ruler: model.get("method") === "pca" });
    scheme = colouring(cloud, model.get("colour"), 0);
    plot.setLook(paint(cloud, scheme, theme));
    plot.setCloud(cloud);
    timeline.setFrames(cloud.frames, model.get("frame") ?? -1, before < 1);
    setTime(timeline.time);
    recolour();
    showMarks();
  }
  // several traits change together: one rebuild
  const later = () => (wanted ||= requestAnimationFrame(() => ((wanted = 0), gone || rebuild())));

  function layout(width = root.clientWidth) {
    if (!width) return;
    root.classList.toggle("nnb-narrow", width < NARROW);
    const tall = model.get("height") || 520;
    plot.resize(width < NARROW ? Math.max(260, Math.min(tall, Math.round(width * 0.9))) : tall);
  }

  bar.choose("move");
  layout();
  rebuild();
  layout();
  for (const name of ["points", "nearest", "frames", "labels", "classes", "sprite", "columns", "rows", "method"]) frame.on(`change:${name}`, later);
  frame.on("change:selected", showMarks);
  frame.on("change:isolated", showMarks);
  frame.on("change:colour", () => (bar.setColour(model.get("colour")), recolour()));
  // with new pictures the rebuild will turn to it
  frame.on("change:frame", () => wanted || model.get("frames") !== cloud.frames || timeline.setFrame(model.get("frame")));
  frame.on("change:height", () => layout());
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      root.dataset.paint = (performance.now() - started).toFixed(1);
      root.dataset.ready = "true";
    }),
  );
  return () => {
    gone = true;
    plot.dispose();
    timeline.dispose();
    frame.dispose();
  };
}

export default { render };
