// The channels of one stage as a page of small maps, each a button.
import { h, setAttribute, setText } from "../lib/dom.js";
import { formatCount } from "../lib/format.js";
import { paintMap, pixelCanvas } from "../lib/pixels.js";
import { ordered, ORDERS, scaleOf } from "./model.js";

const PAGE = 48;

/** @param {{onPick: (channel: number) => void, onScale: (shared: boolean) => void}} actions */
export function createChannels({ onPick, onScale }) {
  const state = { maps: null, image: 0, channel: 0, order: "std", shared: false, page: 0, list: [] };
  const tiles = h("div", { class: "nnb-tiles", role: "group", "aria-label": "Channels" });
  const left = h("p", { class: "nnb-fine" });
  const order = h("select", { "aria-label": "Order of the channels", on: { change: () => show({ order: order.value, page: 0 }) } },
    ...Object.entries(ORDERS).map(([key, [label]]) => h("option", { value: key, selected: key === "std" }, `by ${label}`)));
  const scales = ["each its own", "one for all"].map((label, i) =>
    h("button", { type: "button", "aria-pressed": String(!i), on: { click: () => setShared(Boolean(i)) } }, label));
  const where = h("span", { class: "nnb-where" });
  const turn = (by) => () => show({ page: state.page + by });
  const [back, on] = [["‹", "Channels before", -1], ["›", "Channels after", 1]].map(([sign, label, by]) =>
    h("button", { class: "nnb-button nnb-turn", type: "button", "aria-label": label, on: { click: turn(by) } }, sign));
  const root = h("div", { class: "nnb-channels" },
    h("div", { class: "nnb-bar" }, order, h("span", { class: "nnb-pages" }, back, where, on),
      h("span", { class: "nnb-segments", role: "group", "aria-label": "Colour scale" }, ...scales)),
    tiles, left);

  function setShared(shared) {
    scales.forEach((button, i) => setAttribute(button, "aria-pressed", String(shared === Boolean(i))));
    show({ shared });
    onScale(shared);
  }

  function tile(channel) {
    const { maps, image, shared } = state;
    const dead = maps.numbers(channel).zeros === 1;
    const canvas = pixelCanvas("", { "aria-hidden": "true", role: null });
    const values = maps.values(image, channel);
    paintMap(canvas, values, scaleOf(maps, values, shared));
    const picked = channel === state.channel;
    return h(
      "button",
      { class: "nnb-tile", type: "button", "data-channel": channel, "aria-pressed": String(picked), tabindex: picked ? "0" : "-1",
        title: `channel ${channel}${dead ? ", dead: zero everywhere" : ""}`, "aria-label": `channel ${channel}${dead ? ", dead" : ""}`,
        "data-dead": dead ? "true" : null },
      canvas,
    );
  }

  function show(change) {
    Object.assign(state, change);
    if (!state.maps) return void tiles.replaceChildren();
    state.list = ordered(state.maps, state.order);
    const pages = Math.ceil(state.list.length / PAGE);
    state.page = Math.max(0, Math.min(pages - 1, state.page));
    const shown = state.list.slice(state.page * PAGE, (state.page + 1) * PAGE);
    tiles.replaceChildren(...shown.map(tile));
    if (!tiles.querySelector("[tabindex='0']")) tiles.firstChild?.setAttribute("tabindex", "0");
    setText(where, pages > 1 ? `${state.page + 1} of ${pages}` : `${shown.length}`);
    back.disabled = state.page === 0;
    on.disabled = state.page >= pages - 1;
    const [all, rows, columns] = state.maps.full,
      [height, width] = state.maps.drawn;
    const said = [];
    if (state.list.length < all) said.push(`${formatCount(state.list.length)} of ${formatCount(all)} channels are here, those that change most; numbers are of all.`);
    if (height < rows) said.push(`Maps of ${rows} × ${columns} are drawn as ${height} × ${width}.`);
    setText(left, said.join(" "));
  }

  tiles.addEventListener("click", (event) => {
    const button = event.target.closest(".nnb-tile");
    if (button) onPick(Number(button.dataset.channel));
  });
  tiles.addEventListener("keydown", (event) => {
    const all = [...tiles.children],
      here = all.indexOf(event.target.closest(".nnb-tile"));
    const columns = Math.max(1, all.findIndex((one) => one.offsetTop > all[0].offsetTop));
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (here < 0 || !by || !all[here + by]) return;
    event.preventDefault();
    onPick(Number(all[here + by].dataset.channel));
    tiles.children[here + by]?.focus();
  });

  return {
    root,
    /** Draws another stage or image; a new stage begins with its first page. */
    show(maps, image, channel) {
      const fresh = maps !== state.maps;
      show({ maps, image, channel, ...(fresh ? { page: 0 } : {}) });
    },
    /** Marks a channel, and turns to its page. */
    pick(channel) {
      state.channel = channel;
      const page = Math.floor(state.list.indexOf(channel) / PAGE);
      if (page >= 0 && page !== state.page) return show({ page });
      for (const button of tiles.children) {
        const picked = Number(button.dataset.channel) === channel;
        setAttribute(button, "aria-pressed", String(picked));
        setAttribute(button, "tabindex", picked ? "0" : "-1");
      }
    },
  };
}
