"""A case record as plain values (objects, lists, texts, numbers) and back, for the forms in which people write cases.

The names are the record's own, so a field that is added to the record is in these forms too. A value may be written as
text where a table knows nothing else: `"80"` is a number, `"yes"` a flag. What is absent, null or empty is not stated.

Worked example: `{"kind": "object", "text": "a red bag", "confidence": 80, "source": "analyst"}` is a `Clue`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cache, partial
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from gateway.adapters.fields import DIGEST_READERS, read_flag
from gateway.adapters.jsonrows import Doubled
from gateway.adapters.rows import WHOLE_ROW, refusal
from gateway.caserecord import CaseRecord
from gateway.errors import MalformedError
from gateway.model import CRYPTOGRAPHIC

DIGESTS = tuple[tuple[str, bytes], ...]
EXTENSIONS = tuple[tuple[str, str], ...]
ALGORITHMS = (*CRYPTOGRAPHIC, "pdq")
MOMENTS = frozenset({"opened", "updated", "at"})  # whole seconds in the record, a date or date-time here
SORTED = frozenset({"restrictions", "onward", "aliases"})  # sets, which the record keeps sorted

_T = TypeVar("_T")
_Read = Callable[[object, str], Any]
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:\d\d))?", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)  # 20 digits hold 64 bits
_SHOWABLE = re.compile(r"[a-z_]{1,24}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


def to_plain(record: CaseRecord) -> dict[str, object]:
    """Every member of the record, so that a person sees what can be stated; in its parts only what is."""
    return {field.name: _plain(field.name, getattr(record, field.name)) for field in fields(record)}


def from_plain(value: object) -> CaseRecord:
    """The record that `to_plain` wrote, or a person.

    Raises:
        MalformedError: a member that is not known, or a value that its field cannot hold; `place` is the field.
    """
    return _part(CaseRecord, value, "")


def part_to_plain(part: object) -> dict[str, object]:
    """What is stated of a part, or of a record, under the names of its fields."""
    plain = _plain("", part)
    assert isinstance(plain, dict)
    return plain


def part_from_plain(part: type[_T], value: object) -> _T:
    """The part that `part_to_plain` wrote.

    Raises:
        MalformedError: as of `from_plain`; `place` is the field.
    """
    return _part(part, value, "")


def moment_text(seconds: int) -> str:
    """A moment as these forms write it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


@cache
def hints(part: Any) -> dict[str, Any]:
    """The type of each field of a part."""
    return get_type_hints(part)


def inner(hint: Any) -> Any:
    """What a list is of, or what an optional value is; the type itself where it is neither."""
    if get_origin(hint) is tuple:
        return get_args(hint)[0]
    if get_origin(hint) is UnionType:
        return next(one for one in get_args(hint) if one is not type(None))
    return hint


def _plain(name: str, value: Any) -> object:
    if name in MOMENTS:
        return moment_text(value)
    if name == "entry_id":
        return str(value)  # 64 bits are more than a number is in many a JSON reader
    if name == "digests":
        return {algorithm: digest.hex() for algorithm, digest in value}
    if name == "extensions":
        return [{"name": one, "text": text} for one, text in value]
    if isinstance(value, tuple):
        return [_plain("", one) for one in value]
    if is_dataclass(value):
        members = {field.name: getattr(value, field.name) for field in fields(value)}
        return {key: _plain(key, one) for key, one in members.items() if _is_stated(key, one)}
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, StrEnum) else value if _is_stated(name, value) else None


def _is_stated(name: str, value: object) -> bool:
    return value is not None and value not in ("", ()) and not (name == "entry_id" and value == 0)


def _part(part: type[_T], value: object, place: str) -> _T:
    """One part of a record, or the record."""
    members = _members(value, place)
    kind: Any = part  # a dataclass, as every part is
    known = {field.name: field for field in fields(kind)}
    for name in members:
        if name not in known:
            raise refusal(_named(place, name), "is not known here")
    values = {}
    for name, field in known.items():
        given = members.get(name)
        if given in (None, "") and _has_default(field):
            continue
        at = f"{place}.{name}" if place else name
        values[name] = _reader(name, hints(kind)[name])(given, at)
    try:
        return part(**values)
    except MalformedError as error:
        raise refusal(error.place or place or WHOLE_ROW, error.message) from error


def _named(place: str, name: str) -> str:
    """The place of a member, as far as its name can be shown: a value may stand where a name should."""
    shown = name if _SHOWABLE.fullmatch(name) else "?"
    return f"{place}.{shown}" if place else shown


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


@cache
def _reader(name: str, hint: Any) -> _Read:
    if name in MOMENTS:
        return _moment
    if hint == DIGESTS:
        return _digests
    if hint == EXTENSIONS:
        return _extensions
    if get_origin(hint) is tuple:
        return partial(_list, _value_reader(inner(hint)), name in SORTED)
    if get_origin(hint) is UnionType:
        return partial(_optional, _value_reader(inner(hint)))
    return _value_reader(hint)


def _value_reader(kind: type[Any]) -> _Read:
    if is_dataclass(kind):
        return partial(_part, kind)
    if issubclass(kind, StrEnum):
        return partial(_word, kind)
    readers: dict[type[object], _Read] = {str: _text, int: _number, bool: _flag, date: _day}
    return readers[kind]


def _members(value: object, place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise refusal(place or WHOLE_ROW, "is not an object")
    if isinstance(value, Doubled):
        raise refusal(place or WHOLE_ROW, "has a member twice")
    return value


def _list(read: _Read, is_set: bool, value: object, place: str) -> tuple[Any, ...]:
    if value in (None, ""):
        return ()
    if not isinstance(value, list):
        raise refusal(place, "is not a list")
    found = [read(one, f"{place}[{number}]") for number, one in enumerate(value)]
    if is_set and len(set(found)) < len(found):
        raise refusal(place, "has a value twice")
    return tuple(sorted(found)) if is_set else tuple(found)


def _optional(read: _Read, value: object, place: str) -> Any:
    return None if value in (None, "") else read(value, place)


def _text(value: object, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refusal(place, "is not text")
    return value.replace("\r\n", "\n")  # how some programs end a line within a text


def _number(value: object, place: str) -> int:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise refusal(place, "is missing" if value in (None, "") else "is not a whole number")
    return value


def _flag(value: object, place: str) -> bool:
    if isinstance(value, str):
        return bool(read_flag(value, place))
    if not isinstance(value, bool):
        raise refusal(place, "is neither true nor false")
    return value


def _word(words: type[StrEnum], value: object, place: str) -> StrEnum:
    if value in (None, ""):
        raise refusal(place, "is missing")
    if not isinstance(value, str) or value not in set(words):
        raise refusal(place, f"is not one of {', '.join(words)}")
    return words(value)


def _day(value: object, place: str) -> date:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise refusal(place, "is not a date as 2026-01-31")
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise refusal(place, "is not a date of the calendar") from error


def _moment(value: object, place: str) -> int:
    """Unix seconds of a date-time with its offset; of a date, its first second in UTC."""
    if value in (None, ""):
        raise refusal(place, "is missing")
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise refusal(place, "is not a date, or a date and time with its offset, as 2026-01-31T10:00:00Z")
    try:
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError as error:
        raise refusal(place, "is not a date of the calendar") from error
    if moment < _EPOCH:
        raise refusal(place, "is before 1970")
    return (moment - _EPOCH) // _SECOND


def _digests(value: object, place: str) -> tuple[tuple[str, bytes], ...]:
    if value is None:
        return ()
    found = []
    for name, digest in sorted(_members(value, place).items()):
        if name not in ALGORITHMS:
            raise refusal(place, f"names an algorithm that is not one of {', '.join(ALGORITHMS)}")
        if not isinstance(digest, str):
            raise refusal(f"{place}.{name}", "is not text")
        found.append((name, DIGEST_READERS[name](digest, f"{place}.{name}")))
    return tuple(found)


def _extensions(value: object, place: str) -> tuple[tuple[str, str], ...]:
    if value in (None, ""):
        return ()
    if not isinstance(value, list):
        raise refusal(place, "is not a list")
    found = []
    for number, one in enumerate(value):
        members = _members(one, at := f"{place}[{number}]")
        if not members.keys() <= {"name", "text"}:
            raise refusal(at, "has another member than name and text")
        found.append((_text(members.get("name"), f"{at}.name"), _text(members.get("text"), f"{at}.text")))
    return tuple(sorted(found))
