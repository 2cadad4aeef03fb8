"""Hash entries out as STIX 2.1 indicators, a block of rows at a time.

Rules (`contracts/stix-1.md`):
- One entry is one indicator, whose id follows from set and entry id. What is not in the rows does not appear: rows come
  with the parts that policy permits, and nothing else is looked up.
- The pattern joins the digests with OR. Where there are none to show it is `NOTHING`, which no file matches.
- `modified` is the second in which the entry got into its present state for this reader, and its version in the
  milliseconds: it grows with every version. `created` is the set's, since an entry does not remember its first day.
- An entry that is gone is its indicator, revoked, with `NOTHING` for a pattern: what it listed is not said again.
- The extension stands last and whole; what a text says of a partner's label is written once for all its rows.

Worked example: an entry with one MD5 has the pattern `[file:hashes.MD5 = '88653fc1…5c70']`.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.adapters.stixwords import (
    EXTENSION,
    NOTHING,
    STIX_HASHES,
    Ids,
    agency_id,
    common_objects,
    confidence_of,
    markings_of,
    stix_time,
)
from gateway.columns.rows import Rows
from gateway.model import HandlingCode, VictimStatus

DESCRIPTION = "A file on a hash list. The extension says what the list says of it."
GONE = "No longer on the list: delete it, and whatever was made of it."
NOT_CARRIED = ("vpdq", "vendor", "tmk_pdqf", "status_at", "status_owner")  # columns that no member stands for
_PERCEPTUAL = ("pdq", "photodna")


class Made(NamedTuple):
    """One object: its id, its version (`modified`, else `created`), and its JSON."""

    id: str
    version: str
    raw: bytes


class IndicatorWriter:
    """Writes the entries of one set.

    Args:
        set_name: in full.
        created: Unix seconds of the set's beginning.
    """

    def __init__(self, set_name: str, created: int) -> None:
        self._set = set_name
        self._owner = agency_id(set_name.partition("/")[0])
        self._created = stix_time(created * 1000)
        self._ids = Ids("indicator", set_name)

    def common(self, jurisdiction: str) -> list[Made]:
        """The objects to which the indicators refer."""
        found = common_objects(self._set.partition("/")[0], jurisdiction, self._created)
        return [Made(str(one["id"]), str(one.get("modified", one["created"])), _json(one).encode()) for one in found]

    def id(self, entry: str) -> str:
        """The id of an entry's indicator."""
        return self._ids.id(entry)

    def indicators(
        self,
        rows: Rows,
        label: Mapping[str, object],
        duties: Sequence[str],
        *,
        entries: Sequence[str],
        at: Sequence[int],
    ) -> list[Made]:
        """The indicators of rows under one label.

        Args:
            label: the label's attributes as the reader may see them.
            duties: what the reader takes upon itself.
            entries: the entry id of each row, as people write it.
            at: Unix seconds at which each got into its present state.
        """
        head, extension = self._of_label(label, duties)
        patterns = _patterns(rows)
        more = _members(rows)
        versions = rows.ints("version").tolist()
        found = []
        for entry, second, version, pattern, members in zip(entries, at, versions, patterns, more, strict=True):
            moment = stix_time(second * 1000 + version % 1000)
            name = self._ids.id(entry)
            text = (
                f'{{"type":"indicator","spec_version":"2.1","id":"{name}","created":"{self._created}",'
                f'"modified":"{moment}","valid_from":"{moment}","name":"{self._set} {entry}",{head},'
                f'"pattern":"{pattern}","pattern_type":"stix","pattern_version":"2.1",'
                f'"extensions":{{"{EXTENSION}":{{{extension},"entry":"{entry}","version":{version}{members}}}}}}}'
            )
            found.append(Made(name, moment, text.encode()))
        return found

    def revoked(self, entry: str, version: int, at: int) -> Made:
        """The indicator of an entry that is gone."""
        name, moment = self.id(entry), stix_time(at * 1000 + version % 1000)
        members: dict[str, object] = {
            "type": "indicator",
            "spec_version": "2.1",
            "id": name,
            "created_by_ref": self._owner,
            "created": self._created,
            "modified": moment,
            "revoked": True,
            "name": f"{self._set} {entry}",
            "description": GONE,
            "indicator_types": ["unknown"],
            "pattern": NOTHING,
            "pattern_type": "stix",
            "pattern_version": "2.1",
            "valid_from": moment,
            "object_marking_refs": markings_of(HandlingCode.H2),  # of what is gone no label is told
        }
        return Made(name, moment, _json(members).encode())

    def _of_label(self, label: Mapping[str, object], duties: Sequence[str]) -> tuple[str, str]:
        """What all indicators under a label have in common: their members, and those of the extension."""
        evaluation, status = str(label["evaluation"]), str(label["victim_status"])
        is_shown = status != VictimStatus.WITHHELD
        members: dict[str, object] = {
            "created_by_ref": self._owner,
            "description": DESCRIPTION,
            "indicator_types": ["unknown"],
            # Repeated as labels, since many tools drop extensions.
            "labels": [f"category:{label['category']}", *([f"victim-status:{status}"] if is_shown else [])],
            "object_marking_refs": markings_of(HandlingCode(str(label["handling"]))),
        }
        confidence = confidence_of(evaluation)
        if confidence is not None:
            members["confidence"] = confidence
        extension: dict[str, object] = {"extension_type": "property-extension", "set": self._set}
        extension |= {name: value for name, value in label.items() if name != "victim_status" or is_shown}
        extension["duties"] = list(duties)
        kept = {name: value for name, value in extension.items() if value not in ("", [])}
        return _json(members)[1:-1], _json(kept)[1:-1]


def _patterns(rows: Rows) -> list[str]:
    """The pattern of each row; digests are hexadecimal or ssdeep, so nothing in them needs escaping."""
    columns: list[list[str]] = []
    for name in [name for name in STIX_HASHES if name in rows.columns]:
        path = STIX_HASHES[name] if name in {"md5", "ssdeep"} else f"'{STIX_HASHES[name]}'"
        values = rows.text(name).to_list() if name == "ssdeep" else [raw.hex() for raw in _octets(rows, name)]
        columns.append([f"file:hashes.{path} = '{value}'" for value in values])
    if not columns:
        return [NOTHING] * rows.n
    return [f"[{' OR '.join(found)}]" for found in zip(*columns, strict=True)]


def _members(rows: Rows) -> list[str]:
    """What the extension says of each row alone, each member after a comma."""
    found: list[list[str]] = []
    for name in ("media_type", "series", "victim_ref"):
        if name in rows.columns:
            found.append([f',"{name}":{json.dumps(text)}' if text else "" for text in rows.text(name).to_list()])
    if "seen" in rows.columns:
        found.append([f',"seen":"{stix_time(at * 1000)}"' if at else "" for at in rows.ints("seen").tolist()])
    if any(name in rows.columns for name in _PERCEPTUAL):
        found.append(_perceptual(rows))
    return ["".join(texts) for texts in zip(*found, strict=True)] if found else [""] * rows.n


def _perceptual(rows: Rows) -> list[str]:
    members = []
    if "pdq" in rows.columns:
        pairs = zip(_octets(rows, "pdq"), rows.ints("pdq_quality").tolist(), strict=True)
        members.append(
            [
                f'{{"algorithm":"PDQ","value":"{raw.hex()}"' + (f',"quality":{quality}' if quality else "") + "}"
                for raw, quality in pairs
            ]
        )
    if "photodna" in rows.columns:
        texts = (b64encode(raw).decode() for raw in _octets(rows, "photodna"))
        members.append([f'{{"algorithm":"PhotoDNA","value":"{text}"}}' for text in texts])
    return [f',"perceptual":[{",".join(found)}]' for found in zip(*members, strict=True)]


def _octets(rows: Rows, name: str) -> list[bytes]:
    return [row.tobytes() for row in rows.octets(name)]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
