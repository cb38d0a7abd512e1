"""Files of tokens through the libraries that trainers use, as docs/tokens.md shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from token_items import WEIRD_KEYS, assert_equal, make_tokens, tiny_codec

from encodec_fast.batch.formats import FORMATS
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec
from encodec_fast.info import info


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    return tiny_codec(tmp_path, "segments")


def written(codec: Codec, folder: Path, name: str) -> tuple[Path, list[Tokens]]:
    items = [make_tokens(codec, key, seed) for seed, key in enumerate(WEIRD_KEYS)]
    if FORMATS[name].per_item:
        del items[1:]
    path = folder / f"tokens{FORMATS[name].suffix}"
    FORMATS[name].write(items, path, codec)
    return path, items


def test_numpy_loads_codes(codec: Codec, tmp_path: Path) -> None:
    path, (item,) = written(codec, tmp_path, "npy")
    np.testing.assert_array_equal(np.load(path), item.codes)
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), item.codes)
    with path.open("rb") as file:
        codes, about = np.load(file), json.loads(np.load(file).tobytes())
        extra = {name: np.load(file).tobytes() for name in about["extra"]}
    assert codes.shape[1] == sum(about["segment_frames"])
    assert about["key"] == item.key and extra == item.extra


def test_safetensors_loads_one_item(codec: Codec, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors", reason="a peer of the test extra")
    path, items = written(codec, tmp_path, "safetensors")
    with safetensors.safe_open(path, framework="numpy") as shard:
        metadata = shard.metadata()
        assert {json.loads(text)["key"] for text in metadata.values()} == {i.key for i in items}
        for item in items:
            codes = shard.get_tensor(f"{item.key}/codes")
            assert codes.dtype == np.uint16
            np.testing.assert_array_equal(codes, item.codes)
            np.testing.assert_array_equal(shard.get_tensor(f"{item.key}/scales"), item.scales)
            frames = shard.get_tensor(f"{item.key}/segment_frames")
            assert tuple(frames) == item.segment_frames


def test_tensors_are_aligned(codec: Codec, tmp_path: Path) -> None:
    path, _ = written(codec, tmp_path, "safetensors")
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    sizes = {"F32": 4, "I32": 4, "U16": 2, "U8": 1}
    for name, entry in table.items():
        if name != "__metadata__":
            assert (8 + length + entry["data_offsets"][0]) % sizes[entry["dtype"]] == 0
    assert {entry.get("dtype") for entry in table.values()} == {*sizes, None}


def test_torch_loads_an_item_from_safetensors(codec: Codec, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="a peer of the test extra")
    safetensors = pytest.importorskip("safetensors", reason="a peer of the test extra")
    path, items = written(codec, tmp_path, "safetensors")
    with safetensors.safe_open(path, framework="pt") as shard:
        for item in items:
            codes = shard.get_tensor(f"{item.key}/codes")
            assert codes.dtype == torch.uint16
            np.testing.assert_array_equal(codes.numpy(), item.codes)


def test_pyarrow_gives_codes_without_copies(codec: Codec, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs the extra tokenize")
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, items = written(codec, tmp_path, "parquet")
    table = pq.read_table(path)
    assert table.schema.field("codes").type == pa.list_(pa.list_(pa.uint16()))
    assert table["key"].to_pylist() == [item.key for item in items]
    for row, item in enumerate(items):
        books = table["codes"][row].values
        codes = books.flatten().to_numpy(zero_copy_only=True).reshape(len(books), -1)
        np.testing.assert_array_equal(codes, item.codes)
    frame = pq.read_table(path, columns=["key", "codes"]).to_pandas()
    np.testing.assert_array_equal(np.stack(frame["codes"][3]), items[3].codes)


def test_webdataset_gives_codes_beside_text(codec: Codec, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset", reason="a peer of the extra tokenize")
    path, items = written(codec, tmp_path, "webdataset")
    samples: list[dict[str, Any]] = list(
        wds.WebDataset(str(path), shardshuffle=False, empty_check=False).decode()
    )
    assert [unquote(sample["__key__"]) for sample in samples] == [item.key for item in items]
    for sample, item in zip(samples, items, strict=True):
        np.testing.assert_array_equal(sample["codes.npy"], item.codes)
        assert sample["codes.json"]["key"] == item.key
        assert sample["txt"] == "words" and sample["json"] == {"a": 1}


def test_datasets_loads_parquet(codec: Codec, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="a peer of the extra tokenize")
    path, items = written(codec, tmp_path, "parquet")
    rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert len(rows) == len(items)
    np.testing.assert_array_equal(np.array(rows[2]["codes"]), items[2].codes)


def test_ecdc_is_a_file_like_any_other(codec: Codec, tmp_path: Path) -> None:
    path, (item,) = written(codec, tmp_path, "ecdc")
    about = info(path, tmp_path / "tiny_segments.safetensors")
    assert (about.version, about.finished, about.audio_length) == (1, True, item.audio_length)
    assert about.metadata["key"] == item.key
    wav = codec.decompress(path.read_bytes(), strict=True)
    np.testing.assert_array_equal(wav, codec.decode(item.to_codes()))


def test_ecdc_of_compress_has_no_key(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "foreign.ecdc"
    wav = np.zeros((1, 500), np.float32)
    path.write_bytes(codec.compress(wav, entropy="none"))
    with pytest.raises(ValueError, match=r"foreign\.ecdc.*key"):
        list(FORMATS["ecdc"].read(path, codec))
    path.write_bytes(codec.compress(wav, version=0))
    with pytest.raises(ValueError, match=r"foreign\.ecdc.*version 0"):
        list(FORMATS["ecdc"].read(path, codec))


def test_ecdc_of_an_installed_model_needs_no_codec(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, (item,) = written(codec, tmp_path, "ecdc")
    with pytest.raises(ValueError, match="tiny_segments not found"):
        list(FORMATS["ecdc"].read(path))
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path))
    (found,) = FORMATS["ecdc"].read(path)
    assert_equal(found, item)
