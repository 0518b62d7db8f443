// Text for the reader's clipboard.

/** Copies text; true if it could. Pages in frames may not use the clipboard, so there is an older way as well. */
export async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = document.createElement("textarea");
    box.value = text;
    box.setAttribute("aria-hidden", "true");
    Object.assign(box.style, { position: "fixed", opacity: 0 });
    near.append(box);
    box.select();
    let done = false;
    try {
      done = document.execCommand("copy");
    } catch {
      /* not allowed here */
    }
    box.remove();
    return done;
  }
}
