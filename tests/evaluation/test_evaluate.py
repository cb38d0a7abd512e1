"""Whole evaluations of tiny models: figures, bitrates, use of codebooks, what is left out."""

from __future__ import annotations

import importlib
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from programs import BOOKS, ENTRIES, tiny_program
from signals import REPOSITORY, synthetic_clip

from encodec_fast.chunk_header import Opened
from encodec_fast.chunks import Chunk, ChunkReader
from encodec_fast.codec import Codec
from encodec_fast.container import read_header
from encodec_fast.evaluation import Report, evaluate
from encodec_fast.evaluation.metrics import si_snr
from encodec_fast.evaluation.report import Figure, codebook_use, summarise
from encodec_fast.evaluation.table import as_markdown, codebook_table

RATE = 8000  # of the tiny models
KINDS = ("speech", "music")


def program(folder: Path, kind: str) -> Path:
    return folder / f"tiny_{kind}.safetensors"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of each kind, and five that cannot be evaluated."""
    root = tmp_path_factory.mktemp("recordings")
    for index, kind in enumerate(KINDS):
        (root / kind).mkdir()
        for name in "ab":
            wave = synthetic_clip(index + ord(name), RATE, 1)[:, : 4000 + 500 * index]
            soundfile.write(root / kind / f"{name}.wav", wave.T, RATE, subtype="FLOAT")
    (root / "speech" / "empty.wav").touch()
    (root / "gone.wav").symlink_to("nowhere.wav")
    (root / "speech" / "text.ogg").write_text("no audio")
    soundfile.write(root / "music" / "silent.wav", np.zeros(500), RATE)
    soundfile.write(root / "nothing.wav", np.zeros(0), RATE)
    return root


@pytest.fixture(scope="module")
def report(recordings: Path, tiny_entropies: Path) -> Report:
    models = [program(tiny_entropies, "reflect"), program(tiny_entropies, "segments")]
    return evaluate(models, recordings)


def test_every_system_and_recording(report: Report) -> None:
    assert [(s.path, s.reason) for s in sorted(report.skipped)] == [
        ("gone.wav", "No such file or directory"),
        ("music/silent.wav", "silent"),
        ("nothing.wav", "no audio (0 samples)"),
        ("speech/empty.wav", "empty file"),
        ("speech/text.ogg", "Format not recognised."),
    ]
    done = [(figure.system, figure.path) for figure in report.figures]
    paths = [f"{kind}/{name}.wav" for kind in KINDS for name in "ab"]
    expected = [(system.label, path) for path in paths for system in report.systems]
    assert done == expected
    assert report.kinds() == ["speech", "music", "all"]
    anchors = [system.label for system in report.systems if system.type == "opus"]
    tools = shutil.which("opusenc") and shutil.which("opusdec")
    if tools:
        assert anchors == [f"Opus {kbps} kbps, 8 kHz mono" for kbps in (6, 12, 24)]


@pytest.mark.parametrize("kind", ["reflect", "segments"])
def test_figures_are_those_of_the_codec(
    report: Report, recordings: Path, tiny_entropies: Path, kind: str
) -> None:
    codec = Codec.load(program(tiny_entropies, kind))
    wave = soundfile.read(recordings / "music/b.wav", dtype="float32")[0][None]
    seconds = wave.shape[1] / RATE
    for kbps in codec.bandwidths:
        label = f"tiny_{kind}, {kbps:g} kbps"
        (found,) = (f for f in report.figures if (f.system, f.path) == (label, "music/b.wav"))
        codes = codec.encode(wave, kbps)
        assert found.si_snr == pytest.approx(si_snr(wave, codec.decode(codes), RATE), abs=1e-9)
        assert found.seconds == seconds
        assert found.encode_speed and found.decode_speed
        bits = sum(segment.size for segment in codes.codes) * codec.codebook_bits
        scales = 32 * len(codes.scales or ())
        assert found.kbps == pytest.approx((bits + scales) / seconds / 1000)
        # The payloads of a file.
        for entropy, value in (("static", found.kbps_static), ("lm", found.kbps_lm)):
            payload = payload_bytes(codec.compress(wave, kbps, entropy=entropy), codec.hop)
            assert value == pytest.approx(8 * payload / seconds / 1000)


def payload_bytes(data: bytes, hop: int) -> int:
    """Of the chunks of a file, as its own reader finds them."""
    stream = io.BytesIO(data)
    header = read_header(stream, "data")
    assert isinstance(header, Opened)
    chunks = ChunkReader(stream, header, hop)
    return sum(len(chunk.payload) for chunk in chunks if isinstance(chunk, Chunk))


def test_use_of_codebooks(report: Report, recordings: Path, tiny_entropies: Path) -> None:
    codec = Codec.load(program(tiny_entropies, "reflect"))
    uses = [[0] * ENTRIES for _ in range(BOOKS)]
    for kind in KINDS:
        for name in "ab":
            wave = soundfile.read(recordings / kind / f"{name}.wav", dtype="float32")[0]
            for book, row in enumerate(codec.encode(wave[None], None).codes[0]):
                for code in row:
                    uses[book][code] += 1
    assert len(report.codebooks["tiny_reflect"]) == BOOKS
    for found, counts in zip(report.codebooks["tiny_reflect"], uses, strict=True):
        entropy = -sum(n / sum(counts) * math.log2(n / sum(counts)) for n in counts if n)
        assert found.entries == ENTRIES
        assert found.dead == counts.count(0)
        assert found.alive == pytest.approx(1 - found.dead / ENTRIES)
        assert found.perplexity == pytest.approx(2**entropy)


def test_perplexity() -> None:
    (even, one) = codebook_use(np.array([[5, 5, 5, 5], [0, 9, 0, 0]]))
    assert even == (4, pytest.approx(4), 0, 1)
    assert one == (4, pytest.approx(1), 3, 0.25)


def test_people_count_codebooks_from_one(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tables of this command and of the benchmark of entropy coding alike."""
    rows = codebook_table(report).rows
    shown = [row[1] for row in rows if row[0] == "tiny_reflect"]
    assert shown == [str(number + 1) for number in range(BOOKS)]
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    entropy = importlib.import_module("evaluate_entropy")
    codec = SimpleNamespace(codebook_size=ENTRIES)
    coded = entropy.Coded([np.zeros((BOOKS, 3), np.uint16)], 1.0)
    assert [use.cells()["codebook"] for use in entropy.uses(codec, {"all": coded})] == shown


def test_several_processes_find_the_same(
    report: Report, recordings: Path, tiny_entropies: Path
) -> None:
    models = [program(tiny_entropies, "reflect"), program(tiny_entropies, "segments")]
    seen: list[tuple[float, float | None]] = []
    heard: dict[str, int] = {}
    found = evaluate(
        models,
        recordings,
        jobs=2,
        progress=lambda done, total: seen.append((done, total)),
        items=1,
        listen=lambda recording, excerpts: heard.update({recording.name: len(excerpts)}),
    )
    assert [without_speeds(f) for f in found.figures] == [without_speeds(f) for f in report.figures]
    assert found.codebooks == report.codebooks and found.skipped == report.skipped
    assert seen == [(done, 9) for done in range(1, 10)]
    # The original, and what each system made of it; the one in the middle of speech is skipped.
    assert heard == {"music/b.wav": 1 + len(report.systems)}


def without_speeds(figure: Figure) -> Figure:
    return replace(figure, encode_speed=None, decode_speed=None)


def test_json(report: Report) -> None:
    content = json.loads(report.to_json())
    assert content["schema"] == 1
    labels = [system["label"] for system in content["systems"]]
    assert content["systems"][0] == {
        "label": "tiny_reflect, 3 kbps",
        "type": "model",
        "model": "tiny_reflect",
        "target": 3.0,
        "sample_rate": RATE,
        "channels": 1,
    }
    assert {figure["system"] for figure in content["figures"]} == set(labels)
    assert [tuple(s) for s in (entry.values() for entry in content["skipped"])] == report.skipped
    for summary in content["summary"]:
        figures = [f for f in content["figures"] if f["system"] == summary["system"]]
        figures = [f for f in figures if summary["kind"] in (f["kind"], "all")]
        assert summary["recordings"] == len(figures)
        mean = sum(f["mel"] for f in figures) / len(figures)
        assert summary["values"]["mel"] == pytest.approx(mean)


def test_means_weigh_what_they_should() -> None:
    short = Figure("s", "a", "speech", 1.0, 0, 1, 0, 0, kbps=4.0, encode_speed=10.0, stoi=0.5)
    long = Figure("s", "b", "speech", 3.0, 6, 2, 0, 0, kbps=8.0, encode_speed=30.0)
    found = summarise("s", "speech", [short, long], ("si_snr", "pesq", "stoi"))
    assert found.values["si_snr"] == 3 and found.values["stoi"] == 0.5
    assert found.values["kbps"] == 7
    assert found.values["encode_speed"] == pytest.approx(4 / (1 / 10 + 3 / 30))
    assert found.failed == {"pesq": 2, "stoi": 1}
    music = replace(short, kind="music", stoi=None)
    assert summarise("s", "music", [music], ("pesq", "stoi")).failed == {}


def test_tables(report: Report) -> None:
    text = as_markdown(report)
    means = {
        (s.system, s.kind): s.values
        for s in report.summary()
        if s.system.startswith("tiny_segments")
    }
    for (system, kind), values in means.items():
        (line,) = (x for x in text.splitlines() if x.startswith(f"| {kind} |") and system in x)
        cells = [cell.strip() for cell in line.split("|")]
        saved = 100 * (values["kbps_lm"] / values["kbps"] - 1)
        assert cells[4] == f"{values['kbps']:.2f}"
        assert cells[6] == f"{values['kbps_lm']:.2f} ({saved:+.0f}%)"
        assert cells[7] == f"{values['si_snr']:.2f}"
    for skipped in report.skipped:
        assert f"skipped {skipped.path}: {skipped.reason}" in text


def test_what_is_missing_is_said(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_program(tmp_path, "reflect")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr("encodec_fast.evaluation.run.installed", lambda _: False)
    found = evaluate([model], recordings / "speech", kind="speech", limit=1, bandwidths=[6])
    assert [system.label for system in found.systems] == ["tiny_reflect, 6 kbps"]
    notes = "\n".join(found.notes)
    for line in ("no Opus anchors: neither opus-tools", "no PESQ", "no STOI", "no entropy model"):
        assert line in notes
    assert "encodec-fast[evaluate]" in notes
    (figure,) = found.figures
    assert figure.pesq is None and figure.stoi is None and figure.kbps_lm is None
    assert "PESQ |" not in as_markdown(found)


def test_a_checkpoint_is_evaluated_as_its_program(recordings: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tiny import export_tiny_models, save_tiny_checkpoint

    for run in "ab":
        (tmp_path / run).mkdir()
        save_tiny_checkpoint(tmp_path / run / "last.pt")
    export_tiny_models(tmp_path)
    models = [
        tmp_path / "a/last.pt",
        tmp_path / "b/last.pt",
        tmp_path / "encodec_24khz.safetensors",
    ]
    found = evaluate(models, recordings, limit=1, bandwidths=[6.0])
    by_model = {
        system.model: [f.si_snr for f in found.figures if f.system == system.label]
        for system in found.systems
        if system.type == "model"
    }
    assert list(by_model) == ["a/last", "b/last", "encodec_24khz"]
    assert by_model["a/last"] == by_model["encodec_24khz"] == by_model["b/last"]
    assert found.about["models"]["a/last"] == str(models[0])


def test_a_name_and_a_file_of_that_name(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    bundled = REPOSITORY / "encodec_fast" / "data" / "nano_24khz.safetensors"
    for folder in (tmp_path, tmp_path / "mine"):
        shutil.copy(bundled, folder)
    monkeypatch.chdir(tmp_path)
    models = ["nano_24khz", "nano_24khz.safetensors", "mine/nano_24khz.safetensors"]
    found = evaluate(models, recordings, limit=1, bandwidths=[6.0])
    here = f"{tmp_path.name}/nano_24khz"
    assert list(found.about["models"]) == ["nano_24khz", here, "mine/nano_24khz"]


def test_wrong_arguments(recordings: Path, tmp_path: Path, tiny_entropies: Path) -> None:
    model = program(tiny_entropies, "reflect")
    for arguments, message in (
        ({"bandwidths": [1.5]}, "none of the models has 1.5 kbps"),
        ({"jobs": 0}, "jobs"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": math.nan}, "seconds"),
        ({"visqol_model": "x"}, "without the program"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate([model], recordings, **arguments)
    with pytest.raises(ValueError, match="expected at least one"):
        evaluate([], recordings)
    with pytest.raises(ValueError, match="given twice"):
        evaluate([model, model], recordings)
    with pytest.raises(ValueError, match="model nosuch not found"):
        evaluate(["nosuch"], recordings)
    soundfile.write(tmp_path / "a.wav", np.zeros(9), RATE)
    with pytest.raises(ValueError, match=r"none of 1 recordings .* a\.wav: silent"):
        evaluate([model], tmp_path)
