"""Tables that say what another scheme's categories are in ours: read strictly, asked by code. Pure.

    table = "category mapping 1"
    scheme = "xb-manual"                # whose codes are mapped
    into = "xa-code"                    # our scheme
    version = 2
    source = "XB Police Manual 2025, annex C; XA Penal Code, section 12"
    reviewed_by = "XA National Police, analysis unit"

    [[code]]
    from = "1"
    to = "A1"
    relation = "exact"

A relation says what *our* code is to theirs: `exact`; `broader` (ours takes in more than theirs); `narrower` (ours
takes in only a part of it); `none` (nothing of ours is like it). Nothing is guessed: a code that no table names is
unmapped.

Contract: contracts/category-mapping-1.md. The relations are those of SKOS (W3C, 2009, section 10).
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.errors import MalformedError
from gateway.model import MAX_TEXT_CHARS, require

VERSION = "category mapping 1"
MAX_TABLE_BYTES = 48 << 10  # it stands in a proposal, which has at most 128 KiB
MAX_CODES = 1_000
MAX_VERSION = 999_999
_WORD = re.compile(r"[A-Za-z0-9._-]{1,32}")  # as in `model.CATEGORY`, on either side of the colon
_MEMBERS = {"table", "scheme", "into", "version", "source", "reviewed_by", "code"}


class Relation(StrEnum):
    """What our code is to theirs."""

    EXACT = "exact"
    BROADER = "broader"
    NARROWER = "narrower"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Mapped:
    """A category in our scheme. `category` is empty where nothing of ours is like it; `table`: scheme and version."""

    category: str
    relation: Relation
    table: str = ""


@dataclass(frozen=True, slots=True)
class CategoryTable:
    """One table. `codes`: their code to ours, "" for none."""

    scheme: str
    into: str
    version: int
    source: str
    reviewed_by: str
    codes: Mapping[str, tuple[str, Relation]]
    digest: str

    @property
    def name(self) -> str:
        """The table as people name it."""
        return f"{self.scheme} {self.version}"


def parse(text: str) -> CategoryTable:
    """The table that a text holds.

    Raises:
        MalformedError: it breaks a rule of the contract; `place` names the code.
    """
    require(len(text.encode()) <= MAX_TABLE_BYTES, "the table is larger than 48 KiB")
    try:
        value: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MalformedError(f"the table is not TOML: {error}") from error
    require(set(value) == _MEMBERS, "the table has other members than the contract's")
    require(value["table"] == VERSION, f'the table does not begin with table = "{VERSION}"')
    version = value["version"]
    if type(version) is not int or not 0 < version <= MAX_VERSION:
        raise MalformedError("the version is not a number from 1 on", place="version")
    return CategoryTable(
        _word(value, "scheme"),
        _word(value, "into"),
        version,
        _line(value, "source"),
        _line(value, "reviewed_by"),
        _codes(value["code"], str(value["into"])),
        hashlib.sha256(text.encode()).hexdigest(),
    )


def mapped(category: str, tables: Iterable[CategoryTable]) -> Mapped | None:
    """What a category is in our scheme, None where no table says it. What is in our scheme already is itself."""
    scheme, _, code = category.partition(":")
    held = list(tables)
    for table in held:
        if table.scheme == scheme and code in table.codes:
            ours, relation = table.codes[code]
            return Mapped(ours, relation, table.name)
    if any(table.into == scheme != table.scheme for table in held) and not any(one.scheme == scheme for one in held):
        return Mapped(category, Relation.EXACT)
    return None


def _codes(value: object, into: str) -> dict[str, tuple[str, Relation]]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_CODES:
        raise MalformedError(f"the table has between 1 and {MAX_CODES} codes")
    found: dict[str, tuple[str, Relation]] = {}
    for number, one in enumerate(value, 1):
        place = f"code {number}"
        if not isinstance(one, dict) or not {"from", "relation"} <= set(one) <= {"from", "to", "relation"}:
            raise MalformedError("a code has from, relation and to, and nothing else", place=place)
        try:
            relation = Relation(str(one["relation"]))
        except ValueError as error:
            raise MalformedError("the relation is exact, broader, narrower or none", place=place) from error
        try:
            theirs = _word(one, "from")
            ours = f"{into}:{_word(one, 'to')}" if relation is not Relation.NONE else ""
        except MalformedError as error:
            raise MalformedError(error.message, place=place) from error
        if relation is Relation.NONE and "to" in one:
            raise MalformedError("what is like nothing of ours has no code of ours", place=place)
        if theirs in found:
            raise MalformedError("this code stands twice", place=place)
        found[theirs] = ours, relation
    return found


def _word(value: Mapping[str, object], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or _WORD.fullmatch(found) is None:
        raise MalformedError(f"{name} is not one word of a category")
    return found


def _line(value: Mapping[str, object], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= MAX_TEXT_CHARS or not found.isprintable():
        raise MalformedError(f"{name} is not one line of text")
    return found
