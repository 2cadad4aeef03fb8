"""The one XML parser: what comes from outside is a small tree of elements, or it is refused.

    root = parse(raw, max_bytes=16_384)      # an lxml element

Refused before anything is built: what is not UTF-8, a document type (and with it every entity, every external subset),
comments and processing instructions (a comment splits a text in two, so that two readers see two values), and more than
the bounds below. Nothing is fetched, no schema that a document names is looked at.
"""

from __future__ import annotations

from typing import NoReturn

from lxml import etree

from gateway.errors import GatewayError, MalformedError, TooLargeError

MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_ATTRIBUTES = 32  # of one element
Element = etree._Element
Text = str | bytes


class _Guarded:
    """Builds the tree, event by event, and stops at the first one that is not allowed."""

    def __init__(self, max_nodes: int) -> None:
        self._max_nodes = max_nodes
        self._builder = etree.TreeBuilder()
        self._depth = self._nodes = 0
        self.refusal: GatewayError | None = None

    def start(self, tag: Text, attrib: dict[Text, Text]) -> None:
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH or self._nodes > self._max_nodes or len(attrib) > MAX_ATTRIBUTES:
            self._refuse(TooLargeError("the XML has too many levels, elements or attributes"))
        self._builder.start(tag, attrib)

    def end(self, tag: Text) -> None:
        self._depth -= 1
        self._builder.end(tag)

    def data(self, data: Text) -> None:
        self._builder.data(data)

    def doctype(self, *_names: str | None) -> NoReturn:
        self._refuse(MalformedError("the XML has a document type"))

    def comment(self, text: Text) -> None:  # noqa: ARG002  (lxml's signature)
        self._refuse(MalformedError("the XML has a comment"))

    def pi(self, _target: str, _data: str | None = None) -> NoReturn:
        self._refuse(MalformedError("the XML has a processing instruction"))

    def close(self) -> Element:
        return self._builder.close()

    def _refuse(self, refusal: GatewayError) -> NoReturn:
        self.refusal = refusal  # the parser stops at once, and says only that it did
        raise refusal


def parse(raw: bytes, *, max_bytes: int, max_nodes: int = MAX_NODES) -> Element:
    """The root element of a document.

    Raises:
        TooLargeError: longer than `max_bytes`, or above another bound.
        MalformedError: no XML, or XML with something in it that is not taken.
    """
    if len(raw) > max_bytes:
        raise TooLargeError(f"the XML is longer than {max_bytes} octets")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("the XML is not UTF-8") from error
    # The encoding is given, so that no declaration in the document makes another text of it.
    guarded = _Guarded(max_nodes)
    parser = etree.XMLParser(
        target=guarded, encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        raise guarded.refusal or MalformedError("not well-formed XML") from error
    return root
