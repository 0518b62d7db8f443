// When to draw: once per frame at most, never while nobody can see it.

/**
 * @param {() => void} draw
 * @param {Element} [element] drawing waits while this element is scrolled out of sight
 * @param {{frame?: typeof requestAnimationFrame, cancel?: typeof cancelAnimationFrame, doc?: Document}} [host]
 */
export function createScheduler(draw, element, host = {}) {
  const frame = host.frame ?? ((f) => requestAnimationFrame(f));
  const cancel = host.cancel ?? ((id) => cancelAnimationFrame(id));
  const doc = host.doc ?? globalThis.document;
  let wanted = false,
    pending = 0,
    onScreen = true,
    stopped = false;

  const visible = () => onScreen && !doc?.hidden;
  const run = () => {
    pending = 0;
    if (stopped || !visible()) return;
    wanted = false;
    draw();
  };
  const plan = () => {
    if (wanted && !pending && !stopped && visible()) pending = frame(run);
  };
  doc?.addEventListener?.("visibilitychange", plan);
  let observer;
  if (element && globalThis.IntersectionObserver) {
    observer = new IntersectionObserver(
      (entries) => {
        onScreen = entries[entries.length - 1].isIntersecting;
        plan();
      },
      { rootMargin: "200px" },
    );
    observer.observe(element);
  }
  return {
    request() {
      wanted = true;
      plan();
    },
    dispose() {
      stopped = true;
      if (pending) cancel(pending);
      doc?.removeEventListener?.("visibilitychange", plan);
      observer?.disconnect();
    },
  };
}

/** Calls `f` at most once per `interval` ms; the last call is never lost. */
export function throttle(f, interval, timers = globalThis) {
  let last = -Infinity,
    timer = null,
    args;
  const now = () => timers.performance?.now?.() ?? Date.now();
  const fire = () => {
    timer = null;
    last = now();
    f(...args);
  };
  const throttled = (...latest) => {
    args = latest;
    if (timer != null) return;
    const wait = last + interval - now();
    if (wait <= 0) fire();
    else timer = timers.setTimeout(fire, wait);
  };
  throttled.cancel = () => {
    if (timer != null) timers.clearTimeout(timer);
    timer = null;
  };
  return throttled;
}
