"""What the adapters of foreign case formats have in common: texts, digests and refusals of one case.

Rules:
- A foreign text may name a file, an address on the net or a path. Whoever follows it may end at imagery, so every word
  that looks like one is left out, `LEFT_OUT` stands in its place, and it is counted.
- A text longer than a case record holds is cut at its bound, and counted.
- A digest that this gateway does not carry with a case, or that matches what it must not, is dropped and counted. One
  of the wrong length is damaged: the case is refused.
- A form that counts no versions has the minute since 1970 in which a case was changed last, or else taken in.
- A confidence that is not stated is `UNSTATED_CONFIDENCE`, so that nothing follows from it by itself.

Worked example: `plain_text("see https://x.example/a and a.jpg", "note", report)` is `see [left out] and [left out]`;
the report counts two words under "note: address, path or file name".
"""

from __future__ import annotations

import re
import unicodedata
from binascii import unhexlify
from collections.abc import Iterable

from gateway.adapters.fields import DIGEST_READERS, UNUSABLE_DIGESTS
from gateway.adapters.rows import drop_named, refusal
from gateway.caserecord import MAX_NOTE_CHARS, CaseRecord, EntryReference
from gateway.errors import MalformedError
from gateway.model import CRYPTOGRAPHIC, MAX_TEXT_CHARS, AdapterReport

LEFT_OUT = "[left out]"
UNSTATED_CONFIDENCE = 0
CASE_DIGESTS = (*CRYPTOGRAPHIC, "pdq")  # those that a case names, as `EntryReference` has it
MAX_WORD_CHARS = 64  # of a word of any language; what is longer is an encoded thing, perhaps a picture
_SPELLING = str.maketrans("", "", " -_")
_WORD = re.compile(r"\S+")
# Anything with a scheme or a drive, a backslash, two slashes or one at its beginning, a host (also one written so that
# no program follows it), or the name of a file.
_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]*:(?://|\\)|\b(?:data|file|magnet|mailto|blob):|\\|^\W*[/~]|/.*/|\bwww\.|"
    r"[^\W_]\.[^\W\d_][^\W_]{1,23}\b|[^\W_]\.[a-z]{2,24}/|\d{1,3}(?:\.\d{1,3}){3}[:/]|[\[({](?:\.|dot)[\])}]",
    re.IGNORECASE,
)
_DAY = re.compile(r"\W*\d{1,4}/\d{1,2}/\d{1,4}\W*")


def version_at(seconds: int) -> int:
    """The version of a case of a form that counts none: the minute of its last change, so that a later one is newer."""
    return max(seconds // 60, 1)  # minutes, since a version has 31 bits


def plain_text(text: str, field: str, report: AdapterReport, *, max_chars: int = MAX_NOTE_CHARS) -> str:
    """A foreign text as a note of a case record: lines end in LF, what may lead to imagery is left out."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    left_out = 0

    def kept(found: re.Match[str]) -> str:
        nonlocal left_out
        word = found[0]
        if len(word) <= MAX_WORD_CHARS and (not _ADDRESS.search(_seen(word)) or _DAY.fullmatch(word)):
            return word
        left_out += 1
        return LEFT_OUT

    text = _WORD.sub(kept, text)
    if left_out:
        report.drop(f"{field}: address, path or file name", left_out)
    if len(text) > max_chars:
        report.drop(f"{field}: the end of a long text")
        text = text[:max_chars].rstrip()
    return text


def _seen(word: str) -> str:
    """The word as a person sees it: wide and other forms of a letter are that letter, signs of no width are gone."""
    return "".join(one for one in unicodedata.normalize("NFKC", word) if unicodedata.category(one) != "Cf")


def plain_line(text: str, field: str, report: AdapterReport) -> str:
    """The same for a text of one line."""
    return plain_text(" ".join(text.split()), field, report, max_chars=MAX_TEXT_CHARS)


def entry_of(stated: Iterable[tuple[str, str]], field: str, report: AdapterReport) -> EntryReference | None:
    """The entry that these digests name; None where none of them can be carried.

    Args:
        stated: pairs of a name as the file spells it and hexadecimal digits.

    Raises:
        MalformedError: a digest is damaged, or two of one algorithm differ.
    """
    digests: dict[str, bytes] = {}
    for name, value in stated:
        algorithm = name.casefold().translate(_SPELLING)
        if algorithm not in CASE_DIGESTS:
            drop_named(report, name, within=field)
        elif _is_unusable(algorithm, value):
            report.drop(f"{field}: a digest of nothing")
        else:
            digest = DIGEST_READERS[algorithm](value, f"{field}: {algorithm}")
            if digests.setdefault(algorithm, digest) != digest:
                raise refusal(field, f"has two values of {algorithm}: it speaks of more than one file")
    return EntryReference(digests=tuple(sorted(digests.items()))) if digests else None


class Once:
    """The cases of a file in which each stands once, since its objects have one id each."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def add(self, record: CaseRecord) -> None:
        """Add a case.

        Raises:
            MalformedError: another version of it stands there already.
        """
        key = record.originator, record.reference
        if key in self._known:
            raise MalformedError("a case stands there twice", remedy="write each version into a file of its own")
        self._known.add(key)


def usable(entry: EntryReference, report: AdapterReport) -> EntryReference | None:
    """The entry without digests that match what they must not; None where nothing is left of it."""
    kept = tuple((name, value) for name, value in entry.digests if value not in UNUSABLE_DIGESTS[name])
    if len(kept) < len(entry.digests):
        report.drop("entries: a digest of nothing", len(entry.digests) - len(kept))
    return EntryReference(entry.set_name, entry.entry_id, kept) if kept or entry.set_name else None


def _is_unusable(algorithm: str, value: str) -> bool:
    try:
        return unhexlify(value.strip()) in UNUSABLE_DIGESTS[algorithm]
    except ValueError:
        return False  # which the reader of digests refuses with its reason
