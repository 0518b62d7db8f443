"""Makes sure that torch and torchvision belong together, and mends the pair if they do not.

A CPU-only torch beside a torchvision that was built for the ordinary wheels installs without a word and fails at
import with "operator torchvision::nms does not exist". The plain wheel of the same torch version is then fetched."""

import subprocess
import sys
from importlib.metadata import version


def works() -> str:
    "An empty string if the pair works, else the last line of the error."
    code = "import torch, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return "" if run.returncode == 0 else (run.stderr.strip().splitlines() or ["no message"])[-1]


if error := works():
    pair = f"torch {version('torch')} and torchvision {version('torchvision')}"
    print(f"{pair} do not belong together ({error}); fetching the plain torch wheel.")
    plain = f"torch==={version('torch').split('+')[0]}"  # === takes the wheel without a local label
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--force-reinstall", plain], check=True
    )
    if error := works():
        sys.exit(
            f"{pair} still fail: {error}\n"
            "Remove .venv and run again without package sources that offer a CPU-only torch "
            "(see PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL and `pip config list`)."
        )
