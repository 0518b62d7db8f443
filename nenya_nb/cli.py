"""The command line: `lab` opens the notebooks, `train` and `latents` work without one, the others show networks."""

import argparse
import importlib.util
import inspect
import json
import os
import sys
from functools import partial
from pathlib import Path

FIRST_NOTEBOOK = Path("tutorials") / "01_first_run.ipynb"
FIT = "epochs batch_size lr optimizer precision accumulate clip compile keep_best log_with device seed".split()


class _Parser(argparse.ArgumentParser):
    "An argument parser whose errors are one line and exit status 2."

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: list[str] | None = None) -> int:
    "Runs one command; returns the exit status: 0 done, 1 failed, 2 bad arguments, 130 interrupted."
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        said = " ".join(str(error).split())  # the library's errors say what to do next
        print(f"nenya_nb {arguments.command}: {said}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
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
    train.add_argument("--algorithm", help="simclr, supcon, … (simclr)")
    train.add_argument("--data", help="a name, a folder or an .h5 file (the recipe's, else digits)")
    train.add_argument("--backbone", help="a name of `nenya_nb models` (resnet_tiny)")
    train.add_argument(
        "--config", type=Path, help="a recipe's name, or the file of a recipe or algorithm"
    )
    train.add_argument("--epochs", type=_positive, help="passes over the data (10)")
    train.add_argument("--batch-size", type=_positive, help="images per step (128)")
    train.add_argument("--lr", type=_positive_float, help="adamw 0.001, sgd 0.05, lars 0.3")
    train.add_argument("--optimizer", choices=["adamw", "sgd", "lars"], help="(adamw)")
    train.add_argument("--precision", choices=["no", "bf16", "fp16"], help="of matrix products")
    train.add_argument("--accumulate", type=_positive, help="parts of a step (1)")
    train.add_argument("--clip", type=_positive_float, help="largest norm of the gradient (any)")
    train.add_argument("--compile", action="store_true", default=None, help="the network, first")
    train.add_argument("--keep-best", metavar="METRIC", help="keep its best checkpoint, e.g. knn")
    train.add_argument("--log-with", metavar="TRACKER", help="tensorboard, wandb, … as well")
    train.add_argument("--device", help="cpu, cuda, cuda:1, mps (the best at hand)")
    train.add_argument("--seed", type=int, help="random seed (0)")
    train.add_argument("--out", type=Path, help="run folder (runs/ALGORITHM-DATA)")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    train.epilog = "In brackets: what holds without an option, unless a recipe says otherwise."
    train.set_defaults(run=_train)

    latents = commands.add_parser("latents", help="write a trained network's features to HDF5")
    latents.add_argument("--weights", type=Path, required=True, help="run folder, or .safetensors")
    latents.add_argument(
        "--config", type=Path, help="a recipe's name, or the file of a recipe or algorithm"
    )
    latents.add_argument("--algorithm", help="if config.json beside the weights does not say it")
    latents.add_argument("--backbone", help="as for train")
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
    shapes.set_defaults(run=_shapes)
    diagram = commands.add_parser("diagram", help="draw a backbone: a page to click, or a picture")
    diagram.add_argument("-o", "--out", type=Path, help=".html, .svg, .png or .pdf (NAME.html)")
    diagram.set_defaults(run=_diagram)
    for command in (shapes, diagram):
        command.add_argument("name", help="a name of `nenya_nb models`, or timm:NAME")
        command.add_argument("--size", type=_size, default=(224, 224), help="224 or 480x640 px")
        command.add_argument("--channels", type=_positive, default=3, help="of the images (3)")
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
        raise ValueError("JupyterLab is not installed; run: pip install jupyterlab")
    lessons = Path(__file__).resolve().parent.parent / "nbs"
    here, start = lessons, f"/lab/tree/{FIRST_NOTEBOOK.as_posix()}"
    if not (lessons / FIRST_NOTEBOOK).exists():
        here, start = Path.cwd(), "/lab"
        print(f"The lessons lie in a checkout, not in the package; JupyterLab opens on {here}")
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


def _weightless(arguments: argparse.Namespace):
    "The backbone asked for, whose weights are never drawn, and the shape of its images."
    import torch

    from nenya_nb.models import get_backbone

    with torch.device("meta"):
        backbone = get_backbone(arguments.name, in_channels=arguments.channels)
    return backbone, [1, arguments.channels, *arguments.size]


def _shapes(arguments: argparse.Namespace) -> int:
    "The table of stages; nothing is computed."
    from nenya_nb.introspect import stage_table

    print(stage_table(*_weightless(arguments)))
    return 0


def _diagram(arguments: argparse.Namespace) -> int:
    "One page that needs no network and no kernel, or a picture for paper; nothing is computed."
    out = arguments.out or Path(f"{arguments.name.replace(':', '-').replace('/', '-')}.html")
    pictures = (".svg", ".png", ".pdf")
    if out.suffix not in (".html", *pictures):
        raise ValueError(f"--out is {out}; expected a name that ends in .html, .svg, .png or .pdf")
    from nenya_nb.introspect import trace
    from nenya_nb.widgets import ArchitectureDiagram

    graph = trace(*_weightless(arguments))
    if not graph.complete:
        raise ValueError(graph.error)
    drawn = ArchitectureDiagram(graph)
    if out.suffix in pictures:
        drawn.figure().savefig(out, bbox_inches="tight")
    else:
        drawn.to_html(out, title=arguments.name)
    print(f"Written to {out}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    "Trains, shows a progress bar, and writes history.csv, curves.png and checkpoints; alone or launched."
    recipe = _recipe(arguments.config) if arguments.config else None
    if arguments.config and (arguments.algorithm or arguments.backbone):
        raise ValueError(
            f"{arguments.config} names the algorithm and its backbone; leave out --algorithm and --backbone"
        )
    settings = {name: value for name in FIT if (value := getattr(arguments, name)) is not None}
    settings |= dict(resume=arguments.resume, progress=True)
    history, out = (_train_recipe if recipe else _train_algorithm)(arguments, settings, recipe)
    _say(f"{history}\nWritten to {out}: history.csv, curves.png, checkpoints")
    return 130 if history.state == "stopped" else 0


def _train_algorithm(arguments: argparse.Namespace, settings: dict, _):
    "Trains what --algorithm and --backbone, or a configuration, say; gives the history and the run folder."
    from nenya_nb import models
    from nenya_nb.core import seed_everything
    from nenya_nb.data import load_dataset
    from nenya_nb.training import fit

    kind, name = _algorithm_class(arguments.algorithm), arguments.data or "digits"
    train = load_dataset(name)
    seed_everything(settings.get("seed", 0))
    if arguments.config:
        algorithm = models.build(arguments.config)
    else:
        channels = train.images.shape[1]
        backbone = models.get_backbone(arguments.backbone or "resnet_tiny", in_channels=channels)
        algorithm = kind(backbone, **_sizes(kind, lambda: train))
    callbacks = _knn_monitor(train, lambda: load_dataset(name, "test"))
    out = arguments.out or Path("runs") / f"{type(algorithm).__name__.lower()}-{train.name}"
    return fit(algorithm, train, callbacks=callbacks, checkpoint_dir=out, **settings), out


def _train_recipe(arguments: argparse.Namespace, settings: dict, recipe):
    "Trains as a recipe says, but for what the command line says; gives the history and the run folder."
    name, callbacks = recipe.name, []
    if arguments.data:
        if arguments.data != recipe.data["name"]:  # its options and splits are those of its data
            recipe.data, recipe.splits = {"name": arguments.data}, {}
            name = f"{name}-{Path(arguments.data).stem}"
        if recipe.evaluate:
            test = partial(recipe.load, "test")
            callbacks = _knn_monitor(recipe.load("train"), test, **recipe.evaluate)
            recipe.evaluate = {}
    out = arguments.out or Path("runs") / name
    return recipe.run(out, callbacks=callbacks, **settings), out


def _sizes(kind: type, load_train) -> dict[str, int]:
    "What an algorithm must know of the training images: how many, and of how many classes or clusters."
    takes = inspect.signature(kind).parameters
    remembers = "length" in takes and takes["length"].default in (None, inspect.Parameter.empty)
    if not remembers and "num_classes" not in takes:
        return {}
    train = load_train()
    clusters = min(max(len(train) // 50, 2), 10_000)
    sizes = {"length": len(train)} if remembers else {}
    if "num_classes" in takes:
        sizes["num_classes"] = clusters if remembers else len(train.classes)
    return sizes


def _knn_monitor(train, load_test, k: int = 20, **options) -> list:
    "The k-NN monitor that the data allow, or none; says in one sentence what they do not."
    from nenya_nb.evaluation import KNNMonitor

    try:
        test = load_test()
    except (ValueError, FileNotFoundError) as error:
        return _say(f"Without k-NN accuracy, for want of test pictures: {error}") or []
    if min(int(part.targets.min()) for part in (train, test)) < 0:
        return _say("Without k-NN accuracy: the pictures have no classes.") or []
    if k > len(train):
        _say(f"k-NN with k={len(train)} in place of {k}: there are no more pictures.")
    return [KNNMonitor(train, test, k=min(k, len(train)), **options)]


def _say(text: str) -> None:
    "Prints, in one of all processes; before they know each other, the launcher says which this is."
    from nenya_nb.core import rank

    if int(os.environ.get("RANK", rank())) == 0:
        print(text, flush=True)


def _algorithm_class(name: str | None) -> type:
    "An algorithm by its name, in any case."
    from nenya_nb import models
    from nenya_nb.core import unknown_name

    name = name or "simclr"
    algorithms = {
        key.lower(): value
        for key, value in vars(models).items()
        if isinstance(value, type) and issubclass(value, models.Algorithm)
        if value not in (models.Algorithm, models.BaseModel)
    }
    if name.lower() not in algorithms:
        raise unknown_name("algorithm", name, algorithms)
    return algorithms[name.lower()]


def _recipe(path: Path):
    "The recipe in a file; None if the file holds an algorithm alone."
    import yaml

    from nenya_nb.recipes import is_recipe, read_recipe

    try:
        return read_recipe(path) if is_recipe(path) else None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None


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
    told = None if arguments.algorithm or arguments.backbone else _trained(arguments.weights)
    if recipe:
        model = recipe.build()
    elif arguments.config:
        model = models.build(arguments.config)
    elif told:
        model = models.build(told, trusted=False)
    else:
        channels = data[parts[0]].images.shape[1]
        backbone = models.get_backbone(arguments.backbone or "resnet_tiny", in_channels=channels)
        kind = _algorithm_class(arguments.algorithm)
        train = partial(load_dataset, name, **options)
        model = kind(backbone, **_sizes(kind, train))
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


def _trained(folder: Path) -> dict | None:
    "What was trained, as a run folder or one of `save_pretrained` has it, without files of weights; None if it is not there."
    from nenya_nb.models.hub import without_files

    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return without_files(found if "type" in found else found.get("algorithm_config"))


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
