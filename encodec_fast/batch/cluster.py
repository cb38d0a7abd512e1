"""A data set to codes on a cluster: shards of items through Ray Data, into one output folder."""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from encodec_fast.batch.cluster_output import ClusterOutput
from encodec_fast.batch.items import Item
from encodec_fast.batch.manifest import Report
from encodec_fast.batch.rows import DatasetRow
from encodec_fast.batch.run import Progress
from encodec_fast.batch.settings import Settings
from encodec_fast.batch.shard_coder import ShardCoder
from encodec_fast.codec import Codec
from encodec_fast.store import find_entropy, find_program

# Ray reports on clusters to its makers, unless the process that starts one is told not to.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def run_on_ray(
    items: Sequence[Item],
    out: str,
    codec: Codec,
    settings: Settings,
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Codes the items of the settings' job into the folder `out`, to the files that `run_locally`
    makes; goes on where an earlier call was ended, by whatever.

    items: of all jobs, sorted by key; their places and `out`, a path or a URL for fsspec, must be
    reached by all machines. codec: that of settings.model, on the CPU. settings.threads: of each
    worker, which asks for as many CPUs, and for a GPU where settings.device is "cuda". Uses the Ray
    that runs (ray.init, RAY_ADDRESS), else one on this machine.
    Errors as `tokenize`.
    """
    started = time.monotonic()
    if any(isinstance(item.location, DatasetRow) for item in items):
        raise ValueError(
            "sources: engine ray does not send a datasets.Dataset to its workers; save it as "
            "parquet or with save_to_disk where all machines see it, and name that"
        )
    ray = _load_ray()
    program = find_program(settings.model)
    output = ClusterOutput(out, settings, codec, items)
    report = output.finished()
    if report is not None and not (retry_failed and report.failures):
        return replace(report, resumed=report.items, seconds=time.monotonic() - started)
    output.begin()
    shards = output.shards()
    guesses = [sum(item.seconds for item in shard) for shard in shards]
    coded, failed, seconds, done = 0, 0, 0.0, 0.0
    records: dict[int, str] = {}
    for row in _coded_shards(ray, shards, output, settings, program.read_bytes(), retry_failed):
        if row["error"]:
            raise OSError(f"output {out}: {row['error']}")
        shard = int(row["shard"])
        records[shard] = row["record"]
        done += guesses[shard]
        if row["coded"]:
            record = json.loads(row["record"])
            coded += sum(entry["items"] for entry in record["files"])
            seconds += sum(entry["samples"] for entry in record["files"]) / codec.sample_rate
            failed += len(record["failed"])
        if progress is not None:
            progress(Progress(seconds, failed, done / sum(guesses)))
    report = output.finish(json.loads(records[shard]) for shard in range(len(shards)))
    return replace(report, resumed=report.items - coded, seconds=time.monotonic() - started)


def _coded_shards(
    ray: Any,
    shards: list[list[Item]],
    output: ClusterOutput,
    settings: Settings,
    program: bytes,
    retry_failed: bool,
) -> Iterator[dict[str, Any]]:
    """What ShardCoder gives for each shard, as they are done. Raises OSError where the cluster
    cannot go on."""
    if not shards:  # of a job of an array that has more jobs than there are items
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    _quieten(ray)
    workers = min(_workers(ray.cluster_resources(), settings), len(shards))
    rows = [
        {"shard": shard, "items": pickle.dumps(items), "retry": retry_failed}
        for shard, items in enumerate(shards)
    ]
    # A block a shard: what a worker takes at a time, and what is done again when it dies.
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        ShardCoder,
        fn_constructor_args=(
            settings,
            output.folder,
            output.state,
            program,
            str(Path.cwd()),
            None if settings.entropy == "none" else find_entropy(settings.model).read_bytes(),
        ),
        num_cpus=settings.threads,
        num_gpus=1 if settings.device == "cuda" else None,  # Ray shows a worker no other GPU
        compute=ray.data.ActorPoolStrategy(
            size=workers,
            # Or a shard would wait for a worker that is busy, or whose machine is gone.
            max_tasks_in_flight_per_actor=1,
        ),
    )
    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        raise OSError(f"ray: {' '.join(str(error).split())}") from error


def _workers(resources: dict[str, float], settings: Settings) -> int:
    """Workers that a cluster has room for. Raises OSError where they need GPUs and there are none,
    for which Ray would wait."""
    cpus = int(resources.get("CPU", 1))
    most = max(1, cpus // settings.threads)
    if settings.device == "cpu":
        return most
    gpus = int(resources.get("GPU", 0))
    if gpus == 0:
        raise OSError("device: no machine of the Ray cluster has a GPU (ray start --num-gpus)")
    return min(most, gpus)


def _load_ray() -> Any:
    """Ray with its Data library; Any because its annotations are not complete."""
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise ValueError(f"engine: ray needs `pip install 'encodec-fast[ray]'` ({error})") from None
    return ray


def _quieten(ray: Any) -> None:
    """Leaves progress and what is of interest of a plan to `progress`."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
