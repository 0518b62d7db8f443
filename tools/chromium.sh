#!/usr/bin/env bash
# Prints the path of a Chromium, installing one if there is none; fails with what to do otherwise.
set -euo pipefail

find_one() {
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
        [ -n "$name" ] && command -v "$name" && return
    done
    python - <<'PY'
import pathlib, sys
from playwright.sync_api import sync_playwright
with sync_playwright() as p:
    path = p.chromium.executable_path
print(path) if pathlib.Path(path).exists() else sys.exit(1)
PY
}

find_one 2>/dev/null && exit
{
    if [ "$(id -u)" = 0 ] && command -v apt-get; then
        apt-get update -qq && apt-get install -y -qq chromium || true
    else
        python -m playwright install chromium || true
    fi
} >&2
find_one 2>/dev/null && exit
echo "No Chromium was found and none could be installed. Install one (Debian: apt install chromium; elsewhere:" \
    "playwright install chromium), or name it: make test CHROMIUM=/path/to/chromium. To leave the browser" \
    "tests out: make test BROWSER=skip." >&2
exit 1
