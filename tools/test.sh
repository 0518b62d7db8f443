#!/usr/bin/env bash
# Every check there is, the quick ones first. `make test` has made the environment and put it on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
export NENYA_NB_STATIC= HF_HUB_OFFLINE=1 MPLBACKEND=agg PYTHONDONTWRITEBYTECODE=1

step() { printf '\n=== %s\n' "$*"; }

step "style"
ruff check nbs tests tools benchmarks js setup.py nenya_nb/cli.py nenya_nb/__main__.py
ruff format --check --quiet nbs tests tools benchmarks js setup.py nenya_nb/cli.py nenya_nb/__main__.py

step "front end"
node --test js/test/*.test.js

step "notebooks run"
nbdev-test --n-workers 2 --timing

marks=()
if [ "${BROWSER:-}" = skip ]; then
    printf '\n!!! BROWSER=skip: the tests in tests/browser are NOT run.\n'
    marks=(-m "not browser")
else
    step "a browser"
    CHROMIUM=$(tools/chromium.sh)
    export CHROMIUM
    "$CHROMIUM" --version 2>/dev/null
fi

step "tests"
python -m pytest -q "${marks[@]}"
[ "${BROWSER:-}" != skip ] || printf '\n!!! BROWSER=skip: the tests in tests/browser were NOT run.\n'
