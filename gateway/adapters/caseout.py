"""Hash entries as CASE/UCO 1.5 JSON-LD: each a file known by its hashes alone.

Rules:
- The context stands in the file, so no reader has to fetch one.
- An entry is an `uco-observable:File` with one `ContentDataFacet`. What the ontology has no property for (category,
  series, victim status, evaluation, duties, …) are tags, `word:value`. The handling code is an object marking.
- A hash value is `xsd:hexBinary`, PhotoDNA and PDQ included; text digests are none, so they are not carried.
- An id is made of set and entry as ids of STIX are (`stixwords.stix_id`): the same on every day and every machine.

There is no reader of this form here: what a partner makes of it is its own.

Worked example: `{"@id": "kb:file-26a1f0f4-…", "@type": "uco-observable:File", "uco-core:tag": ["category:icse:1"], …}`.
"""

from __future__ import annotations

import json
from collections import Counter

from gateway.adapters.stixwords import handling_says, stix_id
from gateway.adapters.writing import Batch, WriteOptions, known_digests, moments, spelt, texts
from gateway.columns.rows import Rows
from gateway.model import HandlingCode, VictimStatus

CONTEXT = {
    "kb": "urn:partner-exchange:",
    "uco-core": "https://ontology.unifiedcyberontology.org/uco/core/",
    "uco-identity": "https://ontology.unifiedcyberontology.org/uco/identity/",
    "uco-marking": "https://ontology.unifiedcyberontology.org/uco/marking/",
    "uco-observable": "https://ontology.unifiedcyberontology.org/uco/observable/",
    "uco-types": "https://ontology.unifiedcyberontology.org/uco/types/",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
METHODS = {"md5": "MD5", "sha1": "SHA1", "sha256": "SHA256", "sha512": "SHA512", "pdq": "PDQ", "photodna": "PhotoDNA"}


class CaseWriter:
    """A CASE/UCO graph."""

    digests: tuple[str, ...] = tuple(METHODS)
    columns = frozenset({"pdq_quality", "media_type", "series", "victim_ref", "seen"})
    attributes = frozenset({"handling", "category", "victim_status", "evaluation", "restrictions"})
    separator = b",\n"

    def __init__(self, options: WriteOptions) -> None:
        self.not_carried: Counter[str] = Counter()
        self._set = options.set_name
        self._agency = options.set_name.partition("/")[0]

    def head(self) -> tuple[bytes, bool]:
        """The context; the agency and the markings to which entries refer."""
        agency = {"@id": self._owner(), "@type": "uco-identity:Organization", "uco-core:name": self._agency}
        common = self.separator.join(_json(one) for one in (agency, *map(marking, HandlingCode)))
        return b'{"@context":' + _json(CONTEXT) + b',"@graph":[\n' + common, True

    def records(self, batch: Batch) -> list[bytes]:
        """One file for each row."""
        rows = batch.rows
        values = {name: spelt(rows, name) for name in known_digests(METHODS, rows)}
        media, tags = texts(rows, "media_type"), _tags(rows)
        same = _tags_of_label(batch)
        mark = {"@id": marking_id(HandlingCode(str(batch.label["handling"])))}
        changed = moments(rows, "changed_at")
        found = []
        for place, entry in enumerate(batch.entries):
            facet: dict[str, object] = {
                "@id": self._id("content-data-facet", entry),
                "@type": "uco-observable:ContentDataFacet",
            }
            if media[place]:
                facet["uco-observable:mimeType"] = media[place]
            facet["uco-observable:hash"] = [
                self._hash(entry, name, spellings[place]) for name, spellings in values.items()
            ]
            record = {
                "@id": self._id("file", entry),
                "@type": "uco-observable:File",
                "uco-core:name": f"{self._set} {entry}",
                "uco-core:createdBy": {"@id": self._owner()},
                "uco-core:modifiedTime": {"@type": "xsd:dateTime", "@value": changed[place]},
                "uco-core:objectMarking": [mark],
                "uco-core:tag": [*same, *tags[place]],
                "uco-core:hasFacet": [facet],
            }
            found.append(_json(record))
        return found

    def tail(self) -> bytes:
        """The end of the graph."""
        return b"\n]}\n"

    def _hash(self, entry: str, name: str, value: str) -> dict[str, object]:
        return {
            "@id": self._id("hash", entry, name),
            "@type": "uco-types:Hash",
            "uco-types:hashMethod": METHODS[name],
            "uco-types:hashValue": {"@type": "xsd:hexBinary", "@value": value},
        }

    def _id(self, kind: str, *words: str) -> str:
        return iri(kind, self._set, *words)

    def _owner(self) -> str:
        return iri("organization", self._agency)


def iri(kind: str, *words: str) -> str:
    """An id of ours; CASE wants a UUID at its end."""
    return f"kb:{kind}-{stix_id(kind, 'case', *words).partition('--')[2]}"


def _tags_of_label(batch: Batch) -> list[str]:
    label, status = batch.label, str(batch.label["victim_status"])
    listed = label["restrictions"]
    restrictions = listed if isinstance(listed, list) else []
    shown = [] if status == VictimStatus.WITHHELD else [f"victim-status:{status}"]
    words = [f"{name}:{label[name]}" for name in ("category", "evaluation", "handling", "originator")]
    return [*words, *shown, *(f"restriction:{tag}" for tag in restrictions), *(f"duty:{duty}" for duty in batch.duties)]


def _tags(rows: Rows) -> list[list[str]]:
    """What each row says by itself."""
    columns = {"series": texts(rows, "series"), "victim-ref": texts(rows, "victim_ref"), "seen": moments(rows, "seen")}
    columns["pdq-quality"] = [str(value or "") for value in rows.ints("pdq_quality").tolist()]
    every = zip(*columns.values(), strict=True)
    return [[f"{name}:{value}" for name, value in zip(columns, row, strict=True) if value] for row in every]


def marking_id(code: HandlingCode) -> str:
    """The id of the marking that states a handling code."""
    return iri("marking-definition", str(code))


def marking(code: HandlingCode) -> dict[str, object]:
    """The marking that states a handling code."""
    return {
        "@id": marking_id(code),
        "@type": "uco-marking:MarkingDefinition",
        "uco-marking:definitionType": "statement",
        "uco-marking:definition": [
            {
                "@id": iri("statement-marking", str(code)),
                "@type": "uco-marking:StatementMarking",
                "uco-marking:definitionType": "statement",
                "uco-marking:statement": handling_says(code),
            }
        ],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
