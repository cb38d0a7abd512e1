"""`python -m encodec_fast`: takes the command lines of the reference implementation unchanged.

    python -m encodec_fast [-b 1.5|3|6|12|24] [-q] [-l] [-f] [-r] [-s SUFFIX] IN [OUT]

An `.ecdc` input is decompressed, any other input compressed, or, if the output is a sound file,
both. The models are Meta's, imported once with `encodec-fast models import`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from encodec_fast import console, container, ecdc, files
from encodec_fast.codec import Codec
from encodec_fast.ecdc import SUFFIX

# Of the released models, downloaded once.
LANGUAGE_MODELS = {"encodec_24khz": "encodec_lm_24khz", "encodec_48khz": "encodec_lm_48khz"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0, 1 for errors, 2 for wrong
    usage, 3 for a damaged file of which the rest was written."""
    args = _parser().parse_args(arguments)
    return console.run(lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m encodec_fast",
        description="Decompresses an .ecdc file; compresses any other file, or, with an audio "
        "file as OUT, compresses and decompresses it.",
    )
    parser.add_argument("input", metavar="IN", type=Path)
    parser.add_argument("output", metavar="OUT", type=Path, nargs="?")
    parser.add_argument(
        "-b", "--bandwidth", type=float, default=6.0, choices=[1.5, 3.0, 6.0, 12.0, 24.0]
    )
    parser.add_argument("-q", "--hq", action="store_true", help="48 kHz stereo model")
    parser.add_argument(
        "-l", "--lm", action="store_true", help="entropy coding with Meta's language model"
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite OUT")
    parser.add_argument("-s", "--decompress_suffix", default="_decompressed", metavar="SUFFIX")
    parser.add_argument("-r", "--rescale", action="store_true", help="scale loud output down")
    return parser


def _language_model_of(source: Path) -> str | None:
    """Meta's language model that a version 0 file was written with, if any."""
    if not source.is_file():  # a pipe can be read once
        return None
    with source.open("rb") as file:
        header = container.read_header(file, str(source))
    if not isinstance(header, ecdc.Header) or not header.language_model:
        return None
    return LANGUAGE_MODELS.get(header.model)


def _run(args: argparse.Namespace) -> None:
    source, target = args.input, args.output
    if source.suffix.lower() == SUFFIX:
        if target is None:
            target = console.beside(source, args.decompress_suffix + ".wav")
        with console.progress_bar() as progress:
            written = files.decompress_file(
                source,
                target,
                lm_checkpoint=_language_model_of(source),
                rescale=args.rescale,
                overwrite=args.force,
                progress=progress,
            )
        console.warn_clipping(written, args.rescale)
        return
    if target is None:
        target = console.beside(source, SUFFIX)
    name = "encodec_48khz" if args.hq else "encodec_24khz"
    compresses = target.suffix.lower() == SUFFIX
    lm = LANGUAGE_MODELS[name] if args.lm and compresses else None
    codec = Codec.load(name, lm_checkpoint=lm)
    with console.progress_bar() as progress:
        if compresses:
            files.compress_file(
                codec,
                source,
                target,
                bandwidth=args.bandwidth,
                entropy="lm" if args.lm else "none",
                version=0,
                overwrite=args.force,
                progress=progress,
            )
            return
        written = files.roundtrip_file(
            codec,
            source,
            target,
            bandwidth=args.bandwidth,
            rescale=args.rescale,
            overwrite=args.force,
            progress=progress,
        )
    console.warn_clipping(written, args.rescale)


if __name__ == "__main__":
    sys.exit(main())
