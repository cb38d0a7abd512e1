"""Meta's language models on both command lines: imported for version 1, as is for version 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

# Behind the skip, because what follows imports torch.
from encodec_fast import __main__ as reference  # noqa: E402
from encodec_fast import cli  # noqa: E402
from encodec_fast.models.config import CONFIGS  # noqa: E402
from encodec_fast.models.lm import LanguageModel  # noqa: E402

NAME = "encodec_24khz"


@pytest.fixture(autouse=True)
def folder(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder with a recording and a language model as Meta publishes it; the tiny
    models are installed in a folder of their own."""
    models = tmp_path / "models"
    models.mkdir()
    for path in tiny_models.glob("*.safetensors"):
        (models / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(models))
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).standard_normal(6000)
    soundfile.write("a.wav", 0.1 * noise, 24000, subtype="PCM_16")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lm = LanguageModel(CONFIGS[NAME], dim=8, layers=1)
    torch.save(lm.state_dict(), "encodec_lm_24khz.th")
    monkeypatch.setitem(reference.LANGUAGE_MODELS, NAME, "encodec_lm_24khz.th")
    return tmp_path


def run(*arguments: str) -> int:
    return cli.main([*arguments])


@pytest.mark.parametrize("weights", ["float32", "bf16"])
def test_import_for_version_1(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compress", "a.wav", "b.ecdc", "-m", NAME, "--entropy", "lm") == 1
    assert "needs an entropy model" in capsys.readouterr().err
    assert run("models", "import-lm", "encodec_lm_24khz.th", "--weights", weights) == 0
    assert f"imported the language model of {NAME}" in capsys.readouterr().out
    assert run("models", "import-lm", "encodec_lm_24khz.th") == 1
    assert "exists already" in capsys.readouterr().err
    assert run("compress", "a.wav", "b.ecdc", "-m", NAME, "--entropy", "lm") == 0
    assert run("compress", "a.wav", "c.ecdc", "-m", NAME) == 0
    assert run("decompress", "b.ecdc") == run("decompress", "c.ecdc") == 0
    decoded = [Path(f"{stem}_decompressed.wav").read_bytes() for stem in "bc"]
    assert decoded[0] == decoded[1]
    assert run("compress", "a.wav", "d.ecdc", "-m", NAME, "--entropy", "static") == 1
    assert "has no static tables" in capsys.readouterr().err


def test_import_of_what_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": torch.zeros(1)}, "encodec_lm_24khz.th")
    for arguments in (["encodec_lm_24khz.th"], ["a.wav", "--model", NAME], ["absent_lm_24khz"]):
        assert run("models", "import-lm", *arguments) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert not list(Path("models").glob("*.entropy.*"))


def test_version_0(capsys: pytest.CaptureFixture[str]) -> None:
    coding = ("-m", NAME, "--container", "0", "--entropy", "lm")
    assert run("compress", "a.wav", "b.ecdc", *coding) == 1
    assert "lm_checkpoint" in capsys.readouterr().err
    lm = ("--lm-checkpoint", "encodec_lm_24khz.th")
    assert run("compress", "a.wav", "b.ecdc", *coding, *lm) == 0
    assert run("decompress", "b.ecdc") == 1
    assert "lm_checkpoint" in capsys.readouterr().err
    assert run("decompress", "b.ecdc", *lm) == 0
    assert run("roundtrip", "a.wav", "-m", NAME) == 0
    assert Path("b_decompressed.wav").read_bytes() == Path("a_roundtrip.wav").read_bytes()


def test_the_reference_command_line() -> None:
    assert reference.main(["-l", "a.wav", "b.ecdc"]) == 0
    assert b'"lm": true' in Path("b.ecdc").read_bytes()
    assert reference.main(["b.ecdc"]) == 0
    assert reference.main(["-l", "a.wav", "c.wav"]) == 0
    assert Path("b_decompressed.wav").read_bytes() == Path("c.wav").read_bytes()
