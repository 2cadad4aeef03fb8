"""JSON-LD 1.1, as much of it as graphs of CASE/UCO use: names become IRIs, nodes become plain values.

Rules:
- The file is one object with `@context` and then `@graph`, a list of nodes; it is read a node at a time.
- Nothing is fetched: a context that is not in the file refuses the file. So does one with more than prefixes, terms,
  `@vocab` and types of terms (scoped contexts, containers, reverse terms, imports).
- A node is kept with the properties that the caller lists, by IRI; others are counted by their names. What stands
  inside another node is a node too, wherever it stands.
- Nodes with one id are one node. A node without an id has none to be referred by.

Worked example: with the context `{"uco-core": "https://…/core/"}`, `{"@id": "a", "uco-core:name": "x"}` is the node "a"
whose property `https://…/core/name` is `["x"]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from gateway.adapters.jsonrows import Doubled, Window, records
from gateway.adapters.rows import refusal
from gateway.errors import MalformedError, TooLargeError

MAX_NODES = 200_000  # kept at once; a graph of more is given in parts
MAX_TERMS = 2_000  # of a context
MAX_DEPTH = 16  # of a name in a context that stands for another
Keeps = Callable[[str], bool]


@dataclass(slots=True)
class Node:
    """A node: its id ("" for none), its types, and its properties, each a list of values.

    A value is a text, a whole number, true or false, a `Reference`, a `Node`, or a list (which kept its order).
    """

    id: str
    types: list[str] = field(default_factory=list)
    properties: dict[str, list[object]] = field(default_factory=dict)
    number: int = 0  # of the member of the graph in which it stands, from 1


@dataclass(frozen=True, slots=True)
class Reference:
    """The id of a node."""

    id: str


class Graph:
    """The nodes of a file.

    Args:
        keeps: whether a property, by its IRI, is kept.
        drops: told of every other.
    """

    def __init__(self, source: BinaryIO, keeps: Keeps, drops: Callable[[str], None]) -> None:
        self.nodes: dict[str, Node] = {}
        self.top: list[Node] = []
        self.faults: list[tuple[int, MalformedError]] = []  # of members of the graph, with their numbers
        self._keeps = keeps
        self._drops = drops
        self._read(source)

    def of(self, value: object) -> Node | None:
        """The node that a value is or refers to."""
        if isinstance(value, Reference):
            return self.nodes.get(value.id)
        return value if isinstance(value, Node) else None

    def _read(self, source: BinaryIO) -> None:
        window = Window(source)
        context = None
        window.expect("{")
        while (name := window.member_name()) != "@graph":
            value = window.value()
            if name == "@context" and context is None:
                context = _Context(value)
            else:
                raise window.fault("before @graph stands something else than one @context")
            window.expect(",")
        if context is None:
            raise window.fault("no @context before @graph")
        window.expect("[")
        for number, value in enumerate(records(window), 1):
            if window.has_bad_byte():
                self.faults.append((number, refusal("row", "is not UTF-8")))
                continue
            try:
                found = _Reader(self, context, number).value(value, 0)
            except TooLargeError:
                raise
            except MalformedError as error:
                self.faults.append((number, error))
                continue
            if isinstance(found, Node):
                self.top.append(found)
        window.expect("}")
        if window.peek():
            raise window.fault("there is more after the end")

    def keep(self, node: Node) -> Node:
        """The node under its id, joined with what was said of it before."""
        if not node.id:
            return node
        known = self.nodes.setdefault(node.id, node)
        if known is not node:
            known.types += [kind for kind in node.types if kind not in known.types]
            for name, values in node.properties.items():
                known.properties.setdefault(name, []).extend(values)
        if len(self.nodes) > MAX_NODES:
            raise TooLargeError(f"the graph has more than {MAX_NODES} nodes")
        return known

    def wants(self, name: str) -> bool:
        """Whether a property is kept; one that is not is counted."""
        if self._keeps(name):
            return True
        self._drops(name)
        return False


class _Reader:
    """Reads one member of the graph."""

    def __init__(self, graph: Graph, context: _Context, number: int) -> None:
        self._graph = graph
        self._context = context
        self._number = number

    def value(self, found: object, depth: int, *, is_reference: bool = False) -> object:
        if depth > MAX_DEPTH:
            raise refusal("row", f"is nested deeper than {MAX_DEPTH}")
        if isinstance(found, str):
            return Reference(self._context.iri(found)) if is_reference else found
        if isinstance(found, list):
            return [self.value(one, depth + 1, is_reference=is_reference) for one in found]
        if not isinstance(found, dict):
            return found if isinstance(found, int) else None
        if isinstance(found, Doubled):
            raise refusal("row", "names a member twice")
        if "@value" in found:
            return found["@value"] if isinstance(found["@value"], (str, int)) else None
        if "@list" in found or "@set" in found:
            inner = found.get("@list", found.get("@set"))
            return self.value(inner if isinstance(inner, list) else [inner], depth + 1, is_reference=is_reference)
        if "@context" in found or "@graph" in found or "@reverse" in found:
            raise refusal("row", "has a context, a graph or a reverse property of its own: that is not read")
        return self._node(found, depth)

    def _node(self, found: Mapping[str, object], depth: int) -> Node | Reference:
        stated: dict[str, list[object]] = {}
        for member, value in found.items():
            stated.setdefault(self._context.keyword(member), []).append(value)
        own = stated.pop("@id", [""])[0]
        if not isinstance(own, str):
            raise refusal("@id", "is not text")
        name = self._context.iri(own) if own else ""
        if not stated:
            return Reference(name)
        node = Node(name, number=self._number)
        for one in _flat(stated.pop("@type", [])):
            if isinstance(one, str):
                node.types.append(self._context.name(one) or "")
        for property_name, values in stated.items():
            full = self._context.name(property_name)
            if full is None or full.startswith("@") or not self._graph.wants(full):
                continue
            is_reference = self._context.is_reference(property_name)
            # A list within is one value, so that it keeps its order; a list of values is many.
            for one in values:
                for each in one if isinstance(one, list) else [one]:
                    node.properties.setdefault(full, []).append(self.value(each, depth + 1, is_reference=is_reference))
        return self._graph.keep(node)


class _Context:
    """What names stand for."""

    def __init__(self, value: object) -> None:
        self._terms: dict[str, str] = {}
        self._references: set[str] = set()
        for one in value if isinstance(value, list) else [value]:
            self._add(one)

    def _add(self, one: object) -> None:
        if isinstance(one, str):
            raise MalformedError("the context is not in the file, and none is fetched", remedy="put it into @context")
        if not isinstance(one, dict) or isinstance(one, Doubled) or len(one) > MAX_TERMS:
            raise MalformedError("the context is no object of single members, or too long")
        for name, stated in one.items():
            meaning = stated
            if name in ("@version", "@language", "@base"):
                continue
            if isinstance(meaning, dict) and not isinstance(meaning, Doubled) and meaning.keys() <= {"@id", "@type"}:
                if meaning.get("@type") in ("@id", "@vocab"):
                    self._references.add(name)
                meaning = meaning.get("@id", name)
            if not isinstance(meaning, str) or (name.startswith("@") and name != "@vocab"):
                raise MalformedError("the context says more than prefixes, terms and their types: that is not read")
            self._terms[name] = meaning

    def keyword(self, name: str) -> str:
        """`@id` and `@type` under whatever name, every other name as it is."""
        meaning = self._terms.get(name)
        return meaning if meaning in ("@id", "@type") else name

    def is_reference(self, name: str) -> bool:
        """Whether a text under this name is an id."""
        return name in self._references

    def name(self, name: str, depth: int = 0) -> str | None:
        """The IRI of a property or type; None for one that means nothing."""
        if name.startswith("@"):
            return name
        if depth > MAX_DEPTH:
            return None
        if name in self._terms and self._terms[name] != name:
            return self.name(self._terms[name], depth + 1)
        prefix, colon, rest = name.partition(":")
        if not colon:
            vocabulary = self._terms.get("@vocab")
            return f"{vocabulary}{name}" if vocabulary else None
        if rest.startswith("//") or prefix not in self._terms:
            return name
        begun = self.name(self._terms[prefix], depth + 1)
        return None if begun is None else f"{begun}{rest}"

    def iri(self, name: str) -> str:
        """The IRI of a node."""
        prefix, colon, rest = name.partition(":")
        if colon and not rest.startswith("//") and prefix in self._terms:
            return f"{self._terms[prefix]}{rest}"
        return name


def _flat(values: list[object]) -> Iterator[object]:
    for one in values:
        yield from one if isinstance(one, list) else [one]
