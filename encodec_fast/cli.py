"""The `encodec-fast` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import encodec_fast
from encodec_fast import ecdc, files, info
from encodec_fast.cli_evaluation import add_evaluate
from encodec_fast.cli_models import add_models
from encodec_fast.cli_options import (
    add_audio_out,
    add_coding,
    add_device,
    add_entropy,
    add_files,
    add_lm_checkpoint,
    add_strict,
    add_threads,
)
from encodec_fast.cli_tokenize import add_tokenize
from encodec_fast.cli_training import add_train
from encodec_fast.codec import Codec
from encodec_fast.console import add_command, beside, one_line, progress_bar, run, warn_clipping

_AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0, 1 for errors, 2 for wrong
    usage, 3 for a damaged file of which the rest was written, and for recordings that failed."""
    args = _parser().parse_args(arguments)
    return run(lambda: args.command(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("encodec-fast", description="EnCodec neural audio codec.")
    parser.add_argument("--version", action="version", version=encodec_fast.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = add_command(commands, "compress", _compress, "audio file to .ecdc file")
    add_files(command, "audio file (- for stdin)", "default: IN with the ending .ecdc")
    add_coding(command)
    add_entropy(command)
    command.add_argument(
        "--container",
        type=int,
        choices=(0, 1),
        default=1,
        help="version of the file; 0: the reference's, without checksums (default: 1)",
    )
    add_lm_checkpoint(command)
    add_threads(command)
    add_device(command)

    command = add_command(commands, "decompress", _decompress, ".ecdc file to audio file")
    add_files(command, ".ecdc file (- for stdin)", ".wav or .flac; default: IN_decompressed.wav")
    command.add_argument("-m", "--model", help="name or program file; default: as IN says")
    command.add_argument(
        "--start", metavar="S", type=float, default=0.0, help="decode from there, in seconds"
    )
    command.add_argument("--duration", metavar="S", type=float, help="decode no more than that")
    command.add_argument(
        "--exact",
        action="store_true",
        help="with --start: decode all before it, too, for the very samples of the whole file",
    )
    add_strict(command)
    add_lm_checkpoint(command)
    add_threads(command)
    add_device(command)
    add_audio_out(command)

    command = add_command(
        commands, "roundtrip", _roundtrip, "compress and decompress, to hear the loss"
    )
    add_files(command, "audio file (- for stdin)", ".wav or .flac; default: IN_roundtrip.wav")
    add_coding(command)
    add_threads(command)
    add_device(command)
    add_audio_out(command)

    command = add_command(commands, "info", _info, "describe an .ecdc file")
    command.add_argument("input", metavar="FILE", help=".ecdc file (- for stdin)")
    command.add_argument("-m", "--model", help="name or program file; default: as FILE says")
    command.add_argument("--json", action="store_true", help="print a JSON object")

    _add_stream(commands)

    command = add_command(commands, "bench", _bench, "measure the speed of a model on this machine")
    add_coding(command)
    add_threads(command)
    command.add_argument(
        "--seconds", metavar="S", type=float, default=10.0, help="length of audio; default: 10"
    )
    command.add_argument("--frames", action="store_true", help="also time one frame per call")
    command.add_argument("--profile", action="store_true", help="also time each operation")
    command.add_argument("--json", action="store_true", help="print a JSON object")

    add_models(commands)
    add_tokenize(commands)
    add_train(commands)
    add_evaluate(commands)
    return parser


def _add_stream(commands: Any) -> None:
    help = "live pipes: raw PCM on stdin to an .ecdc file on stdout, and the reverse"
    actions = commands.add_parser("stream", help=help, description=help).add_subparsers(
        required=True, metavar="ACTION"
    )
    action = add_command(
        actions, "encode", _stream_encode, "raw PCM on stdin, .ecdc chunks on stdout"
    )
    add_coding(action)
    add_entropy(action)
    _add_format(action)
    action.add_argument("--rate", metavar="HZ", type=int, help="of the PCM; default: the model's")
    action.add_argument("--channels", metavar="N", type=int, help="default: the model's")
    action.add_argument(
        "--chunk-ms",
        metavar="MS",
        type=float,
        default=1000.0,
        help="length of a chunk, at least a frame; default: 1000",
    )
    action.add_argument(
        "--low-latency", action="store_true", help="no start-up delay, another beginning"
    )
    action = add_command(
        actions, "decode", _stream_decode, ".ecdc chunks on stdin, raw PCM on stdout"
    )
    action.add_argument("-m", "--model", help="name or program file; default: as the file says")
    _add_format(action)
    add_strict(action)


def _add_format(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format", choices=("s16le", "f32le"), default="s16le", help="PCM; default: s16le"
    )


def _compress(args: argparse.Namespace) -> None:
    target = _target(args, ecdc.SUFFIX)
    if isinstance(target, (str, Path)) and Path(target).suffix.lower() in _AUDIO_SUFFIXES:
        raise ValueError(
            f"output {target}: compress writes {ecdc.SUFFIX} files; "
            "to get audio again, use `encodec-fast roundtrip`"
        )
    with progress_bar() as progress:
        files.compress_file(
            Codec.load(
                args.model,
                threads=args.threads,
                lm_checkpoint=args.lm_checkpoint,
                device=args.device,
            ),
            _source(args),
            target,
            bandwidth=args.bandwidth,
            entropy=args.entropy,
            version=args.container,
            overwrite=args.force,
            progress=progress,
        )


def _decompress(args: argparse.Namespace) -> None:
    with progress_bar() as progress:
        written = files.decompress_file(
            _source(args),
            _target(args, "_decompressed.wav"),
            model=args.model,
            start=args.start,
            duration=args.duration,
            exact=args.exact,
            strict=args.strict,
            lm_checkpoint=args.lm_checkpoint,
            encoding="float32" if args.float else "pcm16",
            rescale=args.rescale,
            overwrite=args.force,
            threads=args.threads,
            device=args.device,
            progress=progress,
        )
    warn_clipping(written, args.rescale or args.float)


def _roundtrip(args: argparse.Namespace) -> None:
    with progress_bar() as progress:
        written = files.roundtrip_file(
            Codec.load(args.model, threads=args.threads, device=args.device),
            _source(args),
            _target(args, "_roundtrip.wav"),
            bandwidth=args.bandwidth,
            encoding="float32" if args.float else "pcm16",
            rescale=args.rescale,
            overwrite=args.force,
            progress=progress,
        )
    warn_clipping(written, args.rescale or args.float)


def _stream_encode(args: argparse.Namespace) -> None:
    from encodec_fast import pipes  # only here: start-up time

    pipes.encode_pipe(
        Codec.load(args.model),
        _stdin(),
        _stdout("the codes"),
        sample_format=args.format,
        sample_rate=args.rate,
        channels=args.channels,
        bandwidth=args.bandwidth,
        entropy=args.entropy,
        chunk=args.chunk_ms / 1000,
        start="low_latency" if args.low_latency else "exact",
    )


def _stream_decode(args: argparse.Namespace) -> None:
    from encodec_fast import pipes  # only here: start-up time

    pipes.decode_pipe(
        _stdin(),
        _stdout("the samples"),
        model=args.model,
        sample_format=args.format,
        strict=args.strict,
    )


def _stdin() -> IO[bytes]:
    if sys.stdin is None:
        raise OSError("stdin is closed")
    return sys.stdin.buffer


def _stdout(what: str) -> IO[bytes]:
    if sys.stdout is None or sys.stdout.isatty():
        raise OSError(f"stdout is closed or a terminal: send {what} to a file or a pipe")
    return sys.stdout.buffer


def _source(args: argparse.Namespace) -> Any:
    return args.input if args.input != "-" else _stdin()


def _target(args: argparse.Namespace, ending: str) -> Any:
    output = args.output
    if output is None and args.input != "-":
        return beside(args.input, ending)
    if output not in (None, "-"):
        return output
    if sys.stdout is None or sys.stdout.isatty():
        raise OSError("stdout is closed or a terminal: name an output file")
    return sys.stdout.buffer


def _info(args: argparse.Namespace) -> None:
    about = info.info(_source(args), args.model)
    if args.json:
        print(json.dumps({"file": args.input, **asdict(about)}))
        return
    print(f"model      {ecdc.shown_model(about.model)} (ECDC version {about.version})")
    entropy = {"none": "", "static": ", static tables", "lm": ", language model"}[about.entropy]
    print(f"codebooks  {about.n_codebooks}{entropy}")
    if about.chunks is not None:
        seconds = "" if about.chunk_seconds is None else f" of {about.chunk_seconds:g} s"
        print(f"chunks     {about.chunks}{seconds}")
    if about.damaged or not about.finished:
        state = ["damaged"] * about.damaged + ["without an end"] * (not about.finished)
        print(f"state      {', '.join(state)}")
    for key, value in about.metadata.items():
        print(f"metadata   {one_line(key)}: {one_line(str(value))}")
    if about.audio_length is not None:
        print(f"samples    {about.audio_length}")
    if about.duration is None or about.ratio is None:
        missing = about.sample_rate is None
        hint = " (for more, import the model or name it with -m)" if missing else ""
        print(f"size       {about.file_size} bytes{hint}")
        return
    channels = "mono" if about.channels == 1 else f"{about.channels} channels"
    print(f"duration   {about.duration:.3f} s ({about.sample_rate} Hz, {channels})")
    print(f"bitrate    {about.kbps:.2f} kbps")
    print(f"size       {about.file_size} bytes, {about.ratio:.1f} times smaller than 16-bit PCM")


def _bench(args: argparse.Namespace) -> None:
    from encodec_fast import bench  # only here: start-up time

    codec = Codec.load(args.model, threads=args.threads)
    report = bench.measure(codec, args.bandwidth, args.seconds, args.frames, args.profile)
    print(json.dumps(asdict(report)) if args.json else bench.as_text(report))


if __name__ == "__main__":
    sys.exit(main())
