"""Are latents of a million images made in constant memory? Peak memory of `extract_latents` at two sizes, to a file and to memory.

Each run is a process of its own; its images are made when they are read, so that only the latents can fill the memory."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import save, table

SIZES, PX, DIM = (20_000, 200_000), 64, 512
LIMIT_MB_PER_MILLION = 100  # growth from 20,000 to 200,000 images, scaled to a million


def peak(path: str | None, count: int) -> dict[str, float]:
    """Runs in a new process: seconds and peak resident memory, before and after."""
    import resource
    import time

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

    def rss() -> float:
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
    data = ImageDataset(Drawn(count), mean=[0], std=[1], name=f"{count} drawn images")
    extract_latents(model, data.subset(slice(0, 2048)))  # everything imported, every buffer there
    before, began = rss(), time.perf_counter()
    found = extract_latents(model, data, path=path)
    return dict(
        images=count,
        before=before,
        peak=rss(),
        seconds=time.perf_counter() - began,
        rows=len(found.features),
    )


def run(where: str, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "latents.h5") if where == "file" else ""
        command = [sys.executable, __file__, "--child", str(count), path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return {"to": where, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, metavar=("COUNT", "PATH"))
    arguments = parser.parse_args()
    if arguments.child:
        count, path = arguments.child
        print(json.dumps(peak(path or None, int(count))))
        return
    runs = [run(where, count) for where in ("file", "memory") for count in SIZES]
    growth = {}
    for where in ("file", "memory"):
        small, large = (r for r in runs if r["to"] == where)
        grown = [r["peak"] - r["before"] for r in (small, large)]
        per_image = (grown[1] - grown[0]) / (SIZES[1] - SIZES[0])
        growth[where] = {
            "mib_per_million": per_image * 1e6,
            "million_mib": large["peak"] + per_image * (1e6 - SIZES[1]),
        }
    header = ["to", "images", "MiB before", "MiB at most", "images/s"]
    print(
        table(
            [
                [r["to"], r["images"], r["before"], r["peak"], r["images"] / r["seconds"]]
                for r in runs
            ],
            header,
        )
    )
    for where, numbers in growth.items():
        print(
            f"to {where}: {numbers['mib_per_million']:+.0f} MiB per million images; a million would take {numbers['million_mib']:.0f} MiB"
        )
    print(f"(a million rows of {DIM} floats are {1e6 * DIM * 4 / 2**20:.0f} MiB)")
    save(
        "latents", {"pixels": PX, "features": DIM, "runs": runs, "growth": growth}, "h5py", "numpy"
    )
    if growth["file"]["mib_per_million"] > LIMIT_MB_PER_MILLION:
        sys.exit(f"memory grows by {growth['file']['mib_per_million']:.0f} MiB per million images")


if __name__ == "__main__":
    main()
