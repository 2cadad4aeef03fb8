"""Our own CSV for cases, `contracts/case-csv-1.md`: one row a case, what repeats in numbered columns. In alone.

Rules:
- Commas, UTF-8, a header row that names the columns in any order: `originator`, `clue_1_text`, `victim_2_age_low`,
  `person_1_mark_1_kind`. A column that the contract does not know refuses the file: a misspelt name must not lose one.
- Numbers only set apart and order: gaps are no fault. A part whose cells are all empty is not there.
- An empty cell states nothing. Lists of words stand in one cell, with a bar between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache, partial
from typing import Any, BinaryIO, TypeAlias, get_origin

from gateway.adapters.caseparts import ALGORITHMS, DIGESTS, EXTENSIONS, from_plain, hints, inner
from gateway.adapters.caserows import CaseOptions, take
from gateway.adapters.rows import WHOLE_ROW, CsvColumns, CsvFile, CsvRow, refusal, shown_name
from gateway.caserecord import CaseRecord
from gateway.errors import MalformedError
from gateway.model import AdapterReport, require

DELIMITER = ","
WORD_SEPARATOR = "|"
NUMBER = "N"  # in a template: a number from 1 to 9999
MAX_COLUMNS = 4_096
# What a numbered column begins with, by the record's name of the list.
SINGULAR = {
    "clues": "clue",
    "time_frames": "time_frame",
    "places": "place",
    "victims": "victim",
    "history": "step",
    "persons": "person",
    "marks": "mark",
    "series": "series",
    "entries": "entry",
    "extensions": "extension",
}

Path: TypeAlias = "tuple[str | int, ...]"
Tree: TypeAlias = "dict[str | int, Any]"


def read(source: BinaryIO, report: AdapterReport, _options: CaseOptions) -> Iterator[CaseRecord]:
    """The cases of a table after `contracts/case-csv-1.md`."""
    file = CsvFile(source, DELIMITER)
    header = file.header()
    require(len(header) <= MAX_COLUMNS, f"the header has more than {MAX_COLUMNS} columns")
    paths = [_path(name, position) for position, name in enumerate(header, 1)]
    for line, cells, flaw in _rows(file, len(header)):
        record = take(report, line, partial(_case, header, paths, cells, flaw))
        if record is not None:
            yield record


@cache
def templates() -> dict[str, Path]:
    """Every column by its name, with N for a number: where in the record its cell goes."""
    return dict(_templates(CaseRecord, "", ()))


def _templates(part: Any, prefix: str, path: Path) -> Iterator[tuple[str, Path]]:
    for name, hint in hints(part).items():
        here, numbered = (*path, name), f"{prefix}{SINGULAR.get(name, name)}_{NUMBER}_"
        if hint == DIGESTS:
            yield from ((prefix + algorithm, (*here, algorithm)) for algorithm in ALGORITHMS)
        elif hint == EXTENSIONS:
            yield from ((numbered + one, (*here, NUMBER, one)) for one in ("name", "text"))
        elif is_dataclass(kind := inner(hint)):
            is_list = get_origin(hint) is tuple
            down = (numbered, (*here, NUMBER)) if is_list else (f"{prefix}{name}_", here)
            yield from _templates(kind, *down)
        else:
            yield prefix + name, here


def _path(name: str, position: int) -> Path:
    numbers = [int(number) for number in re.findall(r"_([1-9][0-9]{0,3})(?=_)", name)]
    template = templates().get(re.sub(r"_[1-9][0-9]{0,3}(?=_)", f"_{NUMBER}", name))
    if template is None or NUMBER in name.split("_"):
        raise MalformedError(
            f"the header has {shown_name(name, position)}, which the contract does not know",
            place="header",
            remedy="the columns stand in contracts/case-csv-1.md",
        )
    left = iter(numbers)
    return tuple(next(left) if step == NUMBER else step for step in template)


def _rows(file: CsvFile, width: int) -> Iterator[CsvRow]:
    for chunk in file.chunks(width):
        if isinstance(chunk, CsvColumns):
            for line, cells in enumerate(zip(*chunk.columns, strict=True), chunk.line):
                yield line, list(cells), ""
        else:
            yield from chunk


def _case(header: Sequence[str], paths: Sequence[Path], cells: list[str], flaw: str) -> CaseRecord:
    if flaw:
        raise refusal(WHOLE_ROW, flaw)
    if len(cells) != len(header):
        raise refusal(WHOLE_ROW, f"has {len(cells)} cells where the header has {len(header)}")
    tree: Tree = {}
    for path, cell in zip(paths, cells, strict=True):
        if value := cell.strip():
            _plant(tree, path, value)
    columns: dict[str, str] = {}
    plain = _settled(tree, "", "", columns)
    try:
        return from_plain(plain)
    except MalformedError as error:
        raise refusal(columns.get(error.place, error.place), error.message) from error


def _plant(tree: Tree, path: Path, value: str) -> None:
    for step in path[:-1]:
        tree = tree.setdefault(step, {})
    name = path[-1]
    tree[name] = [word.strip() for word in value.split(WORD_SEPARATOR)] if name in LISTS else value


LISTS = frozenset({"restrictions", "onward", "aliases"})


def _settled(tree: Any, place: str, column: str, columns: dict[str, str]) -> object:
    """Lists in the place of numbered parts; `columns` then has the column for each place of the plain values."""
    columns[place] = column or WHOLE_ROW
    if not isinstance(tree, dict):
        return tree
    if all(isinstance(step, int) for step in tree):
        numbers = enumerate(sorted(tree))
        return [_settled(tree[n], f"{place}[{i}]", f"{column}_{n}", columns) for i, n in numbers]
    found = {}
    for name, value in tree.items():
        below = "" if name == "digests" else SINGULAR.get(name, name)
        found[name] = _settled(value, f"{place}.{name}".lstrip("."), f"{column}_{below}".strip("_"), columns)
    return found
