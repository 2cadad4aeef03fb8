"""The list that INTERPOL's ICSE database exports: the nearest thing that teams have to a list of identified victims.

Rules:
- CSV with semicolons. The header names the columns, in any order and any case. "Image ID", "Victim identified" and one
  digest column must be there: without them it is another file.
- "Image ID" becomes source_ref, "Series name" series, "Media Type" media_type; "Victim identified" yes or no becomes
  victim_status identified or unidentified, and stays unstated where the cell is empty.
- The file says nothing of a category: the set's default stands in for it.
- PhotoDNA may be base64, hexadecimal or decimals.
- Every other column is dropped at the door and counted where it has a value.

Worked example, after the header `MD5;Image ID;Victim identified`: the row `88653FC1…5C70;1001;Y` is a draft with 16
bytes MD5, source_ref "1001" and victim_status identified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import BinaryIO

from gateway.adapters.columnar import MAX_KNOWN, CsvForm, csv_batches
from gateway.adapters.fields import DIGEST_READERS, VICTIM_STATUS_BY_FLAG, read_flag, read_text
from gateway.adapters.rows import (
    NO_DIGEST,
    WHOLE_ROW,
    CsvFile,
    ReadOptions,
    drop_named,
    refusal,
)
from gateway.columns.drafts import DraftBatch
from gateway.errors import MalformedError
from gateway.model import AdapterReport, EntryDraft, LabelWords

DELIMITER = ";"
IMAGE_ID = "Image ID"
VICTIM_IDENTIFIED = "Victim identified"
SERIES_NAME = "Series name"
MEDIA_TYPE = "Media Type"
DIGEST_COLUMNS = {"MD5": "md5", "SHA1": "sha1", "PhotoDNA": "photodna"}
TEXT_COLUMNS = {IMAGE_ID: "source_ref", MEDIA_TYPE: "media_type", SERIES_NAME: "series"}
OTHER_COLUMNS = (IMAGE_ID, VICTIM_IDENTIFIED, SERIES_NAME, MEDIA_TYPE)


def read(source: BinaryIO, report: AdapterReport, _options: ReadOptions) -> Iterator[DraftBatch]:
    """The drafts of an ICSE export."""
    file = CsvFile(source, DELIMITER)
    header = file.header()
    reader = _row_reader(header, report)
    yield from csv_batches(file, _form(header), report, reader)


def _form(header: list[str]) -> CsvForm:
    at = {name.casefold(): index for index, name in enumerate(header)}
    absent = len(header)
    digests = [(at[name.casefold()], algorithm) for name, algorithm in DIGEST_COLUMNS.items() if name.casefold() in at]
    texts = [(at[name.casefold()], field) for name, field in TEXT_COLUMNS.items() if name.casefold() in at]
    identified_at = at[VICTIM_IDENTIFIED.casefold()]
    carried = {index for index, _ in (*digests, *texts)} | {identified_at}
    dropped = [(index, name) for index, name in enumerate(header) if index not in carried]
    return CsvForm(absent, digests, texts, [identified_at], _words, dropped=dropped)


@lru_cache(maxsize=MAX_KNOWN)
def _words(identified: str) -> LabelWords:
    return LabelWords(victim_status=VICTIM_STATUS_BY_FLAG[read_flag(identified, VICTIM_IDENTIFIED)])


def _row_reader(header: list[str], report: AdapterReport) -> Callable[[list[str]], EntryDraft]:
    """What turns the cells of one row into a draft; the header is looked at once, here, and not once a row."""
    at = {name.casefold(): index for index, name in enumerate(header)}
    digest_cells = [
        (at[column.casefold()], column, algorithm, DIGEST_READERS[algorithm])
        for column, algorithm in DIGEST_COLUMNS.items()
        if column.casefold() in at
    ]
    if not digest_cells or IMAGE_ID.casefold() not in at or VICTIM_IDENTIFIED.casefold() not in at:
        raise MalformedError(
            "the header is not that of an ICSE export",
            place="header",
            remedy=f"it has {IMAGE_ID}, {VICTIM_IDENTIFIED} and one of {', '.join(DIGEST_COLUMNS)}, with semicolons",
        )
    absent = len(header)  # each row gets one empty cell more, at which every absent column looks
    ref_at, identified_at, series_at, media_at = (at.get(name.casefold(), absent) for name in OTHER_COLUMNS)
    carried = {index for index, *_ in digest_cells} | {ref_at, identified_at, series_at, media_at}
    dropped_cells = [(index, name) for index, name in enumerate(header) if index not in carried]

    def draft(cells: list[str]) -> EntryDraft:
        cells.append("")
        for index, name in dropped_cells:
            if cells[index]:
                drop_named(report, name)
        digests = {
            algorithm: read(cell, column)
            for index, column, algorithm, read in digest_cells
            if (cell := cells[index].strip())
        }
        if not digests:
            raise refusal(WHOLE_ROW, NO_DIGEST)
        return EntryDraft(
            digests,
            source_ref=read_text(cells[ref_at], IMAGE_ID),
            media_type=read_text(cells[media_at], MEDIA_TYPE),
            series=read_text(cells[series_at], SERIES_NAME),
            victim_status=VICTIM_STATUS_BY_FLAG[read_flag(cells[identified_at], VICTIM_IDENTIFIED)],
        )

    return draft
