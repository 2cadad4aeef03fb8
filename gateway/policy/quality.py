"""When a program may act on an entry by itself: the part of policy that `quality.toml` says.

    [use]
    law = "XA Police Data Act 2019, section 50 (automated processing)"
    says = "Three agencies of these four stand behind what is acted on automatically."
    reviewed_by = "XA Data Protection Authority, police section"
    valid_until = "2034-12-31"
    agencies = 3
    of = ["XA-NCVI", "XB-NCVI", "XC-NCVI", "XD-NCVI"]
    listing = false
    disputes = 1
    relations = ["exact", "broader"]

It stands in the folder of the jurisdiction, so it is part of the policy's digest: what it says comes into force as
every rule does, signed by a quorum, at once or on a day. Without it, and after its day, the default holds, and what it
made stricter stays: a date that passes opens nothing.

Contract: contracts/quality-1.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

from gateway.categories import Relation
from gateway.errors import ConfigError
from gateway.model import AGENCY, MAX_TEXT_CHARS

QUALITY_FILE = "quality.toml"
LEAST_AGENCIES = 2  # one alone is a single source, whoever it is
MOST_AGENCIES = 100
_LINES = ("law", "says", "reviewed_by", "valid_until")
_MEMBERS = {*_LINES, "agencies", "of", "listing", "disputes", "relations"}
_USABLE = (Relation.EXACT, Relation.BROADER, Relation.NARROWER)


@dataclass(frozen=True, slots=True)
class UseRule:
    """What must be so before a program acts on an entry.

    `agencies`: how many stand behind it, its owner among them. `of`: whose word counts, () for ours and every active
    partner's. `listing`: whether an agency that lists the same file in a set of its own stands behind it. `disputes`:
    so many keep it from being used. `relations`: of its category to ours.
    """

    agencies: int = LEAST_AGENCIES
    of: tuple[str, ...] = ()
    listing: bool = False
    disputes: int = 1
    relations: frozenset[Relation] = frozenset(_USABLE)
    law: str = ""
    says: str = "Its owner and one more agency stand behind it, and nobody disputes it."
    reviewed_by: str = ""
    valid_until: date | None = None
    lapsed: bool = False

    @property
    def words(self) -> str:
        """In one line, for whoever signs it."""
        of = f"{self.agencies} of {', '.join(self.of)}" if self.of else f"{self.agencies} agencies"
        listing = "listing counts" if self.listing else "listing does not count"
        relations = "/".join(str(one) for one in Relation if one in self.relations)
        return f"{of}; {listing}; {self.disputes} disputing keep it from use; categories {relations}"

    def on(self, day: date) -> UseRule:
        """The rule as it holds on a day: after its last one it is at least as strict as the default, and as it was."""
        if self.valid_until is None or day <= self.valid_until:
            return self
        return replace(self, agencies=max(self.agencies, LEAST_AGENCIES), listing=False, disputes=1, lapsed=True)


DEFAULT_USE = UseRule()


def parse_quality(text: str, place: str) -> UseRule:
    """The rule of a `quality.toml`.

    Args:
        place: the file, for errors.

    Raises:
        ConfigError: it is not TOML, or not as the contract says.
    """
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"this is not TOML: {error}", place=place) from error
    use = value.get("use")
    if set(value) != {"use"} or not isinstance(use, dict):
        raise ConfigError("the file has one table, [use]", place=place)
    unknown, missing = sorted(set(use) - _MEMBERS), sorted({*_LINES, "agencies"} - set(use))
    if unknown or missing:
        raise ConfigError(f"[use] has {unknown[0]}" if unknown else f"[use] lacks {missing[0]}", place=place)
    lines = {name: _line(use, name, place) for name in _LINES}
    of, agencies = _of(use.get("of", []), place), use["agencies"]
    most = len(of) or MOST_AGENCIES
    _check(_is_whole(agencies) and LEAST_AGENCIES <= agencies <= most, f"agencies is not from 2 to {most}", place)
    disputes, listing = use.get("disputes", 1), use.get("listing", False)
    _check(_is_whole(disputes) and 1 <= disputes <= MOST_AGENCIES, "disputes is not from 1 to 100", place)
    _check(isinstance(listing, bool), "listing is not true or false", place)
    relations = use.get("relations", list(_USABLE))
    known = isinstance(relations, list) and relations and set(map(str, relations)) <= set(map(str, _USABLE))
    _check(known, "relations are of exact, broader and narrower", place)
    try:
        until = date.fromisoformat(lines["valid_until"])
    except ValueError as error:
        raise ConfigError("valid_until is not a day YYYY-MM-DD", place=place) from error
    named = frozenset(Relation(str(one)) for one in relations)
    return UseRule(agencies, of, listing, disputes, named, lines["law"], lines["says"], lines["reviewed_by"], until)


def _of(value: object, place: str) -> tuple[str, ...]:
    known = isinstance(value, list) and all(isinstance(one, str) and AGENCY.fullmatch(one) for one in value)
    if not known or not isinstance(value, list) or len(set(value)) != len(value) or len(value) > MOST_AGENCIES:
        raise ConfigError("of is not a list of agencies, each once", place=place)
    return tuple(sorted(str(one) for one in value))


def _line(use: Mapping[str, object], name: str, place: str) -> str:
    found = use[name]
    if not isinstance(found, str) or not 0 < len(found) <= MAX_TEXT_CHARS or not found.isprintable():
        raise ConfigError(f"{name} is not one line of text", place=place)
    if name == "reviewed_by" and found.strip().casefold().startswith("nobody"):
        raise ConfigError("nobody has reviewed this rule", place=place, remedy="name the office in reviewed_by")
    return found


def _is_whole(value: object) -> bool:
    return type(value) is int


def _check(condition: object, message: str, place: str) -> None:
    if not condition:
        raise ConfigError(message, place=place)
