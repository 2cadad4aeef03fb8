"""Cases out of CASE/UCO JSON-LD: an `Investigation` with the objects in it.

Rules (`contracts/case-uco-1.md`):
- A **case** is a `case-investigation:Investigation`. What its `uco-core:object` names are its parts.
- An object with our property `gw:part` says what it is, and is read back without loss. Of others only the properties in
  `KEPT` are looked at: no name of a person, no path, no payload. Everything else is dropped and counted.
- Of others, a location is a place, an annotation a clue, an object with hashes an entry, a `uco-victim:Victim` a victim
  under its id. Persons of others are dropped: their names say who they are.
- Handling is that of the strictest TLP marking that a statement names; other legal fields have no place in CASE and
  stay empty. A confidence that is not stated is 0.
- A case with a bad part is refused alone; a graph that is broken, whole. In the report `line` is the number of the
  graph's member.

Worked example: `{"@id": "urn:x:1", "@type": "case-investigation:Investigation", "uco-core:name": "Two houses"}` is a
case record with reference "urn:x:1" and summary "Two houses".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from gateway.adapters.casefields import UNSTATED_CONFIDENCE, entry_of, plain_line, plain_text, version_at
from gateway.adapters.casemembers import CASE, Members, Parts, head_of
from gateway.adapters.caseout import CONTEXT
from gateway.adapters.caserows import CaseOptions, own_originator, take
from gateway.adapters.fields import read_moment
from gateway.adapters.jsonld import MAX_DEPTH, Graph, Node, Reference
from gateway.adapters.rows import WHOLE_ROW, drop_named, refusal
from gateway.adapters.stixwords import HANDLING_OF
from gateway.adapters.ucocaseout import CASE_CONTEXT, VOCABULARY
from gateway.caserecord import CaseRecord, Clue, ClueKind, ClueSource, Place, Victim
from gateway.model import JURISDICTION, AdapterReport, HandlingCode

CORE, OBSERVABLE, LOCATION = CONTEXT["uco-core"], CONTEXT["uco-observable"], CASE_CONTEXT["uco-location"]
TYPES, MARKING = CONTEXT["uco-types"], CONTEXT["uco-marking"]
VICTIM = "https://ontology.unifiedcyberontology.org/uco/victim/Victim"
INVESTIGATION = CASE_CONTEXT["case-investigation"] + "Investigation"
MAX_MEMBERS = 400_000  # of ours in one case; the longest honest one has as many marks of persons
# What is looked at, by IRI.
KEPT = frozenset(
    {CORE + name for name in ("name", "description", "objectCreatedTime", "modifiedTime", "object", "hasFacet")}
    | {CORE + name for name in ("statement", "startTime", "endTime", "confidence", "objectMarking")}
    | {OBSERVABLE + "hash", TYPES + "hashMethod", TYPES + "hashValue", MARKING + "definition", MARKING + "statement"}
    | {LOCATION + name for name in ("country", "region", "locality")}
)
# Nothing that a case would say is lost with these.
_BOOKKEEPING = frozenset(
    {CORE + name for name in ("createdBy", "specVersion", "tag", "eventType")} | {MARKING + "definitionType"}
)
# What tells something of an object, and of which classes of others it is read.
_TOLD = frozenset({CORE + name for name in ("name", "description", "statement", "startTime", "endTime")})
_ASKED = {LOCATION + "Location": ("name", "description"), CORE + "Annotation": ("statement",)}
_CLASS_OF_PART = {
    "victim": CONTEXT["uco-identity"] + "Person",
    "person": CONTEXT["uco-identity"] + "Person",
    "contact": CONTEXT["uco-identity"] + "Organization",
    "clue": CORE + "Annotation",
    "time_frame": CORE + "Event",
    "place": LOCATION + "Location",
    "entry": OBSERVABLE + "File",
}


def read(source: BinaryIO, report: AdapterReport, options: CaseOptions) -> Iterator[CaseRecord]:
    """The cases of a graph."""

    def drops(name: str) -> None:
        if name not in _BOOKKEEPING:
            drop_named(report, _local(name))

    graph = Graph(source, lambda name: name in KEPT or name.startswith(VOCABULARY), drops)
    for number, error in graph.faults:
        report.read += 1
        report.refuse(number, error.place or WHOLE_ROW, error.message)
    reader = _Reader(graph, report)
    seen: set[str] = set()
    for node in graph.top:
        if INVESTIGATION not in node.types or node.id in seen:
            continue
        seen.add(node.id)
        record = take(report, node.number, partial(reader.record, node, options))
        if record is not None:
            yield record
    reader.count_unused()


class _Reader:
    """Makes records of the nodes of a graph."""

    def __init__(self, graph: Graph, report: AdapterReport) -> None:
        self._graph = graph
        self._report = report
        self._used: set[int] = set()
        self._members = 0

    def record(self, node: Node, options: CaseOptions) -> CaseRecord:
        """The case record of an investigation."""
        self._members = 0
        # 1. The case itself.
        head = self._head(node, options)
        # 2. What it names.
        parts = Parts()
        named: set[int] = set()
        for value in self._values(node, CORE + "object"):
            part = self._graph.of(value)
            if part is None:
                self._report.drop("object: not in the graph")
            elif id(part) not in named:
                named.add(id(part))
                self._add(parts, part)
        self._used |= named
        return replace(head, **parts.fields())

    def count_unused(self) -> None:
        """Count the nodes of the graph that are in no case."""
        for node in self._graph.top:
            kind = node.types[0] if node.types else ""
            if id(node) not in self._used and node.types and kind not in _ACCOMPANYING:
                drop_named(self._report, _local(kind), within="of no case")

    def _head(self, node: Node, options: CaseOptions) -> CaseRecord:
        self._used.add(id(node))
        created = self._text(node, CORE + "objectCreatedTime")
        modified = self._text(node, CORE + "modifiedTime")
        opened = read_moment(created, "objectCreatedTime") if created else options.read_at
        updated = read_moment(modified, "modifiedTime") if modified else opened
        name, description = (self._text(node, CORE + member) for member in ("name", "description"))
        ours = self._own(node)
        if ours.get("part") == CASE:
            return head_of(ours, reference=name, opened=opened, updated=updated, summary=description)
        told = "\n".join(text for text in (name, description) if text)
        return CaseRecord(
            own_originator(options),
            node.id,
            version=version_at(updated),
            opened=opened,
            updated=updated,
            handling=self._handling(node),
            summary=plain_text(told, "description", self._report),
        )

    def _handling(self, node: Node) -> HandlingCode | None:
        found = []
        for value in self._values(node, CORE + "objectMarking"):
            marking = self._graph.of(value)
            for one in self._values(marking, MARKING + "definition") if marking else []:
                definition = self._graph.of(one)
                stated = self._text(definition, MARKING + "statement") if definition else ""
                code = (
                    HANDLING_OF.get(stated.casefold().removeprefix("tlp:")) if stated[:4].casefold() == "tlp:" else None
                )
                if code is None:
                    self._report.drop("objectMarking: no TLP marking")
                else:
                    found.append(code)
        return max(found, default=None)

    def _add(self, parts: Parts, node: Node) -> None:
        ours = self._own(node)
        if ours:
            self._add_own(parts, node, ours)
            return
        self._count_unread(node)
        if LOCATION + "Location" in node.types:
            parts.add(self._foreign_place(node))
        elif CORE + "Annotation" in node.types:
            if text := plain_text(self._text(node, CORE + "statement"), "statement", self._report):
                parts.add(Clue(ClueKind.OTHER, text, self._confidence(node), ClueSource.OTHER))
        elif VICTIM in node.types and node.id:
            parts.add(Victim(node.id))
        elif hashes := list(self._hashes(node)):
            if entry := entry_of(hashes, "hash", self._report):
                parts.add(entry)
        else:
            drop_named(self._report, _local(node.types[0]) if node.types else "", within="object")

    def _count_unread(self, node: Node) -> None:
        """Count the properties that an object of its class is not asked for."""
        asked = {CORE + name for kind, names in _ASKED.items() if kind in node.types for name in names}
        for name in node.properties.keys() & _TOLD - asked:
            self._report.drop(f"{_local(node.types[0]) if node.types else 'object'}: {_local(name)}")

    def _add_own(self, parts: Parts, node: Node, ours: Members) -> None:
        part = ours.get("part")
        if not isinstance(part, str) or _CLASS_OF_PART.get(part) not in node.types:
            raise refusal("part", "is not one that an object of this class can be")
        name, description = (self._text(node, CORE + member) for member in ("name", "description"))
        native: dict[str, object]
        if part == "victim":
            native = {"ref": name}
        elif part == "person":
            native = {"ref": name, "description": description}
        elif part == "contact":
            native = {"unit": name}
        elif part == "entry":
            native = {"digests": self._own_digests(node)}
        elif part == "clue":
            native = {"text": self._text(node, CORE + "statement"), "confidence": self._confidence(node)}
        else:
            native = {"text": description, "confidence": self._confidence(node)}
            if part == "place":
                native |= {word: self._facet_text(node, LOCATION + word) for word in ("country", "region")}
            else:
                native["earliest"] = self._text(node, CORE + "startTime")[:10]
                native["latest"] = self._text(node, CORE + "endTime")[:10]
        parts.add_members(ours, native)

    def _own_digests(self, node: Node) -> dict[str, object]:
        found: dict[str, object] = {}
        for method, value in self._hashes(node):
            if found.setdefault(method.casefold(), value) != value:
                raise refusal("hashMethod", "stands twice")
        return found

    def _foreign_place(self, node: Node) -> Place:
        country, region, city = (
            plain_line(self._facet_text(node, LOCATION + member), member, self._report)
            for member in ("country", "region", "locality")
        )
        name, description = (self._text(node, CORE + member) for member in ("name", "description"))
        told = [plain_line(name, "name", self._report), plain_text(description, "description", self._report)]
        is_code = JURISDICTION.fullmatch(country)
        words = [city, *told] if is_code else [city, region, country, *told]
        text = "\n".join(dict.fromkeys(word for word in words if word))
        if not is_code and not text:
            raise refusal("country", "is missing, and no other word of the place is carried")
        code, inner = (country, region) if is_code else ("", "")
        return Place(code, inner, text, self._confidence(node), ClueSource.OTHER)

    # Values

    def _own(self, node: Node, depth: int = 0) -> dict[str, object]:
        """The properties of ours as members."""
        found: dict[str, object] = {}
        for name, values in node.properties.items():
            if name.startswith(VOCABULARY):
                if len(values) != 1:
                    raise refusal(_local(name), "stands twice")
                found[name.removeprefix(VOCABULARY)] = self._member(values[0], name, depth)
        return found

    def _member(self, value: object, name: str, depth: int) -> object:
        self._members += 1
        if self._members > MAX_MEMBERS:  # nodes without a name may stand in many places, and in one another
            raise refusal(_local(name), "is one of too many members of a case")
        if depth > MAX_DEPTH:
            raise refusal(_local(name), f"is nested deeper than {MAX_DEPTH}")
        if isinstance(value, list):
            return [self._member(one, name, depth + 1) for one in value]
        if isinstance(value, Reference) and not value.id.startswith("_:"):
            raise refusal(_local(name), "refers to an object with a name of its own")
        node = self._graph.of(value)
        if node is not None:
            return self._own(node, depth + 1)
        return None if isinstance(value, Reference) else value

    def _facets(self, node: Node) -> Iterator[Node]:
        for value in self._values(node, CORE + "hasFacet"):
            facet = self._graph.of(value)
            if facet is not None:
                self._used.add(id(facet))
                yield facet

    def _hashes(self, node: Node) -> Iterator[tuple[str, str]]:
        for facet in self._facets(node):
            for value in self._values(facet, OBSERVABLE + "hash"):
                one = self._graph.of(value)
                if one is not None:
                    self._used.add(id(one))
                    yield self._text(one, TYPES + "hashMethod"), self._text(one, TYPES + "hashValue")

    def _facet_text(self, node: Node, name: str) -> str:
        found = [text for facet in self._facets(node) if (text := self._text(facet, name))]
        if len(found) > 1:
            raise refusal(_local(name), "stands twice")
        return found[0] if found else ""

    def _confidence(self, node: Node) -> int:
        text = self._facet_text(node, CORE + "confidence")
        if not text:
            return UNSTATED_CONFIDENCE
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 100):
            raise refusal("confidence", "is not a whole number from 0 to 100")
        return int(text)

    @staticmethod
    def _values(node: Node, name: str) -> list[object]:
        found: list[object] = []
        for value in node.properties.get(name, []):
            found += value if isinstance(value, list) else [value]
        return found

    def _text(self, node: Node, name: str) -> str:
        found = self._values(node, name)
        if len(found) > 1:
            raise refusal(_local(name), "stands twice")
        if not found:
            return ""
        value = found[0]
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise refusal(_local(name), "is not text")
        return str(value)


# Markings, facets and hashes of nodes that are in no case, and who made the graph: nothing that a case would say.
_ACCOMPANYING = frozenset(
    {CONTEXT["uco-identity"] + "Organization", MARKING + "MarkingDefinition", MARKING + "StatementMarking"}
)


def _local(name: str) -> str:
    """The last word of an IRI, which may be shown."""
    return name.rpartition("/")[2].rpartition("#")[2].rpartition(":")[2]
