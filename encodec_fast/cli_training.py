"""The `encodec-fast train` command."""

from __future__ import annotations

import argparse
from typing import Any

from encodec_fast.console import add_command


def add_train(commands: Any) -> None:
    """Adds the command to the subparsers `commands`."""
    command = add_command(
        commands, "train", _train, "train a codec or an entropy model (docs/training.md)"
    )
    command.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or one of ours such as nano_24khz"
    )
    command.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="settings that replace those of the file, such as optimizer.lr=1e-4",
    )


def _train(args: argparse.Namespace) -> None:
    try:
        from encodec_fast.training.start import train
    except ImportError as error:
        raise ValueError(f"training needs `pip install 'encodec-fast[train]'` ({error})") from None
    train(args.config, args.overrides)
