"""The `encodec-fast tokenize` command."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from encodec_fast.cli_options import add_coding, add_device, add_entropy
from encodec_fast.console import add_command, one_line, say

if TYPE_CHECKING:
    from encodec_fast.batch.run import Progress

FAILED_STATUS = 3
_SHOWN_FAILURES = 10


def add_tokenize(commands: Any) -> None:
    """Adds the command to the subparsers `commands`."""
    command = add_command(
        commands, "tokenize", _tokenize, "code a data set of recordings (docs/tokenize.md)"
    )
    command.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="folder, pattern, audio file, .csv, .jsonl, .txt, .tar, .parquet, saved Hugging Face "
        "data set, or URL of one",
    )
    command.add_argument("out", metavar="OUT", help="folder, new or of an earlier call")
    add_coding(command)
    command.add_argument(
        "--format",
        choices=("npy", "safetensors", "parquet", "webdataset", "ecdc"),
        default="npy",
        help="of the output (docs/tokens.md); default: npy",
    )
    add_entropy(command, "of format ecdc; ")
    command.add_argument(
        "-t", "--threads", metavar="N", type=int, help="default: one for each core"
    )
    command.add_argument(
        "--shard",
        metavar="I/N",
        type=_shard,
        default=(0, 1),
        help="do the job I of an array of N, counted from 0; all write into OUT",
    )
    command.add_argument(
        "--shard-size", metavar="N", type=int, help="recordings of an output file; default: 1000"
    )
    command.add_argument(
        "--audio-column", metavar="NAME", default="audio", help="of tables; default: audio"
    )
    command.add_argument("--retry-failed", action="store_true", help="try failures again")
    command.add_argument("--engine", choices=("local", "ray"), default="local")
    add_device(command)


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    try:
        return int(index), int(count)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected I/N, found {text!r}") from None


def _tokenize(args: argparse.Namespace) -> int:
    from encodec_fast.batch.settings import SHARD_SIZE  # only here: start-up time
    from encodec_fast.batch.tokenize import tokenize

    with _progress() as progress:
        report = tokenize(
            args.sources,
            args.out,
            args.model,
            args.bandwidth,
            args.format,
            entropy=args.entropy,
            threads=args.threads,
            shard=args.shard,
            shard_size=SHARD_SIZE if args.shard_size is None else args.shard_size,
            audio_column=args.audio_column,
            retry_failed=args.retry_failed,
            engine=args.engine,
            device=args.device,
            progress=progress,
        )
    done = report.items - report.resumed
    if report.resumed and not done and not args.retry_failed:
        say(f"{args.out}: finished before")
    elif report.resumed:
        say(f"{args.out}: {report.resumed} recordings were there from an earlier call")
    say(
        f"{report.items} recordings, {report.hours:.2f} h; {done} of them coded "
        f"in {report.seconds:.0f} s; {len(report.failures)} failed"
    )
    for failure in report.failures[:_SHOWN_FAILURES]:
        say(f"failed: {one_line(failure.source)}: {one_line(failure.reason)}")
    if len(report.failures) > _SHOWN_FAILURES:
        say(f"{len(report.failures) - _SHOWN_FAILURES} more failures are listed in {args.out}")
    return FAILED_STATUS if report.failures else 0


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """A bar on a terminal: hours done, hours of audio an hour, failures, time left."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm  # only here: start-up time

    started = time.monotonic()
    layout = "{percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]"
    with tqdm(total=1.0, bar_format=layout, leave=False) as bar:

        def update(progress: Progress) -> None:
            hours = progress.seconds / 3600
            rate = progress.seconds / max(time.monotonic() - started, 1e-3)
            bar.set_postfix_str(
                f"{hours:.2f} h, {rate:.0f} h/h, {progress.failed} failed", refresh=False
            )
            bar.update(progress.share - bar.n)

        yield update
