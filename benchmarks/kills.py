"""Does a run survive kill -9 at fifty random moments, and end bit-equal to one that was left alone?

The work is that of `tests/test_kill.py`, which kills a handful of times; every third kill the newest checkpoint is damaged too."""

import argparse
import json
import subprocess
import sys
import time

from common import HERE, save, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    kills = parser.parse_args().kills
    script, began = HERE.parent / "tests" / "test_kill.py", time.perf_counter()
    done = subprocess.run([sys.executable, script, str(kills)], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        return 1
    told = json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - began}
    save("kills", told)
    names = ["kills", "in the middle of writing", "damaged", "runs"]
    print(table([[told[name] for name in names]], [*names[:2], "checkpoints damaged", "runs"]))
    print("every resume succeeded, every run ended bit-equal: met")
    return 0


if __name__ == "__main__":
    sys.exit(main())
