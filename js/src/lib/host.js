// Where the widget lives, and which roads lead from there to the kernel.

/** @returns {"page"|"colab"|"vscode"|"jupyter"|"other"} */
export function hostName(model, doc = document) {
  if (model.host === "page") return "page"; // set by the host in page.js
  if (globalThis.google?.colab) return "colab";
  if (doc.body?.dataset.vscodeThemeKind || doc.body?.className.includes("vscode-")) return "vscode";
  return model.widget_manager?.kernel ? "jupyter" : "other";
}

/** Calls back when the kernel restarts or dies; returns the clean-up. */
export function watchKernel(model, lost) {
  const signal = model.widget_manager?.kernel?.statusChanged;
  if (typeof signal?.connect !== "function") return () => {};
  const slot = (_, status) => /restarting|dead|terminating/.test(status) && lost();
  signal.connect(slot);
  return () => signal.disconnect(slot);
}

/**
 * The roads for commands (see ladder.js): each is a function or null.
 * The kernel behind `widget_manager` is no part of the widget standard, so every step is looked at first.
 */
export function roadsOf(model, rungs, newId) {
  const has = (rung) => rungs.includes(rung);
  const kernel = () => model.widget_manager?.kernel;
  const onControl = (type, content) => {
    const k = kernel();
    k.sendControlMessage(
      {
        channel: "control",
        header: {
          msg_id: newId(),
          msg_type: type,
          session: k.clientId ?? "",
          username: k.username ?? "",
          version: "5.3",
          date: new Date().toISOString(),
        },
        parent_header: {},
        metadata: {},
        content,
        buffers: [],
      },
      false,
      true,
    );
  };
  const reachable = () => typeof kernel()?.sendControlMessage === "function";
  return {
    control: has("control")
      ? (command) =>
          reachable() &&
          model.get("comm_id") &&
          (onControl("comm_msg", { comm_id: model.get("comm_id"), data: { method: "custom", content: command } }), true)
      : null,
    comm: has("comm") ? (command) => (model.send(command), true) : null,
    interrupt: has("interrupt")
      ? () => {
          if (reachable()) return (onControl("interrupt_request", {}), true);
          if (typeof kernel()?.interrupt === "function") return (kernel().interrupt(), true);
          return false;
        }
      : null,
  };
}
