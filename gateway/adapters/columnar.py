"""Rows of a CSV file by the column, for rows that are as they should be.

To look at each cell by itself costs several times what an import does with it. Here whole columns are looked at at
once, thousands of rows at a time. Nothing is refused here and nothing repaired: rows that hold anything but plainly
good cells are left to the reader that takes one row at a time and knows every reason. Both make the same drafts and the
same report; a test holds them together, on any file.

Rows are parted by the digests that they have, so that each part has one shape. Where a part does not read well it is
halved, until the halves do or are short: a bad row costs the rows beside it and no more.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from gateway.adapters.fields import (
    DIGEST_READERS,
    MIN_PDQ_QUALITY,
    UNUSABLE_DIGESTS,
    read_moment,
    read_pdq_quality,
)
from gateway.adapters.rows import MAX_DROPPED_NAMES, WHOLE_ROW, CsvColumns, CsvFile, CsvRow, drop_named, refusal
from gateway.columns.drafts import DraftBatch
from gateway.columns.rows import Index, indexes
from gateway.errors import MalformedError
from gateway.model import DIGEST_BYTES, MAX_TEXT_CHARS, AdapterReport, EntryDraft, LabelWords

MAX_KNOWN = 4096  # cells whose meaning is kept from chunk to chunk: a list has few of each kind, or they do not repeat
HALVED_DOWN_TO = 16  # rows: as many are read one by one as soon as they are halved once more
Cells = Sequence[str]
Value = TypeVar("Value")
Piece = tuple[DraftBatch, Mapping[str, int]]  # what rows say, and what was dropped of them by field


@dataclass(frozen=True, slots=True)
class CsvForm:
    """Where things stand in the rows of a file.

    Args:
        digests: (place, algorithm).
        texts: (place, field of the draft).
        words_at, words: the places of what a row says of its label, and what such cells mean; the place `width` is an
            empty cell in every row.
        seen_at, quality_at: the places of a moment and of a PDQ quality, -1 where the file has none.
        singly_at: the place of a cell that, where it holds anything, has its row read by itself, -1 for none.
        dropped: (place, name) of what is counted and left behind.
    """

    width: int
    digests: Sequence[tuple[int, str]]
    texts: Sequence[tuple[int, str]]
    words_at: Sequence[int]
    words: Callable[..., LabelWords]
    seen_at: int = -1
    quality_at: int = -1
    singly_at: int = -1
    dropped: Sequence[tuple[int, str]] = ()


def csv_batches(
    file: CsvFile, form: CsvForm, report: AdapterReport, draft: Callable[[list[str]], EntryDraft]
) -> Iterator[DraftBatch]:
    """The drafts of the rows after the header.

    Args:
        draft: reads one row of `form.width` cells; MalformedError refuses it alone.
    """
    # More names may be dropped than are counted one by one: then which ones are, depends on the order of the rows.
    whole = len(form.dropped) <= MAX_DROPPED_NAMES
    for chunk in file.chunks(form.width):
        columns: Sequence[Cells]
        good: Sequence[int]
        if isinstance(chunk, CsvColumns):
            columns, count = chunk.columns, len(chunk.columns[0])
            good = range(count)
        else:
            good = [place for place, (_, cells, flaw) in enumerate(chunk) if not flaw and len(cells) == form.width]
            columns, count = list(zip(*(chunk[place][1] for place in good), strict=True)), len(chunk)
        report.read += count
        parts: list[tuple[DraftBatch, Index]] = []
        read: set[int] = set()
        for (batch, dropped), members in _good_pieces(form, columns, good) if whole and good else ():
            parts.append((batch, indexes(members)))
            read.update(members)
            report.accepted += batch.n
            for name, dropped_values in dropped.items():
                drop_named(report, name, count=dropped_values)
        if len(read) < count:
            rows = _as_rows(chunk)
            left = [(place, rows[place]) for place in range(count) if place not in read]
            parts.append(_one_by_one(left, form.width, report, draft))
        yield DraftBatch.merged(parts)


def _as_rows(chunk: CsvColumns | list[CsvRow]) -> list[CsvRow]:
    if isinstance(chunk, CsvColumns):
        return [(line, list(cells), "") for line, cells in enumerate(zip(*chunk.columns, strict=True), chunk.line)]
    return chunk


def _one_by_one(
    rows: Iterable[tuple[int, CsvRow]], width: int, report: AdapterReport, draft: Callable[[list[str]], EntryDraft]
) -> tuple[DraftBatch, Index]:
    """The drafts of rows that need a closer look, with their places."""
    accepted, drafts = [], []
    for place, (line, cells, flaw) in rows:
        try:
            if flaw or len(cells) != width:
                raise refusal(WHOLE_ROW, flaw or f"has {len(cells)} cells where the header has {width}")
            drafts.append(draft(cells))
        except MalformedError as error:
            report.refuse(line, error.place, error.message)
        else:
            accepted.append(place)
            report.accepted += 1
    return DraftBatch.of(drafts), indexes(accepted)


def _good_pieces(
    form: CsvForm, columns: Sequence[Cells], places: Sequence[int]
) -> Iterator[tuple[Piece, Sequence[int]]]:
    """What can be read of these rows, part by part, with the places of its rows."""
    columns = [*columns, ("",) * len(places)]
    odd = _odd_qualities(form, columns)
    if form.singly_at >= 0:
        odd |= {row for row, cell in enumerate(columns[form.singly_at]) if cell}
    digests = [columns[at] for at, _ in form.digests]
    uneven = [column for column in digests if "" in column and any(column)]
    if not odd and not uneven:
        yield from _pieces(form, columns, places)
        return
    parts: dict[tuple[bool, ...], list[int]] = {}  # rows by which digests they have
    for row in range(len(places)):
        if row not in odd:
            parts.setdefault(tuple([bool(column[row]) for column in uneven]), []).append(row)
    for members in parts.values():
        some = [[column[row] for row in members] for column in columns]
        yield from _pieces(form, some, [places[row] for row in members])


def _odd_qualities(form: CsvForm, columns: Sequence[Cells]) -> set[int]:
    """Rows whose PDQ is to go, or that speak of the quality of a PDQ that they do not have."""
    if form.quality_at < 0 or not any(columns[form.quality_at]):
        return set()
    qualities = columns[form.quality_at]
    pdq_at = next((at for at, algorithm in form.digests if algorithm == "pdq"), form.width)
    low = {cell for cell in set(qualities) if not _is_good_quality(cell)}
    if not low and "" not in columns[pdq_at]:
        return set()
    pairs = enumerate(zip(qualities, columns[pdq_at], strict=True))
    return {row for row, (quality, pdq) in pairs if quality in low or (quality and not pdq)}


def _is_good_quality(cell: str) -> bool:
    try:
        quality = read_pdq_quality(cell, "")
    except MalformedError:
        return False
    return quality is None or quality >= MIN_PDQ_QUALITY


def _pieces(form: CsvForm, columns: Sequence[Cells], places: Sequence[int]) -> Iterator[tuple[Piece, Sequence[int]]]:
    """What can be read of rows that have the same digests."""
    piece = _piece(form, columns, len(places))
    if piece is not None:
        yield piece, places
    elif len(places) > HALVED_DOWN_TO:
        middle = len(places) // 2
        yield from _pieces(form, [column[:middle] for column in columns], places[:middle])
        yield from _pieces(form, [column[middle:] for column in columns], places[middle:])


def _piece(form: CsvForm, columns: Sequence[Cells], n: int) -> Piece | None:
    """What n rows say that have the same digests; None when a cell needs a closer look."""
    made: dict[str, bytes | Sequence[bytes] | Sequence[str] | Sequence[int]] = {}
    dropped: dict[str, int] = {}
    try:
        for at, algorithm in form.digests:
            if columns[at][0]:
                made[algorithm] = read_digests(columns[at], algorithm)
        if not made:
            return None
        for at, field in form.texts:
            if any(columns[at]):
                made[field] = _read_texts(columns[at])
        if form.quality_at >= 0 and any(columns[form.quality_at]):
            made["pdq_quality"] = [value or 0 for value in _each(columns[form.quality_at], _quality)]
        if form.seen_at >= 0 and any(columns[form.seen_at]):
            seen = made["seen"] = list(_each(columns[form.seen_at], _moment))
            never = sum(
                not moment and bool(cell.strip()) for moment, cell in zip(seen, columns[form.seen_at], strict=True)
            )
            dropped |= {"seen": never} if never else {}
        words, stated = _read_words(form, columns)
    except MalformedError:
        return None
    dropped |= {name: n - columns[at].count("") for at, name in form.dropped if any(columns[at])}
    return DraftBatch.alike(n, made, words, stated), dropped


def read_digests(cells: Sequence[str] | Sequence[bytes], algorithm: str) -> bytes | list[bytes]:
    """The digests of these cells, one after the other where all have one width.

    Raises:
        MalformedError: a cell holds anything but the plain digits of a digest that may be taken in.
    """
    width = DIGEST_BYTES[algorithm]
    if width is None or algorithm not in UNUSABLE_DIGESTS:
        return [DIGEST_READERS[algorithm](str(cell), "") for cell in cells]
    if set(map(len, cells)) != {2 * width}:
        raise _irregular()
    try:
        joined = unhexlify("".join(cells) if isinstance(cells[0], str) else b"".join(cells))  # type: ignore[arg-type]  # all of one kind
    except ValueError as error:
        raise _irregular() from error
    # Wherever in the row it begins: then the cells are looked at one by one, and that is rare enough.
    if any(unusable in joined for unusable in UNUSABLE_DIGESTS[algorithm]):
        raise _irregular()
    return joined


def _read_texts(cells: Cells) -> list[str]:
    texts = list(map(str.strip, cells))
    # A space that is not plain is no control character, and passes where it is looked at by itself.
    if max(map(len, texts)) > MAX_TEXT_CHARS or not "".join(texts).isprintable():
        raise _irregular()
    return texts


def _read_words(form: CsvForm, columns: Sequence[Cells]) -> tuple[list[LabelWords], list[int]]:
    """What rows say of their labels, each once, and the number of what each row says."""
    cells: dict[tuple[str, ...], int] = {}
    rows = zip(*(columns[at] for at in form.words_at), strict=True)
    stated = [cells.setdefault(row, len(cells)) for row in rows]
    words: dict[LabelWords, int] = {}
    numbers = [words.setdefault(form.words(*row), len(words)) for row in cells]
    return list(words), [numbers[number] for number in stated]


def _each(cells: Cells, read: Callable[[str], Value]) -> Iterator[Value]:
    """What each cell means; they repeat, so each text is read once."""
    known = {cell: read(cell) for cell in set(cells)}
    return map(known.__getitem__, cells)


@lru_cache(maxsize=MAX_KNOWN)
def _quality(cell: str) -> int | None:
    return read_pdq_quality(cell, "")


def _moment(cell: str) -> int:
    return read_moment(cell, "")


def _irregular() -> MalformedError:
    return MalformedError("a cell needs a closer look")
