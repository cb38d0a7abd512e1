"""The output folder of a cluster, on any file system; no Ray is needed here."""

from __future__ import annotations

import contextlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from programs import tiny_program

from encodec_fast.batch import safetensors_format
from encodec_fast.batch.cluster_output import ClusterOutput
from encodec_fast.batch.folder import Folder
from encodec_fast.batch.items import Item
from encodec_fast.batch.run import run_locally
from encodec_fast.batch.settings import Settings
from encodec_fast.batch.shard_coder import ShardCoder
from encodec_fast.batch.sources import list_items
from encodec_fast.codec import Codec

pytest.importorskip("fsspec", reason="folders of clusters need the extra ray")


def recordings(folder: Path, count: int = 7) -> list[Item]:
    (folder / "audio").mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        noise = rng.uniform(-0.5, 0.5, (int(rng.integers(200, 3000)), 1))
        soundfile.write(folder / "audio" / f"{number}.flac", noise, 8000)
    (folder / "audio" / "broken.flac").write_bytes(b"nothing")
    return list_items(str(folder / "audio"))


def settings(folder: Path, **changes: object) -> Settings:
    fields: dict[str, object] = {"model": str(tiny_program(folder, "reflect")), "shard_size": 3}
    return Settings(**fields | {"format": "safetensors"} | changes)  # type: ignore[arg-type]


def code(output: ClusterOutput, how: Settings, retry: bool = False) -> list[dict[str, object]]:
    """What workers do, here."""
    program = Path(how.model).read_bytes()
    coder = pickle.loads(pickle.dumps(ShardCoder))(
        how, output.folder, output.state, program, str(Path.cwd())
    )
    return [
        coder({"shard": shard, "items": pickle.dumps(items), "retry": retry})
        for shard, items in enumerate(output.shards())
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("format", ["npy", "webdataset"])
def test_equal_to_the_local_engine(format: str, tmp_path: Path) -> None:
    items, how = recordings(tmp_path), settings(tmp_path, format=format)
    codec = Codec.load(how.model)
    run_locally(items, tmp_path / "local", codec, replace(how, threads=2))
    output = ClusterOutput(f"file://{tmp_path}/out", how, codec, items)
    assert output.finished() is None
    output.begin()
    rows = code(output, how)
    assert all(row["coded"] for row in rows)
    report = output.finish(json.loads(str(row["record"])) for row in rows)
    assert (report.items, len(report.failures)) == (7, 1)
    assert contents(tmp_path / "out") == contents(tmp_path / "local")
    assert output.finished() == report


def test_shards_that_are_whole_are_not_coded_again(tmp_path: Path) -> None:
    items, how = recordings(tmp_path), settings(tmp_path)
    output = ClusterOutput(str(tmp_path / "out"), how, Codec.load(how.model), items)
    output.begin()
    before = [row["record"] for row in code(output, how)]
    assert [row["coded"] for row in code(output, how)] == [False, False, False]
    damaged = tmp_path / "out" / "tokens-00001.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (tmp_path / "out" / "tokens-00002.safetensors").unlink()
    again = code(output, how)
    assert [row["coded"] for row in again] == [False, True, True]
    assert [row["record"] for row in again] == before
    assert damaged.read_bytes() == whole


def test_failures_are_tried_again(tmp_path: Path) -> None:
    items, how = recordings(tmp_path), settings(tmp_path)
    codec = Codec.load(how.model)
    output = ClusterOutput(str(tmp_path / "out"), how, codec, items)
    output.begin()
    output.finish(json.loads(str(row["record"])) for row in code(output, how))
    soundfile.write(tmp_path / "audio" / "broken.flac", np.zeros((500, 1)), 8000)
    output.begin()
    rows = code(output, how, retry=True)
    assert [row["coded"] for row in rows] == [False, False, True]  # the last shard had it
    report = output.finish(json.loads(str(row["record"])) for row in rows)
    assert (report.items, report.failures) == (8, ())
    run_locally(items, tmp_path / "local", codec, how)
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


@pytest.mark.parametrize("steps", [None, 0, 1, 2])
@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_only_failures_are_tried_again(
    format: str, steps: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the others became stays, also where their recordings are gone since, and where the
    worker dies when it has written so many files."""
    items, how = recordings(tmp_path), settings(tmp_path, format=format)
    codec = Codec.load(how.model)
    output = ClusterOutput(str(tmp_path / "out"), how, codec, items)
    output.begin()
    output.finish(json.loads(str(row["record"])) for row in code(output, how))
    soundfile.write(tmp_path / "audio" / "broken.flac", np.zeros((500, 1)), 8000)
    run_locally(items, tmp_path / "local", codec, how)
    assert items[-1].key == "broken.flac"
    for item in items[:-1]:
        Path(item.source).unlink()
    output.begin()
    with monkeypatch.context() as patch:
        original = Folder._put
        left = steps

        def dying(self: Folder, name: str, write: object) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left = None if left is None else left - 1
            original(self, name, write)

        patch.setattr(Folder, "_put", dying)
        with contextlib.nullcontext() if steps is None else pytest.raises(KeyboardInterrupt):
            code(output, how, retry=True)
    report = output.finish(json.loads(str(r["record"])) for r in code(output, how, retry=True))
    assert (report.items, report.failures) == (8, ())
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


def test_a_finished_run_whose_files_are_gone(tmp_path: Path) -> None:
    items, how = recordings(tmp_path), settings(tmp_path, format="npy")
    output = ClusterOutput(f"file://{tmp_path}/out", how, Codec.load(how.model), items)
    output.begin()
    report = output.finish(json.loads(str(row["record"])) for row in code(output, how))
    assert output.finished() == report
    (tmp_path / "out" / "3%2Eflac.npy").write_bytes(b"")
    (tmp_path / "out" / "4%2Eflac.npy").unlink()
    with pytest.raises(ValueError, match=r"2 of its 7 files .* 3%2Eflac\.npy .* found 0 bytes"):
        output.finished()


def test_limits_of_a_shard_are_those_of_the_local_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of the last one, which has fewer items."""
    monkeypatch.setattr(safetensors_format, "MAX_HEADER", 3 * 600)
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / f"{'z' * 150}.flac", np.zeros((500, 1)), 8000)
    items, how = recordings(tmp_path), settings(tmp_path)
    codec = Codec.load(how.model)
    local = run_locally(items[-1:], tmp_path / "local", codec, how)
    output = ClusterOutput(str(tmp_path / "out"), how, codec, items[-1:])
    output.begin()
    report = output.finish(json.loads(str(row["record"])) for row in code(output, how))
    assert [failure.key for failure in report.failures] == [items[-1].key]
    assert report.failures == local.failures


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    items, how = recordings(tmp_path), settings(tmp_path)
    codec = Codec.load(how.model)
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.pdf").touch()
    with pytest.raises(ValueError, match=r"others' files.*thesis\.pdf"):
        ClusterOutput(str(out), how, codec, items).finished()
    (out / "thesis.pdf").unlink()
    ClusterOutput(str(out), how, codec, items).begin()
    other = settings(tmp_path, bandwidth=3.0)
    with pytest.raises(ValueError, match="bandwidth: expected 3"):
        ClusterOutput(str(out), other, codec, items).finished()
    (out / "manifest.json").write_text("not JSON")
    with pytest.raises(ValueError, match=r"manifest\.json"):
        ClusterOutput(str(out), how, codec, items).finished()


def test_jobs_of_an_array_share_a_folder(tmp_path: Path) -> None:
    items = recordings(tmp_path)
    for index in range(2):
        how = settings(tmp_path, shard=(index, 2))
        codec = Codec.load(how.model)
        run_locally(items, tmp_path / "local", codec, how)
        output = ClusterOutput(str(tmp_path / "out"), how, codec, items)
        assert output.finished() is None
        output.begin()
        output.finish(json.loads(str(row["record"])) for row in code(output, how))
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


def test_relative_paths_lead_on_from_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, how = recordings(tmp_path), settings(tmp_path)
    monkeypatch.chdir(tmp_path)
    relative = list_items("audio")
    codec = Codec.load(how.model)
    assert relative[0].source == "audio/0.flac" and len(relative) == len(items)
    run_locally(relative, "local", codec, how)
    output = ClusterOutput("out", how, codec, relative)
    output.begin()
    program = Path(how.model).read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # as a worker's is another one
    coder = ShardCoder(how, output.folder, output.state, program, str(tmp_path))
    rows = [
        coder({"shard": shard, "items": pickle.dumps(group), "retry": False})
        for shard, group in enumerate(output.shards())
    ]
    output.finish(json.loads(row["record"]) for row in rows)
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


@pytest.mark.parametrize("kind", ["file", "memory", "objects"])
def test_files_of_a_folder_appear_whole(kind: str, tmp_path: Path) -> None:
    import fsspec
    from object_stores import ObjectStore

    fsspec.register_implementation("objects", ObjectStore, clobber=True)
    url = {"memory": f"memory://{tmp_path.name}/deep"}.get(kind, f"{kind}://{tmp_path}/out/deep")
    folder = Folder(url, ".staging")
    assert folder.names() == [] and folder.read("a") is None and folder.sha256("a") is None
    folder.write("sub/a b%2E.txt", b"first")
    folder.write("sub/a b%2E.txt", b"second")
    (tmp_path / "local").write_bytes(b"bytes")
    folder.publish(tmp_path / "local", "b")
    assert folder.names() == [".staging", "b", "sub"] and folder.names(".staging") == []
    assert folder.read("sub/a b%2E.txt") == b"second"
    assert folder.sha256("b") == (
        "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9"
    )
    again = pickle.loads(pickle.dumps(folder))
    assert again.read("b") == b"bytes"
    folder.remove("sub")
    folder.remove("never there")
    assert folder.names() == [".staging", "b"]


def test_urls_that_cannot_be_served() -> None:
    with pytest.raises(ValueError, match="nosuchthing"):
        Folder("nosuchthing://bucket/x", ".s")
    with pytest.raises(ValueError, match="wildcards"):
        Folder("memory://bucket/x[1]", ".s")
