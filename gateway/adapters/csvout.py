"""Hash entries as CSV: our own list after `contracts/hash-csv-2.md`, and INTERPOL's ICSE list.

Nothing in either is run by a spreadsheet. Our own guards a text that could be (`guarding`) and names it in the column
`guarded`; in an ICSE list, which other programs read, such a text is left out and counted.

PhotoDNA stands in hexadecimal: base64 may begin with `+`.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

from gateway.adapters import gateway_csv, icse_csv
from gateway.adapters.guarding import guarded, is_risky
from gateway.adapters.rows import MAX_RECORD_BYTES
from gateway.adapters.writing import Batch, WriteOptions, identified, known_digests, moments, spelt, texts
from gateway.columns.rows import Rows
from gateway.model import VictimStatus

MAX_VPDQ_CHARS = MAX_RECORD_BYTES * 3 // 4  # its quotes are doubled, and the rest of the row needs room
FLAGS = {True: "y", False: "n", None: ""}
# As ICSE exports it; readers look for some of these. What we have no word for stays empty.
ICSE_HEADER = (
    *("MD5", "SHA1", "PhotoDNA", "Image ID", "Is distributed", "Victim identified", "Offender identified"),
    *("Series name", "Number of submissions", "File Available", "Media Type", "Baseline"),
)


class GatewayCsvWriter:
    """Our own CSV, version 2."""

    digests: tuple[str, ...] = gateway_csv.DIGEST_COLUMNS
    columns = frozenset({"pdq_quality", "media_type", "series", "victim_ref", "seen"})
    attributes = frozenset({"handling", "category", "victim_status", "evaluation", "restrictions"})
    separator = b""

    def __init__(self, _options: WriteOptions) -> None:
        self.not_carried: Counter[str] = Counter()

    def head(self) -> tuple[bytes, bool]:
        """The header row."""
        return _line((*gateway_csv.COLUMNS, gateway_csv.GUARDED), gateway_csv.DELIMITER), False

    def records(self, batch: Batch) -> list[bytes]:
        """One line for each row."""
        rows, label = batch.rows, batch.label
        status = str(label["victim_status"])
        same = {
            "category": str(label["category"]),
            "victim_status": "" if status == VictimStatus.WITHHELD else status,
            "evaluation": str(label["evaluation"]),
            "handling": str(label["handling"]),
            "restrictions": gateway_csv.RESTRICTION_SEPARATOR.join(map(str, _listed(label["restrictions"]))),
        }
        cells = {name: spelt(rows, name) for name in known_digests(self.digests, rows)}
        if "vpdq" in cells:
            cells["vpdq"] = [self._bounded(value) for value in cells["vpdq"]]
        cells |= {name: texts(rows, name) for name in ("media_type", "series", "victim_ref")}
        cells |= {name: [value] * rows.n for name, value in same.items()}
        cells["source_ref"] = list(batch.entries)
        cells["seen"] = moments(rows, "seen")
        cells["pdq_quality"] = [str(value or "") for value in rows.ints("pdq_quality").tolist()]
        marks = _guard(cells, rows.n)
        empty = [""] * rows.n
        columns = [cells.get(name, empty) for name in gateway_csv.COLUMNS]
        return [_line(row, gateway_csv.DELIMITER) for row in zip(*columns, marks, strict=True)]

    def tail(self) -> bytes:
        """Nothing."""
        return b""

    def _bounded(self, value: str) -> str:
        if len(value) <= MAX_VPDQ_CHARS:
            return value
        self.not_carried["vpdq"] += 1
        return ""


class IcseCsvWriter:
    """INTERPOL's ICSE list."""

    digests: tuple[str, ...] = tuple(icse_csv.DIGEST_COLUMNS.values())
    columns = frozenset({"media_type", "series"})
    attributes = frozenset({"victim_status"})
    separator = b""

    def __init__(self, _options: WriteOptions) -> None:
        self.not_carried: Counter[str] = Counter()

    def head(self) -> tuple[bytes, bool]:
        """The header row."""
        return _line(ICSE_HEADER, icse_csv.DELIMITER), False

    def records(self, batch: Batch) -> list[bytes]:
        """One line for each row."""
        rows = batch.rows
        cells = {
            column: [value.upper() for value in spelt(rows, name)]
            for column, name in icse_csv.DIGEST_COLUMNS.items()
            if name in rows.columns
        }
        cells[icse_csv.IMAGE_ID] = list(batch.entries)
        cells[icse_csv.VICTIM_IDENTIFIED] = [FLAGS[identified(self, batch)]] * rows.n
        cells[icse_csv.SERIES_NAME] = self._safe(rows, "series")
        cells[icse_csv.MEDIA_TYPE] = self._safe(rows, "media_type")
        empty = [""] * rows.n
        columns = [cells.get(name, empty) for name in ICSE_HEADER]
        return [_line(row, icse_csv.DELIMITER) for row in zip(*columns, strict=True)]

    def tail(self) -> bytes:
        """Nothing."""
        return b""

    def _safe(self, rows: Rows, name: str) -> list[str]:
        """The texts of a column but those that a spreadsheet might run."""
        found = texts(rows, name)
        risky = [is_risky(text) for text in found]
        if any(risky):
            self.not_carried[name] += sum(risky)
        return ["" if bad else text for text, bad in zip(found, risky, strict=True)]


def _guard(cells: dict[str, list[str]], n: int) -> list[str]:
    """Guard the texts that need it; the cell `guarded` of each row."""
    marks: list[list[str]] = [[] for _ in range(n)]
    for name in gateway_csv.GUARDABLE:
        risky = {text for text in set(cells[name]) if is_risky(text)}
        if not risky:
            continue
        for row, text in enumerate(cells[name]):
            if text in risky:
                marks[row].append(name)
        cells[name] = [guarded(text) if text in risky else text for text in cells[name]]
    return [gateway_csv.RESTRICTION_SEPARATOR.join(names) for names in marks]


def _listed(value: object) -> list[object]:
    assert isinstance(value, list), "restrictions are a list"
    return value


def _line(cells: Sequence[str], delimiter: str) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return sink.getvalue().encode()
