"""Hash entries out: what every form of file has in common. One file of this package per form, named in `WRITERS`.

Rules:
- A writer is given what the recipient may see, and nothing else: columns of permitted groups, the label as it is shown.
- A row of which no digest may be shown, or none for which the form has a name, is not written: nothing could be found
  by it.
- Nothing is lost silently: a value for which a form has no place, or which it cannot hold safely, is counted in
  `not_carried`, under its column or attribute.
- The entry's id stands where the form has a reference, so a later file speaks of the same entry. Our own reference
  never leaves.
- What is written is read back by the reader of the same form (`docs/exporting.md` has a table of what becomes of what).
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from gateway.columns.rows import COLUMNS, LOCAL_GROUP, ColumnKind, Rows
from gateway.model import CATEGORY, DIGEST_BYTES, VictimStatus, require

BOOKKEEPING = frozenset({"kind", "seq", "entry_id", "version", "changed_at"})  # of the exchange, not of the entry
ATTRIBUTES = ("handling", "category", "victim_status", "evaluation", "restrictions")  # of a label, that readers know
# What a form with one flag can say of how far a search is; of "unknown" and "closed" it says nothing.
IDENTIFIED = {
    VictimStatus.IDENTIFIED: True,
    VictimStatus.SAFEGUARDED: True,
    VictimStatus.UNIDENTIFIED: False,
    VictimStatus.LEAD: False,
}
_UNSTATED: tuple[object, ...] = ("", [], str(VictimStatus.UNKNOWN), str(VictimStatus.WITHHELD))


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """What a file says as a whole.

    Args:
        set_name: in full.
        jurisdiction: whose law the set is under.
        created: Unix seconds of the set's beginning.
        bundle: words that name this file among all, for forms in which a file has an id.
        category_scheme: the scheme whose codes may stand as bare numbers, for forms that know nothing else.
    """

    set_name: str
    jurisdiction: str
    created: int
    bundle: str
    category_scheme: str = "vics-default"

    def __post_init__(self) -> None:
        require(CATEGORY.fullmatch(f"{self.category_scheme}:0"), "category_scheme is not the scheme of a category")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows of one shape under one label, as the recipient may see them.

    Args:
        label: its attributes; the victim status is "withheld" where that group is.
        duties: what the recipient takes upon itself.
        entries: the entry id of each row, as people write it.
    """

    rows: Rows
    label: Mapping[str, object]
    duties: Sequence[str]
    entries: Sequence[str]


class FileWriter(Protocol):
    """One form. A file is `head`, the records with `separator` between them, `tail`."""

    digests: tuple[str, ...]
    columns: frozenset[str]  # besides digests
    attributes: frozenset[str]
    separator: bytes
    not_carried: Counter[str]

    def head(self) -> tuple[bytes, bool]:
        """The beginning, and whether a record stands in it already."""

    def records(self, batch: Batch) -> list[bytes]:
        """One record for each row."""

    def tail(self) -> bytes:
        """The end."""


def pieces(writer: FileWriter, batches: Iterable[Batch]) -> Iterator[bytes]:
    """The file, piece by piece. Every batch has a digest that the writer has a name for (`fits`)."""
    head, follows = writer.head()
    yield head
    for batch in batches:
        _count_not_carried(writer, batch)
        yield (writer.separator if follows else b"") + writer.separator.join(writer.records(batch))
        follows = True
    yield writer.tail()


def fits(writer: FileWriter, rows: Rows) -> bool:
    """Whether these rows have a digest that the writer has a name for."""
    return any(name in rows.columns for name in writer.digests)


def _count_not_carried(writer: FileWriter, batch: Batch) -> None:
    rows = batch.rows
    for name in rows.columns:
        column = COLUMNS[name]
        if name in BOOKKEEPING or column.group == LOCAL_GROUP or name in writer.digests or name in writer.columns:
            continue
        if count := _stated(rows, name, column.kind):
            writer.not_carried[name] += count
    for name in ATTRIBUTES:
        if name not in writer.attributes and batch.label[name] not in _UNSTATED:
            writer.not_carried[name] += rows.n


def _stated(rows: Rows, name: str, kind: ColumnKind) -> int:
    """How many rows say something in a column."""
    if kind is ColumnKind.INT:
        return int((rows.ints(name) > 0).sum())
    return int((rows.text(name).lengths > 0).sum()) if kind is ColumnKind.TEXT else rows.n


# Values as texts


def spelt(rows: Rows, name: str, *, base64: bool = False) -> list[str]:
    """A digest column as texts: lower-case hexadecimal (or base64), text digests as they stand."""
    width = DIGEST_BYTES[name]
    if width is None:
        return rows.text(name).to_list()
    raw = rows.octets(name).tobytes()
    if base64:
        return [b64encode(raw[start : start + width]).decode() for start in range(0, len(raw), width)]
    digits = raw.hex()
    return [digits[start : start + 2 * width] for start in range(0, len(digits), 2 * width)]


def texts(rows: Rows, name: str) -> list[str]:
    """A text column; empty texts where it is absent."""
    return rows.text(name).to_list() if name in rows.columns else [""] * rows.n


def moments(rows: Rows, name: str) -> list[str]:
    """A column of Unix seconds as ISO 8601, "" where nothing is stated."""
    return [_moment(seconds) for seconds in rows.ints(name).tolist()]


@lru_cache(maxsize=4096)  # the dates of a list repeat
def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds else ""


def identified(writer: FileWriter, batch: Batch) -> bool | None:
    """Whether the child is identified, None where that is not said; a status that is neither is counted."""
    status = str(batch.label["victim_status"])
    found = IDENTIFIED.get(VictimStatus(status))
    if found is None and status not in _UNSTATED:
        writer.not_carried["victim_status"] += batch.rows.n
    return found


def known_digests(names: Iterable[str], rows: Rows) -> list[str]:
    """Those of these digests that the rows have."""
    return [name for name in names if name in rows.columns]
