"""Fixtures shared by the tests: reference peers, our model with their weights, its native codec."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Before torch is imported: its threads wait for each other by spinning, which on a busy machine of
# few cores makes the peers ten times slower than on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from peers import Peer

    from encodec_fast.codec import Codec
    from encodec_fast.models.encodec import EncodecModel


@pytest.fixture(scope="session", params=["encodec_24khz", "encodec_48khz"])
def peer(request: pytest.FixtureRequest) -> Peer:
    """The reference models with conditioned random weights."""
    pytest.importorskip("transformers", reason="the peers need the test extra")
    from peers import build_peer

    return build_peer(request.param)


@pytest.fixture(scope="session")
def tiny_entropies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny programs, each with an entropy model."""
    from language_models import tiny_entropy
    from programs import tiny_program

    folder = tmp_path_factory.mktemp("entropies")
    for kind in ("reflect", "constant", "segments"):
        tiny_program(folder, kind)
        tiny_entropy(folder, kind)
    return folder


@pytest.fixture(scope="session")
def fb(peer: Peer) -> Any:
    """The PyPI package's model with the peer's weights; skips the test without that package."""
    from peers import import_encodec

    import_encodec()
    return peer.fb


@pytest.fixture(scope="session")
def hf_folder(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The peer as transformers saves it."""
    folder = tmp_path_factory.mktemp(peer.name) / "hf"
    peer.hf.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(peer: Peer, hf_folder: Path) -> EncodecModel:
    """Our PyTorch model, loaded from the transformers folder."""
    from encodec_fast.models.checkpoints import load_checkpoint

    return load_checkpoint(hf_folder).eval()


@pytest.fixture(scope="session")
def codec(model: EncodecModel, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """The native codec running the exported program of `model`."""
    from encodec_fast.codec import Codec
    from encodec_fast.models.export import export_model

    path = tmp_path_factory.mktemp(model.config.name) / "program.safetensors"
    export_model(model, path)
    return Codec.load(path)


@pytest.fixture(scope="session")
def flush_denormals() -> Iterator[None]:
    """Run with denormals flushed, as torch and other libraries may leave the process."""
    import torch

    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with tiny random programs called encodec_24khz and encodec_48khz."""
    pytest.importorskip("torch", reason="programs are made with the test extra")
    from tiny import export_tiny_models

    folder = tmp_path_factory.mktemp("models")
    export_tiny_models(folder)
    return folder
