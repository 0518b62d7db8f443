"""What does `from nenya_nb.models import *` cost, beside `import torch, torchvision`? A new process for each import.

The two take turns; the number is the median, over the rounds, of our time over theirs."""

import argparse
import subprocess
import sys
from statistics import median

from common import save, summary, table

LIMIT = 1.15  # our time over torch's and torchvision's
WAYS = {
    "import torch": "import torch",
    "import torch, torchvision": "import torch, torchvision",
    "from nenya_nb.models import *": "from nenya_nb.models import *",
}
CLOCK = "import time; t = time.perf_counter()\n{}\nprint(time.perf_counter() - t)"


def seconds(statement: str) -> float:
    """Time of an import in a new interpreter, without the interpreter's own start."""
    command = [sys.executable, "-c", CLOCK.format(statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    for statement in WAYS.values():
        seconds(statement)  # byte code and page cache
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for i in range(args.rounds):
        for way in list(WAYS)[:: 1 if i % 2 else -1]:
            times[way].append(seconds(WAYS[way]))
    ours, theirs = times["from nenya_nb.models import *"], times["import torch, torchvision"]
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    rows = [[way, median(values), min(values), max(values)] for way, values in times.items()]
    print(table(rows, ["import", "median s", "min", "max"]))
    good = ratio <= LIMIT
    print(f"\nours over theirs: {ratio:.3f}, at most {LIMIT}: {'met' if good else 'MISSED'}")
    result = {"ratio": ratio, "s": {way: summary(values) for way, values in times.items()}}
    save("imports", result, "torchvision")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
