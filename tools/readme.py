"""Makes README.md from the front page, nbs/index.ipynb, so that the two cannot tell different stories.

Text cells are copied, code cells become fenced blocks, and printed text follows as a block of its own. Cells marked
`#| hide` are left out; image links are turned to where the file lies as seen from the root."""

import re
from pathlib import Path

import nbformat


def readme(root: Path) -> str:
    "README.md as it should be, given the repository's root."
    parts = []
    for cell in nbformat.read(root / "nbs" / "index.ipynb", as_version=4).cells:
        source = cell.source.strip()
        if re.match(r"#\|\s*hide", source):
            continue
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"(\]\(|src=\")(?!https?:|#|/)", r"\1nbs/", source))
            continue
        code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
        if code:
            parts.append(f"```python\n{code}\n```")
        text = "".join(
            o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs
        )
        if text and not any("image/png" in o.get("data", {}) for o in cell.outputs):
            parts.append(f"```text\n{text.strip()}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    here = Path(__file__).resolve().parent.parent
    (here / "README.md").write_text(readme(here), encoding="utf-8")
