"""Engine ray on a cluster of several nodes in this machine: workers killed, nodes taken away."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from programs import tiny_program

import encodec_fast
from encodec_fast.batch.cluster import run_on_ray
from encodec_fast.batch.items import Item
from encodec_fast.batch.manifest import Report
from encodec_fast.batch.rows import DatasetRow
from encodec_fast.batch.run import Progress, run_locally
from encodec_fast.batch.settings import Settings
from encodec_fast.batch.sources import list_items
from encodec_fast.codec import Codec

# After batch.cluster, which turns Ray's reports to its makers off.
ray = pytest.importorskip("ray", reason="engine ray needs the extra ray")
pytest.importorskip("ray.data", reason="engine ray needs the extra ray")
fsspec = pytest.importorskip("fsspec", reason="engine ray needs the extra ray")
from object_stores import FullStore, MeetingStore, ObjectStore  # noqa: E402 - needs fsspec

# So that a node is missed sooner than after a quarter of a minute.
_HEALTH = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}


class Machines:
    """A head without CPUs, where the driver is, and two nodes with one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        store = 80 << 20
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": _HEALTH}
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"object_store_memory": store, **head}
        )
        self.nodes = [
            self.cluster.add_node(num_cpus=1, object_store_memory=store) for _ in range(2)
        ]
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")

    def workers(self, node: Any) -> list[int]:
        """Processes of a node that hold a ShardCoder."""
        (raylet,) = node.all_processes["raylet"]
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
                command = (process / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            if parent == raylet.process.pid and b"ShardCoder" in command:
                found.append(int(process.name))
        return found

    def shut_down(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    if not Path("/proc/self/stat").exists():
        pytest.skip("finding workers needs /proc")
    # Workers import the package that is tested, and the file systems of the tests.
    places = [Path(encodec_fast.__file__).parents[1], Path(__file__).parent]
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, places), before])
    running = Machines()
    yield running
    running.shut_down()
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Recordings of 1.5 s to 12 s, which workers read through fsspec; one of them is none."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(2)
    for number in range(60):
        noise = rng.uniform(-0.5, 0.5, (int(rng.integers(12_000, 96_000)), 1))
        soundfile.write(folder / f"{number:03d}.flac", noise, 8000)
    (folder / "broken.flac").write_bytes(b"nothing")
    return list_items(f"file://{folder}")


def settings(folder: Path, format: str) -> Settings:
    return Settings(model=str(tiny_program(folder, "reflect")), format=format, shard_size=5)


def run(items: list[Item], out: str, how: Settings, **options: Any) -> Report:
    return run_on_ray(items, out, Codec.load(how.model), how, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_worker_killed_and_a_node_lost_in_mid_run(
    machines: Machines, items: list[Item], tmp_path: Path
) -> None:
    fsspec.register_implementation("meeting", MeetingStore, clobber=True)
    how = settings(tmp_path, "webdataset")
    local = run_locally(items, tmp_path / "local", Codec.load(how.model), how)
    killed: list[int] = []
    lost: list[int] = []

    def disturb(progress: Progress) -> None:
        if progress.share < 0.8 and not killed:
            killed.extend(machines.workers(machines.nodes[0])[:1])
            for process in killed:
                os.kill(process, signal.SIGKILL)
        elif progress.share < 0.8 and not lost:
            node = machines.nodes.pop()
            lost.extend(machines.workers(node))
            machines.cluster.remove_node(node, allow_graceful=False)

    report = run(items, f"meeting://{tmp_path}/out", how, progress=disturb)
    assert killed and lost
    assert (report.items, report.failures) == (local.items, local.failures)
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


def test_an_interrupted_run_on_an_object_store_goes_on(
    machines: Machines, items: list[Item], tmp_path: Path
) -> None:
    fsspec.register_implementation("objects", ObjectStore, clobber=True)
    how = settings(tmp_path, "npy")
    out = f"objects://{tmp_path}/out"
    run_locally(items, tmp_path / "local", Codec.load(how.model), how)

    def interrupt(progress: Progress) -> None:
        if progress.share > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(items, out, how, progress=interrupt)
    assert not (tmp_path / "out" / "manifest.json").exists()
    report = run(items, out, how)
    assert 0.2 * len(items) < report.resumed < report.items == 60
    assert contents(tmp_path / "out") == contents(tmp_path / "local")
    started = time.monotonic()
    assert run(items, out, how).resumed == 60
    assert time.monotonic() - started < 2


def test_no_room_for_the_output(machines: Machines, items: list[Item], tmp_path: Path) -> None:
    fsspec.register_implementation("full", FullStore, clobber=True)
    how = settings(tmp_path, "safetensors")
    with pytest.raises(OSError, match=r"^output full://.*/out: .*No space left on device"):
        run(items[:5], f"full://{tmp_path}/out", how)
    assert not list((tmp_path / "out").glob("tokens*"))


def test_a_job_without_items(items: list[Item], tmp_path: Path) -> None:
    how = replace(settings(tmp_path, "safetensors"), shard=(4, 5))
    report = run(items[:3], str(tmp_path / "out"), how)
    run_locally(items[:3], tmp_path / "local", Codec.load(how.model), how)
    assert report.items == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


def test_without_ray(items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"encodec-fast\[ray\]"):
        run(items, str(tmp_path / "out"), settings(tmp_path, "npy"))
    assert not (tmp_path / "out").exists()


def test_a_data_set_in_memory_is_refused(tmp_path: Path) -> None:
    items = [Item("0", DatasetRow(None, "audio", 0), "dataset: row 0")]
    with pytest.raises(ValueError, match=r"datasets\.Dataset.*parquet or with save_to_disk"):
        run(items, str(tmp_path / "out"), settings(tmp_path, "npy"))
    assert not (tmp_path / "out").exists()
