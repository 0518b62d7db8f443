// StageExplorer: the stages of a network as boxes and a table, and what is in them for real images.
import { createFrame } from "./lib/frame.js";
import { h, setAttribute, setText } from "./lib/dom.js";
import { row, unpack } from "./lib/arrays.js";
import { formatShort } from "./lib/format.js";
import { throttle } from "./lib/scheduler.js";
import { createBoxes } from "./stages/boxes.js";
import { createChannels } from "./stages/channels.js";
import { createMap } from "./stages/map.js";
import { firstChannel, unpackMaps, unpackStages } from "./stages/model.js";
import { createSight } from "./stages/sight.js";
import { createTable } from "./stages/table.js";

const LOST =
  "The kernel was restarted: everything here still works, but Python does not hear what is selected and measures no more. Run the cell again to connect.";

function render({ model, el }) {
  const started = performance.now();
  const frame = createFrame({ model, el }, { name: "stages", label: "Stage explorer", lost: LOST, onResize: () => drawSizes() });
  const { root, body, tell } = frame;
  const network = model.get("network"),
    view = unpackStages(network),
    stageOf = (name) => view.stages.findIndex((stage) => stage.name === name);
  const middleOf = (stage) => stage.field.grid.map((n) => Math.floor(n / 2));
  let pictures = [],
    maps = [],
    shared = false;
  const asked = {}; // what Python is asked for and has not answered: one thing of a kind at a time, and then what is wanted

  // --- sizes
  const slider = h("input", { type: "range", min: 0, max: view.sizes.length - 1, step: 1, "aria-label": "Image size",
    on: { input: () => tellSize(view.sizes[slider.value]) } });
  const said = h("output", {}),
    error = h("p", { class: "nnb-cannot", role: "status" });
  const sendSize = throttle((size) => tell("size", size), 120);
  let size = model.get("size");
  function tellSize(next) {
    size = next;
    drawSizes();
    sendSize(next);
  }
  const ratio = network.image[1] / network.image[0];
  const boxes = createBoxes(view, { onSelect: select }),
    table = createTable(view, { onSelect: select });

  function drawSizes() {
    const { shapes, error: why } = view.at(size);
    const columns = Math.max(1, Math.round(size * ratio));
    slider.value = view.sizes.indexOf(size);
    setAttribute(slider, "aria-valuetext", `${size} px`);
    setText(said, `${size} × ${columns} px`);
    setText(error, why ? `It cannot take ${size} × ${columns} px: ${why}` : "");
    const work = view.shares(size);
    setAttribute(boxes.root, "hidden", !shapes);
    boxes.draw(shapes, work.shares, root.clientWidth);
    table.draw(shapes, work, size);
    boxes.select(current().name);
    root.dataset.size = size;
  }

  // --- one stage
  const channels = createChannels({ onPick: (channel) => tell("channel", channel), onScale: (one) => ((shared = one), drawMap()) });
  const large = createMap({ onPosition: (at) => tell("position", at) });
  const sight = createSight({
    image: network.image,
    pictures: Boolean(unpack(model.get("pictures"))),
    onMiddle: () => tell("position", middleOf(current())),
    onImage: (i) => tell("image", i),
    onMeasure: () => drawSight(),
  });
  const heading = h("h3", { class: "nnb-stage-title" }),
    about = h("p", { class: "nnb-about" });
  const inside = h("div", { class: "nnb-inside" }, channels.root, large.root, sight.root);

  const current = () => view.stages[Math.max(0, stageOf(model.get("selected")))];
  const mapsNow = () => maps[stageOf(current().name)] ?? null;
  // traits arrive one after the other: a position of the stage before is brought inside
  const positionNow = () => current().field.grid.map((n, i) => Math.min(model.get("position")[i], n - 1));
  const channelNow = () => Math.min(model.get("channel"), (mapsNow()?.full[0] ?? Infinity) - 1);
  /** Asks Python; silent where the kernel is gone, which the notice says. */
  function ask(content) {
    if (asked[content.want]) return;
    try {
      model.send(content);
      asked[content.want] = true;
    } catch {}
  }
  /** Draws, which asks for what is wanted by now; an empty trait is no answer: Python has only dropped what it had. */
  function answered(want, trait, draw) {
    if (Object.keys(model.get(trait) ?? {}).length) asked[want] = false;
    draw();
  }

  function select(name) {
    if (name === model.get("selected")) return;
    const stage = view.stages[stageOf(name)];
    model.set({ selected: name, channel: firstChannel(maps[stageOf(name)]), position: middleOf(stage) });
    model.save_changes();
  }

  /** The map in full if Python sent it, else the bytes; asks for what is not here. */
  function valuesNow() {
    const [stage, found, channel, image] = [current(), mapsNow(), channelNow(), model.get("image")];
    if (!found) return null;
    const detail = model.get("detail");
    if (detail?.map && detail.stage === stage.name && detail.channel === channel && detail.image === image) return unpack(detail.map);
    const [, rows] = found.full;
    if (!frame.page && (!found.has(channel) || found.drawn[0] < Math.min(rows, 256)))
      ask({ want: "map", stage: stage.name, channel, image });
    return found.values(image, channel);
  }

  function drawMap() {
    const found = mapsNow();
    large.show({ stage: current(), maps: found, values: valuesNow(), channel: channelNow(), shared, waiting: !frame.page });
  }

  const measured = () => model.get("effective")?.[`${current().name} ${positionNow().join(" ")}`];
  const wanted = () => sight.measuring() && !measured() && !frame.page && mapsNow();
  const measure = throttle(() => wanted() && ask({ want: "field", stage: current().name, position: positionNow() }), 300);
  function drawSight() {
    const position = positionNow(),
      { bytes, problem = "" } = measured() ?? {};
    if (wanted()) measure();
    sight.show({ stage: current(), position, picture: pictures[model.get("image")], heat: unpack(bytes), live: !frame.page, problem });
    sight.images(pictures, model.get("image"));
    large.position(position);
  }

  function drawStage() {
    const stage = current(),
      found = mapsNow();
    boxes.select(stage.name);
    table.select(stage.name);
    setText(heading, stage.name);
    const [count, rows, columns] = found?.full ?? [0, ...stage.field.grid];
    const what = stage.layout === "vector" ? `${count || "a vector"} numbers` : `${count ? `${count} channels of ` : ""}${rows} × ${columns}`;
    const more = found ? ` · ${found.dead.length ? `${found.dead.length} dead` : "none dead"} · effective rank ${found.rank.toFixed(1)}` : "";
    setText(about, `${stage.kind} · ${what} for an image of ${network.image.join(" × ")} px${more}`);
    setAttribute(channels.root, "hidden", !found);
    root.classList.toggle("nnb-no-maps", !found);
    channels.show(found, model.get("image"), channelNow());
    root.dataset.stage = stage.name;
    drawMap();
    drawSight();
  }

  function unpackAll() {
    const all = unpack(model.get("pictures"));
    pictures = all ? Array.from({ length: all.shape[0] }, (_, i) => row(all, i)) : [];
    maps = (model.get("maps") ?? []).map(unpackMaps);
  }

  unpackAll();
  body.append(
    h("div", { class: "nnb-top" },
      h("div", { class: "nnb-name" }, h("strong", {}, network.name), h("span", { class: "nnb-soft" }, `${formatShort(network.total)} parameters`)),
      h("label", { class: "nnb-field nnb-size" }, h("span", { class: "nnb-field-head" }, h("span", {}, "Image size"), said), slider)),
    error,
    boxes.root,
    h("p", { class: "nnb-fine nnb-axis" }, "Height: rows of the map. Going back: columns. Length: square root of the channels. The bar below a name: its share of the work."),
    h("details", { class: "nnb-more", open: true }, h("summary", {}, "All stages as a table", table.note), table.root),
    h("section", { class: "nnb-one", "aria-label": "The selected stage" }, h("div", { class: "nnb-one-head" }, heading, about), inside),
  );
  drawStage();
  drawSizes();
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      root.dataset.paint = (performance.now() - started).toFixed(1);
      root.dataset.ready = "true";
    }),
  );

  frame.on("change:size", () => {
    if (model.get("size") !== size) {
      size = model.get("size");
      drawSizes();
    }
  });
  frame.on("change:selected", drawStage);
  frame.on("change:maps", () => (unpackAll(), drawStage()));
  frame.on("change:image", drawStage);
  frame.on("change:channel", () => (channels.pick(channelNow()), drawMap()));
  frame.on("change:detail", () => answered("map", "detail", drawMap));
  frame.on("change:position", drawSight);
  frame.on("change:effective", () => answered("field", "effective", drawSight));
  return () => {
    sendSize.cancel();
    measure.cancel();
    frame.dispose();
  };
}

export default { render };
