"""The figures as Markdown tables, also the columns of the page's."""

from __future__ import annotations

from typing import NamedTuple

from encodec_fast.evaluation.report import ALL, BITRATES, Report, Summary, System


class Column(NamedTuple):
    """A column of figures: its heading, its field of Summary.values, and its decimals."""

    heading: str
    name: str
    decimals: int


COLUMNS = (
    Column("kbps", "kbps", 2),
    Column("static", "kbps_static", 2),
    Column("LM", "kbps_lm", 2),
    Column("SI-SNR dB", "si_snr", 2),
    Column("log-mel dB", "mel", 2),
    Column("STFT conv.", "stft_convergence", 3),
    Column("STFT log", "stft_log_magnitude", 3),
    Column("PESQ", "pesq", 2),
    Column("STOI", "stoi", 3),
    Column("ViSQOL", "visqol", 2),
    Column("encode x", "encode_speed", 0),
    Column("decode x", "decode_speed", 0),
)


class Table(NamedTuple):
    """A heading, and rows of cells under their own headings."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def quality_tables(report: Report) -> list[Table]:
    """Per setting all systems by kind, without columns that nothing fills."""
    systems = {system.label: system for system in report.systems}
    tables = []
    for setting in dict.fromkeys(system.setting for system in report.systems):
        rows = [row for row in report.summary() if systems[row.system].setting == setting]
        columns = [c for c in COLUMNS if any(c.name in row.values for row in rows)]
        headings = ["kind", "recordings", "system", *(column.heading for column in columns)]
        cells = [
            [row.kind, str(row.recordings), short_label(systems[row.system])]
            + [_cell(row, column) for column in columns]
            for row in rows
        ]
        tables.append(Table(str(setting), headings, cells))
    return tables


def codebook_table(report: Report) -> Table:
    """The use of the codebooks of every model."""
    rows = []
    for label, books in report.codebooks.items():
        for i, book in enumerate(books, 1):
            figures = [f"{book.perplexity:.0f}", str(book.dead), f"{book.alive:.1%}"]
            rows.append([label, str(i), str(book.entries), *figures])
    headings = ["model", "codebook", "entries", "perplexity", "dead", "alive"]
    return Table("Codebooks", headings, rows)


def short_label(system: System) -> str:
    """A system's label without its setting, for tables of one setting."""
    return system.label.removesuffix(f", {system.setting}")


def as_markdown(report: Report) -> str:
    """All tables, then the notes and what was skipped."""
    parts = [_markdown(table) for table in (*quality_tables(report), codebook_table(report))]
    notes = [f"- {note}" for note in report.notes]
    notes += [f"- not judged by {line}" for line in failures(report)]
    notes += [f"- skipped {_escaped(s.path)}: {_escaped(s.reason)}" for s in report.skipped]
    return "\n".join([*parts, *notes]) + "\n"


def failures(report: Report) -> list[str]:
    """How many recordings of each kind a measure could not judge, and of which systems."""
    systems: dict[str, list[str]] = {}
    for row in report.summary():
        for name, count in row.failed.items():
            if row.kind != ALL:
                what = f"{name}, {count} of {row.recordings} recordings of {row.kind}"
                systems.setdefault(what, []).append(row.system)
    every = len(report.systems)
    return [
        f"{what}: {'all systems' if len(labels) == every else '; '.join(labels)}"
        for what, labels in systems.items()
    ]


def _cell(row: Summary, column: Column) -> str:
    value = row.values.get(column.name)
    if value is None:
        return ""
    text = f"{value:.{column.decimals}f}"
    if column.name in BITRATES[1:]:  # what entropy coding saves of packed bits
        text += f" ({value / row.values[BITRATES[0]] - 1:+.0%})"
    return text


def _markdown(table: Table) -> str:
    lines = [table.headings, ["---"] * len(table.headings), *table.rows]
    rows = ["| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines]
    return "\n".join([f"### {table.title}", "", *rows, ""])


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text).replace("|", "\\|")
