"""Options that several commands share."""

from __future__ import annotations

import argparse

from encodec_fast.chunk_header import ENTROPIES

DEFAULT_MODEL = "nano_24khz"
DEFAULT_BANDWIDTH = 6.0


def add_files(command: argparse.ArgumentParser, source: str, target: str) -> None:
    """IN, OUT and --force; what IN and OUT are."""
    command.add_argument("input", metavar="IN", help=source)
    command.add_argument("output", metavar="OUT", nargs="?", help=f"{target} (- for stdout)")
    command.add_argument("-f", "--force", action="store_true", help="overwrite OUT")


def add_coding(command: argparse.ArgumentParser) -> None:
    """The model and its bandwidth."""
    command.add_argument(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        help=f"name or program file; default: {DEFAULT_MODEL}",
    )
    command.add_argument(
        "-b",
        "--bandwidth",
        metavar="KBPS",
        type=float,
        default=DEFAULT_BANDWIDTH,
        help=f"one that the model supports; default: {DEFAULT_BANDWIDTH:g}",
    )


def add_entropy(command: argparse.ArgumentParser, where: str = "") -> None:
    """How codes are packed; where: there is a choice."""
    command.add_argument(
        "--entropy",
        choices=ENTROPIES,
        default="none",
        help=f"{where}none: packed bits; static: a table per codebook; lm: a language model, "
        "smallest (default: none)",
    )


def add_lm_checkpoint(command: argparse.ArgumentParser) -> None:
    """The language model of version 0."""
    command.add_argument(
        "--lm-checkpoint",
        metavar="LM",
        help="for the reference's container with a language model: Meta's file or its name "
        "(needs encodec-fast[torch])",
    )


def add_strict(command: argparse.ArgumentParser) -> None:
    """What to do with damage."""
    command.add_argument(
        "--strict", action="store_true", help="refuse a damaged file instead of saving its rest"
    )


def add_threads(command: argparse.ArgumentParser) -> None:
    """For segments and language models."""
    command.add_argument(
        "-t", "--threads", type=int, default=1, help="for segments and language models; default: 1"
    )


def add_audio_out(command: argparse.ArgumentParser) -> None:
    """How audio is written."""
    command.add_argument("-r", "--rescale", action="store_true", help="scale loud output down")
    command.add_argument("--float", action="store_true", help="32-bit float .wav, not clipped")


def add_device(command: argparse.ArgumentParser) -> None:
    """Where the model runs."""
    command.add_argument(
        "--device",
        metavar="D",
        default="cpu",
        help="cpu, cuda or cuda:N, with the same result (docs/cuda.md); default: cpu",
    )
