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
    train.add_argument("--optimizer", choices=["adamw", "sgd", "lars"], default="adamw")
    train.add_argument("--precision", choices=["no", "bf16", "fp16"], help="of matrix products")
    train.add_argument("--accumulate", type=_positive, default=1, help="parts of a step (1)")
    train.add_argument("--clip", type=_positive_float, help="largest norm of the gradient (any)")
    train.add_argument("--compile", action="store_true", help="compile the network first")
    train.add_argument("--keep-best", metavar="METRIC", help="keep its best checkpoint, e.g. knn")
    train.add_argument("--log-with", metavar="TRACKER", help="tensorboard, wandb, … as well")
    train.add_argument("--device", help="cpu, cuda, cuda:1, mps (the best at hand)")
    train.add_argument("--seed", type=int, default=0, help="random seed (0)")
    train.add_argument("--out", type=Path, help="run folder (runs/ALGORITHM-DATA)")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    train.set_defaults(run=_train)

    latents = commands.add_parser("latents", help="write a trained network's features to HDF5")
    latents.add_argument("--weights", type=Path, required=True, help="run folder, or .safetensors")
    latents.add_argument("--config", type=Path, help="YAML or JSON of a recipe or an algorithm")
    latents.add_argument("--algorithm", default="simclr", help="without --config: as for train")
    latents.add_argument("--backbone", default="resnet_tiny", help="without --config: as for train")
    latents.add_argument("--data", help="name, folder or .h5 file (the recipe's, else digits)")
    latents.add_argument("--split", default="train", help="one or more: train,test (train)")
    latents.add_argument("--layer", help="a layer's output instead of the features")
    latents.add_argument("--batch-size", type=_positive, default=256, help="images at once (256)")
    latents.add_argument("--device", help="cpu, cuda, cuda:1, mps (the best at hand)")
    latents.add_argument("--out", type=Path, default=Path("latents.h5"), help="file (latents.h5)")
    latents.add_argument("--restart", action="store_true", help="do not go on with an old file")
    latents.set_defaults(run=_latents)

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
    "Trains, shows a progress bar, and writes history.csv, curves.png and checkpoints; alone or launched."
    if arguments.config and (recipe := _recipe(arguments.config)):
        return _train_recipe(recipe, arguments)
    from nenya_nb import models
    from nenya_nb.core import rank, seed_everything
    from nenya_nb.data import load_dataset
    from nenya_nb.evaluation import KNNMonitor
    from nenya_nb.training import fit

    kind = _algorithm_class(arguments.algorithm)
    train, test = (load_dataset(arguments.data, split=split) for split in ("train", "test"))
    seed_everything(arguments.seed)
    if arguments.config:
        algorithm = models.build(arguments.config)
    else:
        backbone = models.get_backbone(arguments.backbone, in_channels=train.images.shape[1])
        algorithm = kind(backbone)
    kind = type(algorithm).__name__.lower()
    out = arguments.out or Path("runs") / f"{kind}-{train.name}"
    history = fit(
        algorithm,
        train,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
        optimizer=arguments.optimizer,
        precision=arguments.precision,
        accumulate=arguments.accumulate,
        clip=arguments.clip,
        compile=arguments.compile,
        keep_best=arguments.keep_best,
        log_with=arguments.log_with,
        device=arguments.device,
        seed=arguments.seed,
        callbacks=[KNNMonitor(train, test)],
        checkpoint_dir=out,
        resume=arguments.resume,
        progress=True,
    )
    if rank() == 0:
        print(f"{history}\nWritten to {out}: history.csv, curves.png, checkpoints")
    return 0


def _algorithm_class(name: str) -> type:
    "An algorithm by its name, in any case."
    from nenya_nb import models
    from nenya_nb.core import unknown_name

    algorithms = {
        name.lower(): value
        for name, value in vars(models).items()
        if isinstance(value, type) and issubclass(value, models.Algorithm)
        if value is not models.Algorithm
    }
    if name.lower() not in algorithms:
        raise unknown_name("algorithm", name, algorithms)
    return algorithms[name.lower()]


def _recipe(path: Path):
    "The recipe in a file; None if the file holds an algorithm alone."
    from nenya_nb.recipes import is_recipe, read_recipe

    return read_recipe(path) if is_recipe(path) else None


def _train_recipe(recipe, arguments: argparse.Namespace) -> int:
    "Trains as a recipe says; only the place, the device and the seed come from the command line."
    out = arguments.out or Path("runs") / recipe.name
    where = dict(device=arguments.device, seed=arguments.seed, resume=arguments.resume)
    history = recipe.run(out, progress=True, **where)

    from nenya_nb.core import rank

    if rank() == 0:
        print(f"{history}\nWritten to {out}: history.csv, curves.png, checkpoints")
    return 0


def _latents(arguments: argparse.Namespace) -> int:
    "Streams the features of each split to a partition of the file; goes on where it was interrupted."
    from nenya_nb import models
    from nenya_nb.core import pick_device
    from nenya_nb.data import load_dataset
    from nenya_nb.evaluation import extract_latents

    weights, parts = _weights(arguments.weights), arguments.split.split(",")
    recipe = _recipe(arguments.config) if arguments.config else None
    options = {} if arguments.data or not recipe else dict(recipe.data)
    name = arguments.data or options.pop("name", "digits")
    data = {part: load_dataset(name, part, **options) for part in parts}
    if recipe:
        model = recipe.build()
    elif arguments.config:
        model = models.build(arguments.config)
    else:
        channels = data[parts[0]].images.shape[1]
        backbone = models.get_backbone(arguments.backbone, in_channels=channels)
        model = _algorithm_class(arguments.algorithm)(backbone)
    _load_weights(model, weights)
    for part, images in data.items():
        place = dict(path=arguments.out, partition=part, resume=not arguments.restart)
        device = pick_device(arguments.device)
        found = extract_latents(
            model, images, arguments.batch_size, device, layer=arguments.layer, **place
        )
        print(f"{part}: {found}")
    print(f"Written to {arguments.out}")
    return 0


def _weights(path: Path) -> Path:
    "The file of weights at a path: of a run's newest checkpoint, in a folder, or the path itself."
    from nenya_nb.training import latest_checkpoint

    if (path / "checkpoints").is_dir():
        path = latest_checkpoint(path / "checkpoints") or path
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"there are no weights at {file}; give a run folder of `train`")
    return file


def _load_weights(model, file: Path) -> None:
    "Loads all weights; raises ValueError when they are those of another network."
    from nenya_nb.models.backbones.pretrained import read_weights

    try:
        model.load_state_dict(read_weights(file))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            f"{file.name} does not fit this {type(model).__name__} ({reason} …); give the --config that it was trained with"
        ) from None


if __name__ == "__main__":  # accelerate launch -m nenya_nb.cli train …
    sys.exit(main())
