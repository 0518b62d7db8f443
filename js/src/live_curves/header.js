// The head of the widget: the state of the run, how far it is, and the buttons that steer it.
import { h, icon, setAttribute, setText } from "../lib/dom.js";
import { PAUSE, progressText, STOP } from "./state.js";

/** @param {{command: (what: string) => void}} link */
export function createHeader({ command }) {
  const chip = h("span", { class: "nnb-chip", role: "status" });
  const name = h("span", { class: "nnb-name" });
  const progress = h("span", { class: "nnb-progress-text" });
  const pauseText = h("span", {}),
    pauseIcon = icon(PAUSE),
    stopText = h("span", {});
  const pause = h(
    "button",
    { class: "nnb-button nnb-pause", type: "button", on: { click: () => command(pause.dataset.command) } },
    pauseIcon,
    pauseText,
  );
  const stop = h(
    "button",
    { class: "nnb-button nnb-stop", type: "button", on: { click: () => command("stop") } },
    icon(STOP),
    stopText,
  );
  const actions = h("div", { class: "nnb-actions" }, pause, stop);
  const bar = h("div", { class: "nnb-bar" });
  const track = h(
    "div",
    { class: "nnb-track", role: "progressbar", "aria-label": "Training progress", "aria-valuemin": 0, "aria-valuemax": 100 },
    bar,
  );
  return {
    root: h("div", {}, h("div", { class: "nnb-live-head" }, chip, name, progress, actions), track),
    /**
     * @param {ReturnType<import("./state.js").controlState>} view
     * @param {object} status
     * @param {{step: number, left: number, elapsed: number}} now
     */
    draw(view, status, { step, left, elapsed }) {
      setText(chip, view.label);
      setAttribute(chip, "data-tone", view.tone || null);
      setText(name, status.name === "run" ? "" : (status.name ?? ""));
      setAttribute(name, "title", status.name || null);
      const shown = view.active ? status : { ...status, state: "" };
      setText(progress, progressText(shown, step, left, view.active ? 0 : elapsed));
      const share = status.total_steps ? Math.min(step / status.total_steps, 1) : 0;
      bar.style.transform = `scaleX(${share})`;
      track.hidden = !status.total_steps && !view.controls;
      setAttribute(track, "aria-valuenow", Math.round(100 * share));
      actions.hidden = !view.controls;
      setText(pauseText, view.pause.text);
      setAttribute(pauseIcon.firstChild, "d", view.pause.icon);
      pause.dataset.command = view.pause.command;
      for (const [button, how] of [
        [pause, view.pause],
        [stop, view.stop],
      ]) {
        button.disabled = how.disabled;
        setAttribute(button, "aria-busy", how.busy ? "true" : null);
      }
      setText(stopText, view.stop.text);
    },
  };
}
