"""Pictures and sounds for the page: rate-distortion charts, spectrograms, excerpts of audio."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
import soundfile
from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from encodec_fast._native import Audio
from encodec_fast.evaluation.metrics import magnitudes
from encodec_fast.evaluation.report import Report, Summary

_CHART_INCHES = (4.6, 3.3)
_TICKS = (1.5, 3, 6, 12, 24)
_SPECTROGRAM_WINDOW = 1024
_SPECTROGRAM_ROWS, _SPECTROGRAM_COLUMNS = 128, 320  # at most
_DARKEST_DB, _BRIGHTEST_DB = -95.0, -20.0  # against a full-scale sine
_VORBIS_COMPRESSION = 0.3  # 0 is the best quality, 1 the smallest size


def data_uri(kind: str, data: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def chart(report: Report, kind: str, measure: str, axis: str) -> str | None:
    """A measure over bitrate, a line per model and for Opus, as a data URI of SVG; None where
    nothing was measured. Models: packed bits, and dashed with their language model."""
    rows = [row for row in report.summary() if row.kind == kind and measure in row.values]
    if not rows:
        return None
    canvas = Canvas(figsize=_CHART_INCHES, layout="constrained")
    FigureCanvasSVG(canvas)
    axes = canvas.add_subplot()
    systems = {system.label: system for system in report.systems}
    lines: dict[str, list[Summary]] = {}
    for row in rows:
        system = systems[row.system]
        if system.type == "lowpass":
            _level(axes, system.label, row.values[measure])
        else:
            lines.setdefault(system.model or f"Opus, {system.setting}", []).append(row)
    for number, (name, points) in enumerate(lines.items()):
        values = [point.values[measure] for point in points]
        colour = f"C{number}"
        rates = [point.values["kbps"] for point in points]
        axes.plot(rates, values, "o-", color=colour, label=_plain(name), markersize=4, lw=1.2)
        if all("kbps_lm" in point.values for point in points):
            rates = [point.values["kbps_lm"] for point in points]
            axes.plot(rates, values, "o--", color=colour, markersize=3, lw=0.8, label="… with LM")
    if lines:
        axes.set_xscale("log")
        axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axes.minorticks_off()
        axes.legend(fontsize=7)
    axes.set_xlabel("kbps", fontsize=8)
    axes.set_ylabel(axis, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "encodec-fast"}):
        canvas.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data_uri("image/svg+xml", data.getvalue())


def _level(axes: Axes, name: str, value: float) -> None:
    """A horizontal line: what has no bitrate."""
    axes.axhline(value, color="0.6", lw=0.8, ls=":")
    axes.annotate(
        _plain(name),
        (1, value),
        xycoords=("axes fraction", "data"),
        fontsize=6,
        ha="right",
        va="bottom",
        color="0.4",
    )


def _plain(name: str) -> str:
    """A label that matplotlib neither takes for a formula nor hides."""
    return name.replace("$", r"\$").lstrip("_") or "model"


def spectrogram(wave: Audio, sample_rate: int) -> str:
    """Mean of the channels of float32 [channels, samples], 0 Hz at the bottom to half the rate on
    top, as a data URI of JPEG; colours span _DARKEST_DB to _BRIGHTEST_DB."""
    spectrum = magnitudes(wave.mean(axis=0), _SPECTROGRAM_WINDOW)
    levels = 20 * np.log10(np.maximum(spectrum, 10 ** (_DARKEST_DB / 20)))
    columns = np.array_split(levels, min(_SPECTROGRAM_COLUMNS, len(levels)))
    rows = np.array_split(np.stack([c.mean(axis=0) for c in columns], 1), _SPECTROGRAM_ROWS)
    picture = np.stack([row.mean(axis=0) for row in rows])
    data = io.BytesIO()
    image.imsave(
        data,
        picture,
        format="jpg",
        origin="lower",
        cmap="magma",
        vmin=_DARKEST_DB,
        vmax=_BRIGHTEST_DB,
        pil_kwargs={"quality": 80},
    )
    return data_uri("image/jpeg", data.getvalue())


def player_source(wave: Audio, sample_rate: int) -> str:
    """float32 [channels, samples] as a data URI of Ogg Vorbis at high quality."""
    data = io.BytesIO()
    soundfile.write(
        data,
        np.clip(wave, -1, 1).T,
        sample_rate,
        format="OGG",
        subtype="VORBIS",
        compression_level=_VORBIS_COMPRESSION,
    )
    return data_uri("audio/ogg", data.getvalue())
