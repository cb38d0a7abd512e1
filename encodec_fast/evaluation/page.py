"""The page of an evaluation: one HTML file that needs nothing else, and no JavaScript."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from encodec_fast.evaluation.measure import Excerpt
from encodec_fast.evaluation.pictures import chart, player_source, spectrogram
from encodec_fast.evaluation.recordings import Recording
from encodec_fast.evaluation.report import Report
from encodec_fast.evaluation.table import (
    Table,
    codebook_table,
    failures,
    quality_tables,
    short_label,
)

# Measures that have a chart, with the axis' label.
CHARTS = (
    ("si_snr", "SI-SNR, dB (higher is better)"),
    ("mel", "log-mel distance, dB (lower is better)"),
    ("stft_log_magnitude", "STFT log magnitude (lower is better)"),
    ("pesq", "PESQ (higher is better)"),
    ("stoi", "STOI (higher is better)"),
    ("visqol", "ViSQOL (higher is better)"),
)
ITEMS = 2  # recordings of each kind to look at and listen to
MAX_ITEM_BYTES = 16_000_000  # of all together
_STYLE = """
body { font: 15px/1.4 sans-serif; margin: 2em auto; max-width: 1500px; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .15em .6em; text-align: right; }
th { background: #f4f4f4; position: sticky; top: 0; }
td:nth-child(-n+3), th:nth-child(-n+3) { text-align: left; }
.grid { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; width: 320px; }
figure img { width: 320px; height: 128px; }
figure audio { width: 320px; height: 32px; }
figcaption { font-size: 13px; }
.charts img { width: 440px; height: auto; }
"""


class _Cell(NamedTuple):
    """An excerpt as the page shows it."""

    system: str
    setting: str
    html: str


class _Item(NamedTuple):
    """The excerpts of a recording; `rank` counts the items of its kind before it."""

    recording: Recording
    rank: int
    cells: list[_Cell]

    def size(self) -> int:
        return sum(len(cell.html) for cell in self.cells)


class Page:
    """Collects excerpts while an evaluation runs; `add` is what evaluate calls `listen`."""

    items = ITEMS

    def __init__(self, audio: bool = True) -> None:
        self._audio = audio
        self._items: list[_Item] = []

    def add(self, recording: Recording, excerpts: list[Excerpt]) -> None:
        """Takes a recording's excerpts."""
        cells = []
        for system, setting, wave in excerpts:
            html = f'<img alt="spectrogram" src="{spectrogram(wave, setting.sample_rate)}">'
            if self._audio:
                source = player_source(wave, setting.sample_rate)
                html += f'<audio controls preload="none" src="{source}"></audio>'
            cells.append(_Cell(system, str(setting), html))
        rank = sum(item.recording.kind == recording.kind for item in self._items)
        self._items.append(_Item(recording, rank, cells))

    def html(self, report: Report) -> str:
        """The whole page."""
        title = "encodec-fast evaluate"
        models = ", ".join(escape(label) for label in report.about["models"])
        facts = ("created", "version", "cpu", "isa", "data", "split")
        about = "; ".join(f"{name}: {escape(str(report.about[name]))}" for name in facts)
        parts = [
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{models}</h1><p>{about}</p>",
            _list("", report.notes),
            *(f"<h2>{escape(kind)}</h2>{_charts(report, kind)}" for kind in report.kinds()),
            *(_table(table) for table in quality_tables(report)),
            _table(codebook_table(report)),
            self._listening(report),
            _list("<h2>Not judged</h2>", failures(report)),
            _list("<h2>Skipped</h2>", [f"{s.path}: {s.reason}" for s in report.skipped]),
            "</body></html>\n",
        ]
        return "\n".join(part for part in parts if part)

    def _listening(self, report: Report) -> str:
        """The excerpts, as many as there is room for: first of each kind, then the others."""
        room = MAX_ITEM_BYTES
        shown = set()
        for item in sorted(self._items, key=lambda item: item.rank):
            if item.size() <= room:
                room -= item.size()
                shown.add(item.recording)
        short = {system.label: short_label(system) for system in report.systems}
        parts = ["<h2>Excerpts</h2>"]
        for recording, _, cells in self._items:
            if recording not in shown:
                continue
            parts.append(f"<h3>{escape(recording.kind)}: {escape(recording.name)}</h3>")
            for setting in dict.fromkeys(cell.setting for cell in cells):
                parts.append(f'<h4>{setting}</h4><div class="grid">')
                parts += [
                    f"<figure><figcaption>{escape(short.get(cell.system, 'original'))}"
                    f"</figcaption>{cell.html}</figure>"
                    for cell in cells
                    if cell.setting == setting
                ]
                parts.append("</div>")
        left = len(self._items) - len(shown)
        if left:
            parts.append(f"<p>{left} more left out to keep the page small.</p>")
        return "\n".join(parts) if self._items else ""


def _charts(report: Report, kind: str) -> str:
    pictures = [(axis, chart(report, kind, name, axis)) for name, axis in CHARTS]
    images = [f'<img alt="{escape(axis)}" src="{uri}">' for axis, uri in pictures if uri]
    return f'<div class="grid charts">{"".join(images)}</div>'


def _table(table: Table) -> str:
    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    return f"<h2>{escape(table.title)}</h2><table>{row(table.headings, 'th')}\n{body}</table>"


def _list(heading: str, lines: list[str]) -> str:
    if not lines:
        return ""
    return heading + "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
