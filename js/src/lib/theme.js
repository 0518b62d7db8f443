// Light or dark, as the place we are shown in says; colours are CSS variables of base.css.

/**
 * @param {Document} doc
 * @returns {"light"|"dark"}
 */
export function hostTheme(doc = document, prefersDark = () => matchMedia("(prefers-color-scheme: dark)").matches) {
  const { body, documentElement: html } = doc;
  const jupyter = body?.getAttribute("data-jp-theme-light");
  if (jupyter != null) return jupyter === "false" ? "dark" : "light";
  const classes = body?.classList;
  if (
    classes?.contains("vscode-dark") ||
    (classes?.contains("vscode-high-contrast") && !classes.contains("vscode-high-contrast-light"))
  )
    return "dark";
  if (classes?.contains("vscode-light") || classes?.contains("vscode-high-contrast-light")) return "light";
  const named = html?.getAttribute("theme") ?? html?.getAttribute("data-theme") ?? html?.getAttribute("data-bs-theme");
  if (named === "dark" || named === "light") return named;
  if (classes?.contains("quarto-dark")) return "dark";
  if (classes?.contains("quarto-light")) return "light";
  return prefersDark() ? "dark" : "light";
}

/** Keeps root.dataset.theme right and calls back after every change; returns the clean-up. */
export function watchTheme(root, changed = () => {}) {
  let last,
    stopped = false;
  const apply = () => {
    const theme = hostTheme();
    root.dataset.theme = theme;
    // the host's own variables may change a moment after its attribute; at first, `root` may not be on the page yet
    if (theme !== last) requestAnimationFrame(() => requestAnimationFrame(() => stopped || changed(theme)));
    last = theme;
  };
  const observer = new MutationObserver(apply);
  for (const node of [document.documentElement, document.body])
    if (node)
      observer.observe(node, {
        attributes: true,
        attributeFilter: [
          "class",
          "theme",
          "data-theme",
          "data-bs-theme",
          "data-jp-theme-light",
          "data-jp-theme-name",
          "data-vscode-theme-kind",
        ],
      });
  const media = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
  media?.addEventListener?.("change", apply);
  apply();
  return () => {
    stopped = true;
    observer.disconnect();
    media?.removeEventListener?.("change", apply);
  };
}

/** The colours in force, as literals that a canvas understands. */
export function palette(root) {
  const style = getComputedStyle(root);
  const read = (name) => style.getPropertyValue(`--nnb-${name}`).trim();
  return {
    ink: read("ink"),
    soft: read("soft"),
    rule: read("rule"),
    background: read("bg"),
    series: [1, 2, 3, 4, 5, 6].map((i) => read(`series-${i}`)),
    bad: read("bad"),
    warn: read("warn"),
    good: read("good"),
    font: `11px ${style.fontFamily}`,
  };
}
