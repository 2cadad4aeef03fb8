"""Which field of a case belongs to which field group, and the case as somebody sees it who may see some of them.

Every field of the record stands in `GROUP_OF`, or in existence: a test holds that nothing was forgotten.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from gateway.caserecord import CASE_GROUPS, CaseRecord, EntryReference
from gateway.errors import DeniedError
from gateway.model import CRYPTOGRAPHIC, FieldGroup

# A field that is named here is empty where its group is withheld. Every other is of existence; of `entries` the digests
# are of groups of their own.
GROUP_OF = {
    "series": FieldGroup.SERIES,
    "victims": FieldGroup.VICTIM_STATUS,
    "summary": FieldGroup.CASE_SUMMARY,
    "extensions": FieldGroup.CASE_SUMMARY,
    "clues": FieldGroup.CLUES,
    "time_frames": FieldGroup.CLUES,
    "places": FieldGroup.CLUES,
    "persons": FieldGroup.PERSONS,
    "contact": FieldGroup.CONTACT,
}
_EMPTY: dict[str, Any] = {
    "summary": "",
    "contact": None,
}  # what is not here is an empty tuple; its types are the record's


def redact(record: CaseRecord, groups: Collection[FieldGroup]) -> CaseRecord:
    """The record with nothing in it of any other group.

    Raises:
        DeniedError: not even its existence may be known.
    """
    if FieldGroup.EXISTENCE not in groups:
        raise DeniedError("the case: its existence is not for this partner to know")
    withheld = {name: _EMPTY.get(name, ()) for name, group in GROUP_OF.items() if group not in groups}
    return replace(record, entries=_entries(record.entries, groups), **withheld)


def lacking(record: CaseRecord, groups: Collection[FieldGroup] = CASE_GROUPS) -> tuple[str, ...]:
    """What of these groups law and policy need and the record does not state."""
    return tuple(name for name in record.missing if GROUP_OF.get(name, FieldGroup.EXISTENCE) in groups)


def _entries(entries: tuple[EntryReference, ...], groups: Collection[FieldGroup]) -> tuple[EntryReference, ...]:
    shown = []
    for entry in entries:
        digests = tuple((name, value) for name, value in entry.digests if _digest_group(name) in groups)
        if entry.set_name or digests:  # one that is known by a withheld digest alone is not there at all
            shown.append(replace(entry, digests=digests))
    return tuple(shown)


def _digest_group(algorithm: str) -> FieldGroup:
    return FieldGroup.CRYPTOGRAPHIC_DIGESTS if algorithm in CRYPTOGRAPHIC else FieldGroup.PERCEPTUAL_DIGESTS
