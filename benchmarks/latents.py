"""Are latents of a million images made in constant memory? Peak memory of `extract_latents` at two sizes, to a file and to memory.

To a file and to memory, a new process each; images are made when they are read, so that only latents fill the memory.

Two processes differ by some 20 MiB before they have done anything (libraries, allocator), and a run by as much from the
same run again: as much as the growth of 200,000 images that is looked for. So to a file the large size is a whole
million, and one process runs both sizes, the small one first, after the imports and a warm-up of 2048 images the same
way. The growth is how much higher the resident memory rose in the large run than in the small one. This hides nothing:
- a data set is made within its run, so what it costs per image counts;
- the system tells only the highest memory since the process began. If the small run did not rise above what imports and
  warm-up had needed (`before`), its own highest is unknown; then what is in use at its end, which is less, takes its
  place, and the growth can come out too large, not too small;
- memory that the small run left to the allocator may be used again by the large one: its share of the small size."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import save, table

SIZES = {
    "file": (20_000, 1_000_000),
    "memory": (20_000, 200_000),
}  # a million need some 2 GB of disk
PX, DIM = 64, 512
LATENTS = 1e6 * DIM * 4 / 2**20  # MiB: a million rows of 32-bit floats
LIMITS = {"file": 100, "memory": LATENTS + 100}  # growth, MiB per million images


def peaks(path: str | None) -> list[dict[str, float]]:
    """Runs in a new process: for each size seconds and resident memory, at most before, at most then, and at its end."""
    import resource
    import time

    import psutil
    import torch

    from nenya_nb.data import ImageDataset, ImageStore
    from nenya_nb.evaluation import extract_latents

    class Drawn(ImageStore):
        "Images that are a function of their row number."

        def __init__(self, count):
            super().__init__((count, 1, PX, PX), torch.float32)
            self.waves = torch.randn(97, 1, PX, PX)

        def read(self, rows):
            rows = torch.tensor(rows)
            return self.waves[rows % 97] * (1 + rows[:, None, None, None] / 1e6)

    def drawn(count: int) -> ImageDataset:
        return ImageDataset(Drawn(count), mean=[0], std=[1], name=f"{count} drawn images")

    def in_use() -> float:
        return psutil.Process().memory_info().rss / 2**20  # MiB

    def highest() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB

    torch.manual_seed(0)
    torch.set_num_threads(1)
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 16, 9, stride=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, DIM),
    )
    runs = []
    for count in (2048, *SIZES["file" if path else "memory"]):  # the first is the warm-up
        before, began = highest(), time.perf_counter()
        found = extract_latents(model, drawn(count), path=path and f"{path}.{count}")
        seconds = time.perf_counter() - began
        sizes = {"images": count, "rows": len(found.features), "seconds": seconds}
        runs.append(sizes | {"before": before, "peak": highest(), "end": in_use()})
        del found
    return runs[1:]


def run(where: str) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "latents.h5") if where == "file" else ""
        command = [sys.executable, __file__, "--child", path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [{"to": where, **r} for r in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", metavar="PATH")
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(peaks(arguments.child or None)))
        return
    runs, growth = [], {}
    for where in ("file", "memory"):
        small, large = pair = run(where)
        rose = small["peak"] > small["before"]
        grown = large["peak"] - (small["peak"] if rose else small["end"])
        per_image = grown / (large["images"] - small["images"])
        growth[where] = {
            "mib_per_million": per_image * 1e6,
            "million_mib": large["peak"] + per_image * (1e6 - large["images"]),
        }
        runs += pair
    header = ["to", "images", "most before", "MiB at most", "at its end", "images/s"]
    print(
        table(
            [
                [r[key] for key in ("to", "images", "before", "peak", "end")]
                + [r["images"] / r["seconds"]]
                for r in runs
            ],
            header,
        )
    )
    for where, numbers in growth.items():
        print(
            f"to {where}: {numbers['mib_per_million']:+.0f} MiB per million images; a million would take {numbers['million_mib']:.0f} MiB"
        )
    print(f"(a million rows of {DIM} floats are {LATENTS:.0f} MiB)")
    save(
        "latents", {"pixels": PX, "features": DIM, "runs": runs, "growth": growth}, "h5py", "numpy"
    )
    missed = {w: g["mib_per_million"] for w, g in growth.items()}
    missed = {where: mib for where, mib in missed.items() if mib > LIMITS[where]}
    if missed:
        told = (f"to {w} by {mib:.0f}, limit {LIMITS[w]:.0f}" for w, mib in missed.items())
        sys.exit(f"memory grows, in MiB per million images: {'; '.join(told)}")


if __name__ == "__main__":
    main()
