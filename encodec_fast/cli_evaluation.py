"""The `encodec-fast evaluate` command."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from encodec_fast.console import add_command, progress_bar, say
from encodec_fast.output import OutputFile

JSON_NAME = "evaluation.json"
PAGE_NAME = "index.html"


def add_evaluate(commands: Any) -> None:
    """Adds the command to the subparsers `commands`."""
    command = add_command(
        commands, "evaluate", _evaluate, "measure models on recordings, beside Opus"
    )
    command.add_argument(
        "models", metavar="MODEL", nargs="+", help="name, program file, or checkpoint"
    )
    command.add_argument(
        "data",
        metavar="DATA",
        help="folder of recordings, with or without a MANIFEST.csv; a manifest (.csv, .jsonl); "
        "or a recording",
    )
    command.add_argument(
        "-b",
        "--bandwidth",
        metavar="KBPS",
        type=float,
        action="append",
        help="may be repeated; default: all of each model",
    )
    command.add_argument("--split", default="test", help="rows of the manifest; default: test")
    command.add_argument("--kind", help="of recordings without one, e.g. speech")
    command.add_argument("--limit", metavar="N", type=int, help="recordings of each kind")
    command.add_argument(
        "--seconds", metavar="S", type=float, default=60.0, help="of each recording; default: 60"
    )
    command.add_argument(
        "--out", metavar="DIR", help=f"write {JSON_NAME} and {PAGE_NAME} (replaces them)"
    )
    command.add_argument("--no-audio", action="store_true", help="no players on the page")
    command.add_argument("--markdown", metavar="FILE", help="write the tables there, not to stdout")
    command.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        help="processes; default: one for each core",
    )
    command.add_argument("--visqol", metavar="PROGRAM", help="ViSQOL's program, to run it as well")
    command.add_argument("--visqol-model", metavar="FILE", help="ViSQOL's quality model")


def _evaluate(args: argparse.Namespace) -> None:
    from encodec_fast.evaluation.run import evaluate  # only here: start-up time
    from encodec_fast.evaluation.table import as_markdown

    page = None
    targets = []
    if args.out is not None:
        try:
            from encodec_fast.evaluation.page import Page
        except ImportError as error:
            raise ValueError(
                f"--out: the page needs `pip install 'encodec-fast[evaluate]'` ({error})"
            ) from None
        Path(args.out).mkdir(parents=True, exist_ok=True)
        page = Page(audio=not args.no_audio)
        targets += [Path(args.out) / JSON_NAME, Path(args.out) / PAGE_NAME]
    if args.markdown is not None:
        targets.append(Path(args.markdown))
    with _outputs(targets) as outputs:
        with progress_bar("recording") as progress:
            report = evaluate(
                args.models,
                args.data,
                split=args.split,
                kind=args.kind,
                limit=args.limit,
                bandwidths=args.bandwidth,
                seconds=args.seconds,
                jobs=args.jobs,
                visqol=args.visqol,
                visqol_model=args.visqol_model,
                items=0 if page is None else page.items,
                listen=None if page is None else page.add,
                progress=progress,
            )
        texts = [] if page is None else [report.to_json(), page.html(report)]
        if args.markdown is not None:
            texts.append(as_markdown(report))
        for output, text in zip(outputs, texts, strict=True):
            # Names of files need not be text.
            output.path.write_text(text, encoding="utf-8", errors="backslashreplace")
    if args.markdown is None:
        print(as_markdown(report), end="")
    if skipped := len(report.skipped):
        count = skipped + len({figure.path for figure in report.figures})
        say(f"warning: {skipped} of {count} recordings skipped: the report says why")


@contextlib.contextmanager
def _outputs(targets: Sequence[Path]) -> Iterator[list[OutputFile]]:
    """Files that appear together at the end. They are opened before the run, so that a place that
    cannot be written costs no time."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(OutputFile(target, overwrite=True)) for target in targets]
