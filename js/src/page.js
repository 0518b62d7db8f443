// The host of a stand-alone page: runs one widget from a JSON record, without kernel and without network.

/** Bytes are stored as {"__bytes__": base64}. */
export function revive(_key, value) {
  if (value && typeof value === "object" && typeof value.__bytes__ === "string") {
    const text = atob(value.__bytes__);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new DataView(bytes.buffer);
  }
  return value;
}

/** The model side of the anywidget front-end interface, with nobody at the other end. */
export function createModel(state) {
  const listeners = new Map();
  const emit = (event, ...args) => [...(listeners.get(event) ?? [])].forEach((f) => f(...args));
  return {
    host: "page",
    get: (name) => state[name],
    set(name, value) {
      const changes = typeof name === "string" ? { [name]: value } : name;
      for (const [key, next] of Object.entries(changes)) {
        if (state[key] === next) continue;
        state[key] = next;
        emit(`change:${key}`, { changed: { [key]: next } }, next);
        emit("change");
      }
    },
    save_changes() {},
    send() {},
    on(event, f) {
      if (!listeners.has(event)) listeners.set(event, new Set());
      listeners.get(event).add(f);
    },
    off(event, f) {
      if (event == null) listeners.clear();
      else if (f) listeners.get(event)?.delete(f);
      else listeners.delete(event);
    },
  };
}

/** Starts the widget whose record lies in the page; says why if that fails. */
export async function start(doc = document) {
  try {
    await show(doc);
  } catch (error) {
    doc.getElementById("nnb-widget").textContent = `This page could not be shown: ${error.message}`;
    throw error;
  }
}

async function show(doc) {
  const record = JSON.parse(doc.getElementById("nnb-record").textContent, revive);
  const url = URL.createObjectURL(new Blob([record.esm], { type: "text/javascript" }));
  const found = (await import(url)).default;
  URL.revokeObjectURL(url);
  const widget = typeof found === "function" ? await found() : found;
  const model = createModel(record.state),
    el = doc.getElementById("nnb-widget");
  const experimental = { invoke: () => Promise.reject(new Error("This page has no kernel.")) };
  await widget.initialize?.({ model, experimental });
  await widget.render?.({ model, el, experimental });
}

if (globalThis.document?.getElementById("nnb-record")) start();
