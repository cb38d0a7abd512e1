"""The `encodec-fast models` command: what is installed, and checkpoints to programs."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from encodec_fast import program, store
from encodec_fast.console import add_command, one_line, say
from encodec_fast.output import OutputFile


def add_models(commands: Any) -> None:
    """Adds the command to the subparsers `commands`."""
    command = add_command(commands, "models", _list_models, "list models, import models")
    actions = command.add_subparsers(metavar="[ACTION]")
    action = add_command(
        actions, "import", _import_model, "convert a checkpoint once; then it needs no PyTorch"
    )
    action.add_argument("input", metavar="CHECKPOINT", help="checkpoint, or a program to copy")
    action.add_argument("--name", help="name of the new model; default: its configuration's")
    action.add_argument("--config", help="configuration; default: found from the checkpoint")
    action.add_argument(
        "--weights",
        choices=("float32", "float16", "bf16"),
        default="float32",
        help="how weights are stored; bf16: also in memory, for live streams (default: float32)",
    )
    action.add_argument("-f", "--force", action="store_true", help="replace an existing model")
    action = add_command(
        actions, "import-lm", _import_lm, "convert a model's language model, for --entropy lm"
    )
    action.add_argument("input", metavar="CHECKPOINT", help="Meta's file, or its name")
    action.add_argument("--model", help="whose it is; default: found from the file's name")
    action.add_argument(
        "--weights", choices=("float32", "bf16"), default="float32", help="default: float32"
    )
    action.add_argument("-f", "--force", action="store_true", help="replace an existing one")


def _list_models(args: argparse.Namespace) -> None:
    print(f"{'name':20} {'Hz':>6} {'ch':>2} {'MB':>6} {'origin':8} kbps")
    for stored in store.list_programs():
        try:
            header = program.read_header(stored.path)
        except (ValueError, OSError) as error:
            say(f"warning: {one_line(error)}")
            continue
        megabytes = stored.path.stat().st_size / 1e6
        rates = " ".join(f"{bandwidth:g}" for bandwidth in header.bandwidths)
        print(
            f"{stored.name:20} {header.sample_rate:6} {header.channels:2} {megabytes:6.1f} "
            f"{stored.origin:8} {rates}"
        )


def _import_model(args: argparse.Namespace) -> None:
    if program.is_program(Path(args.input)):
        name = program.Program.load(args.input).header.name
        if args.name not in (None, name) or args.config or args.weights != "float32":
            raise ValueError(f"{args.input} is a program named {name}, which cannot be changed")
        with OutputFile(_model_path(name), args.force) as output:
            shutil.copyfile(args.input, output.path)
        print(f"imported {name}")
        return
    try:
        from encodec_fast.models.checkpoints import load_checkpoint
        from encodec_fast.models.export import export_model
    except ImportError as error:
        raise ValueError(
            f"importing a checkpoint needs `pip install 'encodec-fast[torch]'` ({error})"
        ) from None
    if args.name is not None:
        _model_path(args.name)  # before the work
    model = load_checkpoint(args.input, args.config)
    if args.name is not None:
        model.config = replace(model.config, name=args.name)
    with OutputFile(_model_path(model.config.name), args.force) as output:
        export_model(model, output.path, {"bf16": "bfloat16"}.get(args.weights, args.weights))
    print(f"imported {model.config.name}")


def _import_lm(args: argparse.Namespace) -> None:
    try:
        from encodec_fast.models.checkpoints import load_language_model
        from encodec_fast.models.entropy_export import export_entropy_model
    except ImportError as error:
        raise ValueError(
            f"importing a checkpoint needs `pip install 'encodec-fast[torch]'` ({error})"
        ) from None
    lm = load_language_model(args.input, args.model)
    name = lm.config.name
    store.models_dir().mkdir(parents=True, exist_ok=True)
    target = store.models_dir() / (store.check_name(name) + store.ENTROPY_SUFFIX)
    dtype = {"bf16": "bfloat16"}.get(args.weights, args.weights)
    with OutputFile(target, args.force) as output:
        export_entropy_model(name, lm, None, output.path, dtype)
    print(f"imported the language model of {name}")


def _model_path(name: str) -> Path:
    bundled = [stored.name for stored in store.list_programs() if stored.origin == "bundled"]
    if name in bundled:
        raise ValueError(f"{name} is a bundled model: choose another --name")
    store.models_dir().mkdir(parents=True, exist_ok=True)
    return store.models_dir() / (store.check_name(name) + store.SUFFIX)
