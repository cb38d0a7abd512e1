"""The page: complete in itself, readable without JavaScript, safe for any file name."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from signals import synthetic_clip

pytest.importorskip("matplotlib", reason="needs the evaluate extra")

from encodec_fast.evaluation import page as page_module
from encodec_fast.evaluation.measure import Excerpt
from encodec_fast.evaluation.page import Page
from encodec_fast.evaluation.pictures import chart
from encodec_fast.evaluation.recordings import Recording, Setting
from encodec_fast.evaluation.report import Codebook, Figure, Report, Skipped, System

MONO, STEREO = Setting(24000, 1), Setting(48000, 2)
NASTY = "<script>alert(\"x\")</script> & 'a' http://evil.example/$x_{$.wav"


def report() -> Report:
    systems = [System.of_model("<i>$m_{$</i>", MONO, kbps) for kbps in (6.0, 12.0)]
    systems += [System.of_opus(MONO, 6.0), System.of_lowpass(MONO, 3500)]
    systems += [System.of_model("_wide", STEREO, 6.0)]
    figures = [
        Figure(system.label, NASTY, kind, 2.0, n, 2, 3, 4, **costs(system))
        for n, system in enumerate(systems)
        for kind in ("speech", "<b>odd</b>")
    ]
    about = dict.fromkeys(("created", "version", "cpu", "isa", "data", "split"), NASTY)
    about["models"] = {"<i>$m_{$</i>": "", "_wide": ""}
    return Report(
        about,
        systems,
        ("si_snr", "mel", "pesq"),
        figures,
        {"<i>$m_{$</i>": [Codebook(1024, 512.4, 24, 1000 / 1024)]},
        [Skipped(NASTY, "<u>broken</u>")],
        ["a <note>"],
    )


def costs(system: System) -> dict[str, float]:
    if system.type == "lowpass":
        return {}
    return {"kbps": system.target} | ({"kbps_lm": 3.0} if system.model else {})


def excerpts(seconds: float = 0.5) -> list[Excerpt]:
    found = []
    for setting in (MONO, STEREO):
        wave = synthetic_clip(0, *setting)[:, : int(seconds * setting.sample_rate)]
        labels = ["", *(s.label for s in report().systems if s.setting == setting)]
        found += [Excerpt(label, setting, wave) for label in labels]
    return found


class Reader(HTMLParser):
    """Collects tags with their attributes, text, and tags that are not closed in order."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    page = Page()
    page.add(Recording(None, NASTY, "speech"), excerpts())
    return page.html(report())


def test_it_refers_to_nothing_outside(html: str) -> None:
    reader = Reader(html)
    assert reader.open == []
    addresses = [v for _, attrs in reader.tags for k, v in attrs.items() if k in ("src", "href")]
    assert len(addresses) > 10
    assert all(address and address.startswith("data:") for address in addresses)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "h4", "p"}
    allowed |= {"ul", "li", "table", "tr", "th", "td", "div", "figure", "figcaption", "img"}
    assert {tag for tag, _ in reader.tags} <= allowed | {"audio"}
    assert "url(" not in html and "@import" not in html
    for data in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html):
        svg = base64.b64decode(data).decode()
        assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', svg))
        assert "<script" not in svg and "url(http" not in svg and "<image" not in svg


def test_names_are_text(html: str) -> None:
    text = Reader(html).text
    for name in (NASTY, "<i>$m_{$</i>, 6 kbps", "<b>odd</b>", "<u>broken</u>", "a <note>"):
        assert name in text
    assert "pesq, 1 of 1 recordings of speech: all systems" in text


def test_players_and_pictures(html: str) -> None:
    reader = Reader(html)
    players = [attrs["src"] for tag, attrs in reader.tags if tag == "audio"]
    assert len(players) == len(excerpts())
    for source, excerpt in zip(players, excerpts(), strict=True):
        data = base64.b64decode(source.partition("base64,")[2])
        wave, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        assert (rate, wave.T.shape) == (excerpt.setting.sample_rate, excerpt.wave.shape)
        noise = np.square(wave.T - excerpt.wave).sum() / np.square(excerpt.wave).sum()
        assert noise < 0.01
    pictures = [a["src"] for tag, a in reader.tags if tag == "img" and a["alt"] == "spectrogram"]
    assert len(pictures) == len(players)


def test_without_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "chart", lambda *_: None)
    page = Page(audio=False)
    page.add(Recording(None, "a", "speech"), excerpts())
    found = page.html(report())
    assert "<audio" not in found and 'alt="spectrogram"' in found
    assert "Excerpts" not in Page().html(report())


def test_it_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    for name, kind in (("a", "speech"), ("b", "speech"), ("c", "music")):
        page.add(Recording(None, name, kind), excerpts())
    size = page._items[0].size()
    monkeypatch.setattr(page_module, "chart", lambda *_: None)
    monkeypatch.setattr(page_module, "MAX_ITEM_BYTES", 2 * size + size // 2)
    found = page.html(report())
    # The first of each kind, then the second.
    assert "speech: a" in found and "music: c" in found and "speech: b" not in found
    assert "1 more left out" in found
    assert len(found) < 2.5 * size


def test_a_chart_of_what_was_not_measured() -> None:
    assert chart(report(), "speech", "pesq", "PESQ") is None
    uri = chart(report(), "all", "si_snr", "SI-SNR, dB")
    assert uri is not None
    svg = base64.b64decode(uri.partition("base64,")[2]).decode()
    for label in ("SI-SNR, dB", "kbps", "Opus, 24 kHz mono", "… with LM", "wide", "$m_{$"):
        assert label in svg
