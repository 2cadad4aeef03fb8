"""The lists of the demo: digests of made-up texts, invented series, and some rows as bad as real exports have them.

Everything follows from a number, so every run has the same lists. A PDQ value here is no perceptual hash of anything,
only 64 hexadecimal digits.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

COLUMNS = (
    "source_ref",
    "md5",
    "sha256",
    "pdq",
    "pdq_quality",
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
Row = dict[str, str]

# How many of a hundred entries carry which word; each sums to 100.
HANDLING = {"H0": 10, "H1": 60, "H2": 22, "H3": 8}
STATUS = {"identified": 80, "lead": 20}
EVALUATION = {"A1": 60, "B2": 34, "D4": 6}
CATEGORY = {"xa:1": 55, "xa:2": 45}

PLACES = ("Harbour", "Orchard", "Attic", "Lake", "Station", "Garden", "Cabin", "Meadow")
ENTRIES_A_SERIES = 40
EMBARGOED_SERIES = "Lantern 1"
EMBARGOED_IN = 160  # one entry in so many belongs to the embargoed series
GOOD_QUALITY = 50  # of a PDQ; below it the gateway does not carry the value
SHARED_IN = 20  # one entry in so many of XB's list is in XA's as well
FIRST_DAY = date(2026, 1, 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """Three digests of one made-up text."""

    md5: str
    sha256: str
    pdq: str


def sample(number: int) -> Sample:
    """The digests of the text `sample 000123`."""
    text = f"sample {number:06d}".encode()
    md5 = hashlib.md5(text, usedforsecurity=False).hexdigest()
    return Sample(md5, hashlib.sha256(text).hexdigest(), hashlib.sha256(b"pdq of " + text).hexdigest())


def write_xa_list(path: Path, entries: int) -> int:
    """XA's export: so many good rows with the bad ones scattered among them; returns how many are bad."""
    bad = list(bad_rows())
    rows = [xa_row(number) for number in range(entries)]
    for at, row in enumerate(bad, 1):
        rows.insert(at * entries // (len(bad) + 1), row)
    _write(path, rows)
    return len(bad)


def write_late_finds(path: Path, entries: int, first: int) -> None:
    """What XA adds later: new entries that everybody may have."""
    _write(path, [{**xa_row(number), **EASY} for number in range(first, first + entries)])


def write_xb_list(path: Path, entries: int, first: int) -> None:
    """XB's own export. Some of its pictures are in XA's list as well, which knows who the child is."""
    _write(path, [xb_row(number, first) for number in range(entries)])


def xa_row(number: int) -> Row:
    """One entry of XA's list."""
    found, dice = sample(number), _dice(number)
    row = {
        "source_ref": f"XA-{number:06d}",
        "md5": found.md5,
        "sha256": found.sha256,
        "pdq": found.pdq,
        "pdq_quality": str(40 + dice[0] % 61),
        "media_type": "video/mp4" if dice[1] % 5 == 0 else "image/jpeg",
        "category": _pick(CATEGORY, dice[2]),
        "series": series(number),
        "victim_ref": f"v-{number // ENTRIES_A_SERIES:05d}",
        "victim_status": _pick(STATUS, dice[3]),
        "evaluation": _pick(EVALUATION, dice[4]),
        "handling": _pick(HANDLING, dice[5]),
        "restrictions": "",
        "seen": str(FIRST_DAY + timedelta(days=number % 180)),
    }
    if is_shared(number):
        row |= EASY
    if number % EMBARGOED_IN == EMBARGOED_IN - 1:
        row |= {**EASY, "series": EMBARGOED_SERIES, "restrictions": "embargo"}
    return row


# An entry that no rule holds back: what the story follows from one end to the other.
EASY: Row = {"handling": "H1", "evaluation": "A1", "victim_status": "identified", "category": "xa:1"}


def xb_row(number: int, first: int) -> Row:
    """One entry of XB's list: its own finds from `first` on, and now and then a picture that XA has too."""
    shared = number % SHARED_IN == 0
    found, dice = sample(number if shared else first + number), _dice(first + number)
    return {
        "source_ref": f"XB-{number:06d}",
        "md5": found.md5,
        "sha256": found.sha256,
        "media_type": "image/jpeg",
        "category": "xb:a",
        "series": "",
        "victim_status": "unidentified" if shared else _pick(STATUS, dice[3]),
        "evaluation": "B2",
        "handling": _pick({"H1": 75, "H2": 25}, dice[5]),
        "seen": str(FIRST_DAY + timedelta(days=number % 180)),
    }


def is_shared(number: int) -> bool:
    """True for the entries that XB's list has as well."""
    return number % SHARED_IN == 0


def bad_rows() -> Iterator[Row]:
    """Rows that real exports have: cut off, failed, guessed."""
    faults: tuple[Row, ...] = (
        {"md5": sample(900_001).md5[:-1]},  # cut off by somebody's column width
        {"sha256": "0" * 64},  # a hash that failed
        {"md5": hashlib.md5(b"", usedforsecurity=False).hexdigest()},  # the hash of an empty file
        {"handling": "H9"},
        {"category": "worst"},
        {"seen": "2026-02-30"},
        {"md5": "", "sha256": "", "pdq": "", "pdq_quality": ""},
    )
    for at, fault in enumerate(faults):
        yield {**xa_row(900_000 + at), **fault}


def series(number: int) -> str:
    """The series of an entry; one entry in three has none."""
    run = number // ENTRIES_A_SERIES
    return "" if run % 3 == 2 else f"{PLACES[run % len(PLACES)]} {run}"


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.DictWriter(sink, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _dice(number: int) -> bytes:
    """Bytes that look like chance and are the same at every run."""
    return hashlib.sha256(f"dice {number}".encode()).digest()


def _pick(shares: dict[str, int], die: int) -> str:
    """The word that a byte falls on."""
    left = die * 100 // 256
    for word, share in shares.items():
        if left < share:
            return word
        left -= share
    raise ValueError("the shares do not sum to 100")
