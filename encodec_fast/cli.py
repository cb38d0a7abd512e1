"""The `encodec-fast` command."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import encodec_fast
from encodec_fast import ecdc, files, program, store
from encodec_fast.codec import Codec
from encodec_fast.console import beside, one_line, progress_bar, run, say, warn_clipping
from encodec_fast.output import OutputFile

DEFAULT_MODEL = "nano_24khz"
DEFAULT_BANDWIDTH = 6.0
_AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0, 1 for errors, 2 for wrong usage."""
    args = _parser().parse_args(arguments)
    return run(lambda: args.command(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("encodec-fast", description="EnCodec neural audio codec.")
    parser.add_argument("--version", action="version", version=encodec_fast.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = _add(commands, "compress", _compress, "audio file to .ecdc file")
    _add_files(command, "audio file (- for stdin)", "default: IN with the ending .ecdc")
    _add_coding(command)
    _add_threads(command)

    command = _add(commands, "decompress", _decompress, ".ecdc file to audio file")
    _add_files(command, ".ecdc file (- for stdin)", ".wav or .flac; default: IN_decompressed.wav")
    command.add_argument("-m", "--model", help="name or program file; default: as IN says")
    _add_threads(command)
    _add_audio_out(command)

    command = _add(commands, "roundtrip", _roundtrip, "compress and decompress, to hear the loss")
    _add_files(command, "audio file (- for stdin)", ".wav or .flac; default: IN_roundtrip.wav")
    _add_coding(command)
    _add_threads(command)
    _add_audio_out(command)

    command = _add(commands, "info", _info, "describe an .ecdc file")
    command.add_argument("input", metavar="FILE", help=".ecdc file (- for stdin)")
    command.add_argument("-m", "--model", help="name or program file; default: as FILE says")
    command.add_argument("--json", action="store_true", help="print a JSON object")

    command = _add(commands, "bench", _bench, "measure the speed of a model on this machine")
    _add_coding(command)
    _add_threads(command)
    command.add_argument(
        "--seconds", metavar="S", type=float, default=10.0, help="length of audio; default: 10"
    )
    command.add_argument("--frames", action="store_true", help="also time one frame per call")
    command.add_argument("--profile", action="store_true", help="also time each operation")
    command.add_argument("--json", action="store_true", help="print a JSON object")

    command = _add(commands, "models", _list_models, "list models, import models")
    actions = command.add_subparsers(metavar="[ACTION]")
    action = _add(
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
    return parser


def _add(
    commands: Any, name: str, handler: Callable[[argparse.Namespace], None], help: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    command.set_defaults(command=handler)
    return command


def _add_files(command: argparse.ArgumentParser, source: str, target: str) -> None:
    command.add_argument("input", metavar="IN", help=source)
    command.add_argument("output", metavar="OUT", nargs="?", help=f"{target} (- for stdout)")
    command.add_argument("-f", "--force", action="store_true", help="overwrite OUT")


def _add_coding(command: argparse.ArgumentParser) -> None:
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


def _add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-t", "--threads", type=int, default=1, help="for models that work by segments; default: 1"
    )


def _add_audio_out(command: argparse.ArgumentParser) -> None:
    command.add_argument("-r", "--rescale", action="store_true", help="scale loud output down")
    command.add_argument("--float", action="store_true", help="32-bit float .wav, not clipped")


def _compress(args: argparse.Namespace) -> None:
    target = _target(args, ecdc.SUFFIX)
    if isinstance(target, (str, Path)) and Path(target).suffix.lower() in _AUDIO_SUFFIXES:
        raise ValueError(
            f"output {target}: compress writes {ecdc.SUFFIX} files; "
            "to get audio again, use `encodec-fast roundtrip`"
        )
    with progress_bar() as progress:
        files.compress_file(
            Codec.load(args.model, threads=args.threads),
            _source(args),
            target,
            bandwidth=args.bandwidth,
            overwrite=args.force,
            progress=progress,
        )


def _decompress(args: argparse.Namespace) -> None:
    with progress_bar() as progress:
        written = files.decompress_file(
            _source(args),
            _target(args, "_decompressed.wav"),
            model=args.model,
            encoding="float32" if args.float else "pcm16",
            rescale=args.rescale,
            overwrite=args.force,
            threads=args.threads,
            progress=progress,
        )
    warn_clipping(written, args.rescale or args.float)


def _roundtrip(args: argparse.Namespace) -> None:
    with progress_bar() as progress:
        written = files.roundtrip_file(
            Codec.load(args.model, threads=args.threads),
            _source(args),
            _target(args, "_roundtrip.wav"),
            bandwidth=args.bandwidth,
            encoding="float32" if args.float else "pcm16",
            rescale=args.rescale,
            overwrite=args.force,
            progress=progress,
        )
    warn_clipping(written, args.rescale or args.float)


def _source(args: argparse.Namespace) -> Any:
    if args.input != "-":
        return args.input
    if sys.stdin is None:
        raise OSError("stdin is closed")
    return sys.stdin.buffer


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
    about = files.info(_source(args), args.model)
    if args.json:
        import json

        print(json.dumps({"file": args.input, **asdict(about)}))
        return
    print(f"model      {ecdc.shown_model(about.model)} (ECDC version {about.version})")
    print(f"codebooks  {about.n_codebooks}{', language model' if about.language_model else ''}")
    print(f"samples    {about.audio_length}")
    if about.duration is None:
        print(f"size       {about.file_size} bytes (for more, import the model or name it with -m)")
        return
    channels = "mono" if about.channels == 1 else f"{about.channels} channels"
    print(f"duration   {about.duration:.3f} s ({about.sample_rate} Hz, {channels})")
    print(f"bitrate    {about.kbps:.2f} kbps")
    print(f"size       {about.file_size} bytes, {about.ratio:.1f} times smaller than 16-bit PCM")


def _bench(args: argparse.Namespace) -> None:
    from encodec_fast import bench  # only here: start-up time

    codec = Codec.load(args.model, threads=args.threads)
    report = bench.measure(codec, args.bandwidth, args.seconds, args.frames, args.profile)
    if args.json:
        import json

        print(json.dumps(asdict(report)))
        return
    print(bench.as_text(report))


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
    if _is_program(Path(args.input)):
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


def _model_path(name: str) -> Path:
    bundled = [stored.name for stored in store.list_programs() if stored.origin == "bundled"]
    if name in bundled:
        raise ValueError(f"{name} is a bundled model: choose another --name")
    store.models_dir().mkdir(parents=True, exist_ok=True)
    return store.models_dir() / (store.check_name(name) + store.SUFFIX)


def _is_program(path: Path) -> bool:
    """Whether a file claims to be a program, sound or not."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return program.METADATA_KEY.encode() in file.read(program.MAX_HEADER + 8)


if __name__ == "__main__":
    sys.exit(main())
