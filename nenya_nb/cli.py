"""The command line: `lab` opens the notebooks, `train` trains without one, `models` and `shapes` answer questions."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

FIRST_NOTEBOOK = Path("tutorials") / "01_first_run.ipynb"


class _Parser(argparse.ArgumentParser):
    "An argument parser whose errors are one line and exit status 2."

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: list[str] | None = None) -> int:
    "Runs one command; returns the exit status: 0 done, 2 bad arguments, 130 interrupted."
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, FileNotFoundError) as error:  # the library's errors say what to do next
        print(f"nenya_nb {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nenya_nb", description="See self-supervised vision learn.")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )

    lab = commands.add_parser("lab", help="open JupyterLab on the first notebook")
    lab.add_argument("--port", type=_positive, default=8888, help="port to serve on (8888)")
    lab.add_argument("--no-browser", action="store_true", help="only print the address")
    lab.set_defaults(run=_lab)

    train = commands.add_parser("train", help="train an algorithm without a notebook")
    train.add_argument("--algorithm", default="simclr", help="simclr, supcon, … (simclr)")
    train.add_argument("--data", default="digits", help="digits or shapes (digits)")
    train.add_argument("--backbone", default="resnet_tiny", help="a name of `nenya_nb models`")
    train.add_argument("--config", type=Path, help="YAML or JSON of an algorithm, instead of both")
    train.add_argument("--epochs", type=_positive, default=10, help="passes over the data (10)")
    train.add_argument("--batch-size", type=_positive, default=128, help="images per step (128)")
    train.add_argument("--lr", type=_positive_float, default=2e-3, help="learning rate (0.002)")
    train.add_argument("--device", help="cpu, cuda, cuda:1, mps (the best at hand)")
    train.add_argument("--seed", type=int, default=0, help="random seed (0)")
    train.add_argument("--out", type=Path, help="run folder (runs/ALGORITHM-DATA)")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    train.set_defaults(run=_train)

    models = commands.add_parser("models", help="list the backbones")
    models.add_argument("pattern", nargs="?", default="*", help="for example 'resnet*' or 'timm:*'")
    models.set_defaults(run=_models)

    shapes = commands.add_parser("shapes", help="show what each stage of a backbone gives")
    shapes.add_argument("name", help="a name of `nenya_nb models`, or timm:NAME")
    shapes.add_argument("--size", type=_size, default=(224, 224), help="224 or 480x640 px (224)")
    shapes.add_argument("--channels", type=_positive, default=3, help="of the images (3)")
    shapes.set_defaults(run=_shapes)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _size(text: str) -> tuple[int, int]:
    "`224` or `480x640`, height first."
    sides = [int(side) if side.isdecimal() else 0 for side in text.lower().split("x")]
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"expected 224 or 480x640 (height x width), got {text!r}")
    return sides[0], sides[-1]


def _lab(arguments: argparse.Namespace) -> int:
    "Serves the notebooks of this checkout, or the current folder, and opens the first lesson."
    if importlib.util.find_spec("jupyterlab") is None:
        raise ValueError("JupyterLab is not installed; run: pip install 'nenya_nb[lab]'")
    lessons = Path(__file__).resolve().parent.parent / "nbs"
    here = lessons if (lessons / FIRST_NOTEBOOK).exists() else Path.cwd()
    start = f"/lab/tree/{FIRST_NOTEBOOK.as_posix()}" if here == lessons else "/lab"
    command = [sys.executable, "-m", "jupyter", "lab", f"--ServerApp.root_dir={here}"]
    command += [f"--LabApp.default_url={start}", f"--port={arguments.port}"]
    command += ["--no-browser"] if arguments.no_browser or not _has_browser() else []
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    sys.stdout.flush()
    if os.name == "nt":
        import subprocess

        return subprocess.call(command)
    os.execv(sys.executable, command)  # Ctrl-C belongs to JupyterLab now


def _has_browser() -> bool:
    import webbrowser

    try:
        return bool(webbrowser.get())
    except webbrowser.Error:
        return False


def _models(arguments: argparse.Namespace) -> int:
    "One name a line; status 1 if nothing matches, as grep does."
    from nenya_nb.models import list_models

    names = list_models(arguments.pattern)
    print("\n".join(names) if names else f"no backbone matches {arguments.pattern!r}")
    return 0 if names else 1


def _shapes(arguments: argparse.Namespace) -> int:
    "The table of stages; nothing is computed, weights are never drawn."
    import torch

    from nenya_nb.introspect import stage_table
    from nenya_nb.models import get_backbone

    with torch.device("meta"):
        backbone = get_backbone(arguments.name, in_channels=arguments.channels)
    print(stage_table(backbone, [1, arguments.channels, *arguments.size]))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    "Trains, shows a progress bar, and writes history.csv, curves.png and checkpoints."
    from nenya_nb import models
    from nenya_nb.core import seed_everything, unknown_name
    from nenya_nb.data import load_dataset
    from nenya_nb.evaluation import KNNMonitor
    from nenya_nb.training import fit

    algorithms = {
        name.lower(): value
        for name, value in vars(models).items()
        if isinstance(value, type) and issubclass(value, models.Algorithm)
        if value is not models.Algorithm
    }
    if arguments.algorithm.lower() not in algorithms:
        raise unknown_name("algorithm", arguments.algorithm, algorithms)
    train, test = (load_dataset(arguments.data, split=split) for split in ("train", "test"))
    seed_everything(arguments.seed)
    if arguments.config:
        algorithm = models.build(arguments.config)
    else:
        backbone = models.get_backbone(arguments.backbone, in_channels=train.images.shape[1])
        algorithm = algorithms[arguments.algorithm.lower()](backbone)
    kind = type(algorithm).__name__.lower()
    out = arguments.out or Path("runs") / f"{kind}-{train.name}"
    history = fit(
        algorithm,
        train,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
        device=arguments.device,
        seed=arguments.seed,
        callbacks=[KNNMonitor(train, test)],
        checkpoint_dir=out,
        resume=arguments.resume,
        progress=True,
    )
    print(f"{history}\nWritten to {out}: history.csv, curves.png, checkpoints")
    return 0
