#!/usr/bin/env bash
# Every check there is, the quick ones first. `make test` has made the environment and put it on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
export NENYA_NB_STATIC= HF_HUB_OFFLINE=1 MPLBACKEND=agg PYTHONDONTWRITEBYTECODE=1
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT  # with what lessons and tests leave there

step() { printf '\n=== %s\n' "$*"; }

step "style"
ruff check nbs tests tools benchmarks js setup.py nenya_nb/cli.py nenya_nb/__main__.py
ruff format --check --quiet nbs tests tools benchmarks js setup.py nenya_nb/cli.py nenya_nb/__main__.py

step "front end"
node --test js/test/*.test.js

step "notebooks run"
OMP_NUM_THREADS=1 nbdev-test --n-workers 2 --timing  # two at a time, so one thread each

step "tests, two at a time"
OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadfile -m "not browser and not timed"

step "tests that hold a clock"
python -m pytest -q -m "timed and not browser"

if [ "${BROWSER:-}" = skip ]; then
    printf '\n!!! BROWSER=skip: the tests in tests/browser were NOT run.\n'
    exit
fi
step "a browser"
CHROMIUM=$(tools/chromium.sh)
export CHROMIUM
"$CHROMIUM" --version 2>/dev/null
python -m pytest -q -n 2 --dist loadfile -m browser
