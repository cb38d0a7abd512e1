"""`encodec_fast.tokenize`: a data set to codes."""

from __future__ import annotations

import os
from collections.abc import Callable

from encodec_fast.batch.manifest import Report
from encodec_fast.batch.run import Progress, run_locally
from encodec_fast.batch.settings import SHARD_SIZE, Settings, available_threads
from encodec_fast.batch.sources import AUDIO_COLUMN, Sources, list_items
from encodec_fast.codec import Codec

ENGINES = ("local", "ray")


def tokenize(
    sources: Sources,
    out: str | os.PathLike[str],
    codec: Codec | str | os.PathLike[str] = "nano_24khz",
    bandwidth: float | None = 6.0,
    format: str = "npy",
    *,
    entropy: str = "none",
    threads: int | None = None,
    shard: tuple[int, int] = (0, 1),
    shard_size: int = SHARD_SIZE,
    audio_column: str = AUDIO_COLUMN,
    retry_failed: bool = False,
    engine: str = "local",
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Codes the recordings of a data set into the folder `out` (docs/tokenize.md).

    sources: see batch.sources.list_items: a folder, pattern, file, manifest, archive, table, URL or
    datasets.Dataset, or several; codec: or the name of a model or a program file; bandwidth: kbps,
    None for all codebooks; format: npy, safetensors, parquet, webdataset or ecdc (docs/tokens.md);
    entropy: of format ecdc, "none", "static" or "lm" (docs/entropy.md);
    threads: default one for each core (of each actor on a cluster: one); shard: (i, n), the job i
    of n, from 0, which share `out`; shard_size: items of an output file; audio_column: of tables;
    engine: "local", or "ray" for a cluster; device: "cpu", "cuda" or "cuda:N" (docs/cuda.md), of
    each worker "cpu" or "cuda"; a Codec has its own; progress: called as items end.

    Each recording gets the codes that it has alone. One that cannot be coded is a failure in the
    report, and does not end the run. A call that was ended, even by a kill, is taken up where it
    was by the same call, and one that had finished is recognised; `retry_failed` tries failures
    again. Raises ValueError for arguments that do not fit, sources without recordings or with a key
    twice, and an `out` with other contents, or where those of a finished run are gone; OSError for
    what cannot be read or written.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: expected {' or '.join(ENGINES)}, found {engine!r}")
    if engine == "ray" and isinstance(codec, Codec):
        raise ValueError("codec: engine ray needs a name or a program file, which workers load")
    if engine == "ray" and device not in ("cpu", "cuda"):
        raise ValueError(f"device: engine ray expects 'cpu' or 'cuda', found {device!r}")
    if isinstance(codec, Codec) and device != "cpu":
        raise ValueError(f"device: a Codec has its own, expected none beside it, found {device!r}")
    if threads is None:
        threads = available_threads() if engine == "local" else 1
    model = codec.name if isinstance(codec, Codec) else os.fspath(codec)
    settings = Settings(
        model=model,
        bandwidth=bandwidth,
        format=format,
        shard=shard,
        shard_size=shard_size,
        threads=threads,
        audio_column=audio_column,
        device=device,
        entropy=entropy,
    )
    here = device if engine == "local" else "cpu"
    loaded = codec if isinstance(codec, Codec) else Codec.load(codec, device=here)
    loaded.file_header(loaded.n_q(bandwidth), entropy)  # refuses what the model has not
    items = list_items(sources, audio_column)
    if engine == "local":
        return run_locally(items, out, loaded, settings, retry_failed, progress)
    from encodec_fast.batch.cluster import run_on_ray  # only here: what it sets is for Ray alone

    return run_on_ray(items, os.fspath(out), loaded, settings, retry_failed, progress)
