"""Runs every benchmark of this folder, one after the other (`make bench`), or those that are named."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_BENCHMARKS = {"run", "common", "learn_recipes"}


def main(names: list[str]) -> int:
    there = sorted(f.stem for f in HERE.glob("*.py") if f.stem not in NOT_BENCHMARKS)
    if unknown := set(names) - set(there):
        raise SystemExit(f"No benchmark {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    failed = []
    for name in names or there:
        print(f"\n=== {name}", flush=True)
        if subprocess.run([sys.executable, str(HERE / f"{name}.py")]).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
