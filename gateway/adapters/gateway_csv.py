"""Our own CSV for hash lists, `contracts/hash-csv-1.md`: what a team writes when it has no export of its own.

Version 2 (`contracts/hash-csv-2.md`) has one column more, `guarded`: it names the texts of its row that are written so
that no spreadsheet runs them.

Rules:
- Commas, UTF-8, a header row that names the columns in any order. A column that the contract does not know refuses the
  file: a misspelt name must not lose a column.
- An empty cell states nothing. A row states at least one digest.
- A PDQ whose stated quality is under 50 is dropped and counted; the rest of its row stays.

Worked example, after the header `sha256,category,seen`: the row `FFF52D62…3D65,xa:3,2026-01-15` is a draft with 32
bytes SHA-256, category "xa:3" and seen 1768435200.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import BinaryIO, TypeVar

from gateway.adapters.columnar import MAX_KNOWN, CsvForm, csv_batches
from gateway.adapters.fields import (
    DIGEST_READERS,
    MIN_PDQ_QUALITY,
    read_moment,
    read_pdq_quality,
    read_text,
)
from gateway.adapters.guarding import unguarded
from gateway.adapters.rows import (
    NO_DIGEST,
    WHOLE_ROW,
    CsvFile,
    ReadOptions,
    refusal,
    shown_name,
)
from gateway.columns.drafts import DraftBatch
from gateway.errors import MalformedError
from gateway.model import (
    CATEGORY,
    EVALUATION,
    AdapterReport,
    EntryDraft,
    HandlingCode,
    LabelWords,
    Restriction,
    VictimStatus,
)

DELIMITER = ","
DIGEST_COLUMNS = ("md5", "sha1", "sha256", "sha512", "pdq", "photodna", "ssdeep", "vpdq")
OTHER_COLUMNS = (
    "pdq_quality",
    "source_ref",
    "media_type",
    "category",
    "series",
    "victim_ref",
    "victim_status",
    "evaluation",
    "handling",
    "restrictions",
    "seen",
)
COLUMNS = (*DIGEST_COLUMNS, *OTHER_COLUMNS)
GUARDED = "guarded"  # version 2 alone has it
GUARDABLE = ("media_type", "category", "series", "victim_ref")
TEXT_COLUMNS = ("source_ref", "media_type", "series", "victim_ref")
WORD_COLUMNS = ("victim_status", "evaluation", "handling", "restrictions", "category")
RESTRICTION_SEPARATOR = "|"

_Word = TypeVar("_Word", VictimStatus, HandlingCode)

# "withheld" is what policy puts where it leaves a status out; no list states it.
_VICTIM_STATUS = {str(status): status for status in VictimStatus if status is not VictimStatus.WITHHELD}
_HANDLING = {str(code): code for code in HandlingCode}
_RESTRICTIONS = {str(tag): tag for tag in Restriction}


def read(source: BinaryIO, report: AdapterReport, _options: ReadOptions) -> Iterator[DraftBatch]:
    """The drafts of a list after `contracts/hash-csv-1.md`."""
    file = CsvFile(source, DELIMITER)
    header = file.header()
    _check_header(header)
    yield from csv_batches(file, _form(header), report, _row_reader(header, report))


def _check_header(header: list[str]) -> None:
    for position, name in enumerate(header, 1):
        if name not in (*COLUMNS, GUARDED):
            raise MalformedError(
                f"the header has {shown_name(name, position)}, which the contract does not know",
                place="header",
                remedy=f"the columns are {', '.join(COLUMNS)}",
            )
    if not set(header) & set(DIGEST_COLUMNS):
        raise MalformedError(
            "the header names no digest", place="header", remedy=f"name one of {', '.join(DIGEST_COLUMNS)}"
        )


def _form(header: list[str]) -> CsvForm:
    at = {name: index for index, name in enumerate(header)}
    absent = len(header)
    return CsvForm(
        absent,
        [(at[name], name) for name in DIGEST_COLUMNS if name in at],
        [(at[name], name) for name in TEXT_COLUMNS if name in at],
        [at.get(name, absent) for name in WORD_COLUMNS],
        _words,
        seen_at=at.get("seen", -1),
        quality_at=at.get("pdq_quality", -1),
        singly_at=at.get(GUARDED, -1),
    )


@lru_cache(maxsize=MAX_KNOWN)
def _words(status: str, evaluation: str, handling: str, tags: str, category: str) -> LabelWords:
    return LabelWords(
        _word(_HANDLING, handling, "handling"),
        _category(category),
        _word(_VICTIM_STATUS, status, "victim_status"),
        _evaluation(evaluation),
        _restrictions(tags),
    )


def _row_reader(header: list[str], report: AdapterReport) -> Callable[[list[str]], EntryDraft]:
    """What turns the cells of one row into a draft; the header is looked at once, here, and not once a row."""
    at = {name: index for index, name in enumerate(header)}
    digest_cells = [(at[name], name, DIGEST_READERS[name]) for name in DIGEST_COLUMNS if name in at]
    absent = len(header)  # each row gets one empty cell more, at which every absent column looks
    other_cells = itemgetter(*(at.get(name, absent) for name in OTHER_COLUMNS))
    guarded_at = at.get(GUARDED, absent)
    guardable = {name: at.get(name, absent) for name in GUARDABLE}

    def draft(cells: list[str]) -> EntryDraft:
        digests = {name: read(cell, name) for index, name, read in digest_cells if (cell := cells[index].strip())}
        cells.append("")
        if cells[guarded_at]:
            _unguard(cells, cells[guarded_at], guardable)
        quality, ref, media, category, series, victim, status, evaluation, handling, tags, seen = other_cells(cells)
        pdq_quality = _keep_pdq(digests, quality, report) if quality else 0
        if not digests:
            raise refusal(WHOLE_ROW, NO_DIGEST)
        return EntryDraft(
            digests,
            source_ref=ref and read_text(ref, "source_ref"),
            media_type=media and read_text(media, "media_type"),
            category=category and _category(category),
            series=series and read_text(series, "series"),
            victim_ref=victim and read_text(victim, "victim_ref"),
            victim_status=_word(_VICTIM_STATUS, status, "victim_status") if status else None,
            evaluation=evaluation and _evaluation(evaluation),
            handling=_word(_HANDLING, handling, "handling") if handling else None,
            restrictions=_restrictions(tags) if tags else (),
            pdq_quality=pdq_quality,
            seen=_seen(seen, report) if seen else 0,
        )

    return draft


def _unguard(cells: list[str], names: str, places: Mapping[str, int]) -> None:
    """Put the texts that the cell `guarded` names into the row as they were."""
    for name in names.strip().split(RESTRICTION_SEPARATOR):
        if name not in places:
            raise refusal(GUARDED, f"has a name that is not one of {', '.join(places)}")
        cells[places[name]] = unguarded(cells[places[name]].strip(), name)


def _keep_pdq(digests: dict[str, bytes], cell: str, report: AdapterReport) -> int:
    """The quality to carry, 0 for none; takes a PDQ of too little quality out of `digests`."""
    quality = read_pdq_quality(cell, "pdq_quality")
    if quality is None:
        return 0
    if "pdq" not in digests:
        report.drop("pdq_quality")
        return 0
    if quality < MIN_PDQ_QUALITY:
        del digests["pdq"]
        report.drop("pdq")
        return 0
    return quality


def _category(cell: str) -> str:
    word = cell.strip()
    if word and not CATEGORY.fullmatch(word):
        raise refusal("category", "is not scheme:code")
    return word


def _evaluation(cell: str) -> str:
    word = cell.strip()
    if word and not EVALUATION.fullmatch(word):
        raise refusal("evaluation", "is not a letter A to F and a digit 1 to 6")
    return word


def _word(words: Mapping[str, _Word], cell: str, field: str) -> _Word | None:
    """The member of a closed list that the cell names."""
    word = cell.strip()
    if word and word not in words:
        raise refusal(field, f"is not one of {', '.join(words)}")
    return words.get(word)


def _restrictions(cell: str) -> tuple[Restriction, ...]:
    if not cell.strip():
        return ()
    words = {word.strip() for word in cell.split(RESTRICTION_SEPARATOR)}
    if not words <= _RESTRICTIONS.keys():
        raise refusal("restrictions", f"has a tag that is not one of {', '.join(_RESTRICTIONS)}")
    return tuple(_RESTRICTIONS[word] for word in sorted(words))


def _seen(cell: str, report: AdapterReport) -> int:
    seconds = read_moment(cell, "seen")
    if not seconds and cell.strip():  # a program's word for "never"
        report.drop("seen")
    return seconds
