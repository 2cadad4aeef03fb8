"""The one XML parser: what comes from outside is a small tree of elements, or it is refused.

    root = parse(raw, max_bytes=16_384)      # an lxml element
    Schema(xsd).require(root)                # it is as an XSD of ours says

Refused before anything is built: what is not UTF-8, a document type (and with it every entity, every external subset),
comments and processing instructions (a comment splits a text in two, so that two readers see two values), and more
elements or attributes than the bounds below. Nothing is fetched, no schema that a document names is looked at.

In UTF-8, which is all that the parser is told to read, `<!` and `<?` begin nothing but these, and CDATA sections, in
which we do not look for them. So they are found by their octets, wherever they stand.
"""

from __future__ import annotations

import re
from threading import Lock

from lxml import etree

from gateway.errors import MalformedError, TooLargeError

MAX_DEPTH = 32
MAX_NODES = 20_000  # elements; and attributes of all of them together
MAX_ATTRIBUTES = 32  # of one element
Element = etree._Element

INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
MAX_SCHEMA_BYTES = 256 << 10

_CDATA = b"<![CDATA["
_NO_MARKS = bytes(octet for octet in range(256) if octet not in b"<>!?=")
_DECLARATION = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml[ \t\r\n]")
_TOO_MANY = etree.XPath("count(//*) > $most")
_TOO_DEEP = etree.XPath("boolean(" + "/*" * (MAX_DEPTH + 1) + ")")
_TOO_MANY_ATTRIBUTES = etree.XPath(f"boolean(//@*[{MAX_ATTRIBUTES + 1}])")


def parse(raw: bytes, *, max_bytes: int, max_nodes: int = MAX_NODES) -> Element:
    """The root element of a document.

    Raises:
        TooLargeError: longer than `max_bytes`, or above another bound.
        MalformedError: no XML, or XML with something in it that is not taken.
    """
    if len(raw) > max_bytes:
        raise TooLargeError(f"the XML is longer than {max_bytes} octets")
    _look_through(raw, max_nodes)
    # The encoding is given, so that no declaration in the document makes another text of it.
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, collect_ids=False
    )
    try:
        root = etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        raise MalformedError("not well-formed XML") from error
    if root.getroottree().docinfo.doctype:  # type: ignore[union-attr]  # which the stubs do not know
        raise MalformedError("the XML has a document type")
    if _TOO_DEEP(root) or _TOO_MANY_ATTRIBUTES(root) or _TOO_MANY(root, most=max_nodes):
        raise TooLargeError("the XML has too many levels, elements or attributes")
    return root


class Schema:
    """An XSD 1.0 that ships with the code.

    Args:
        raw: the schema; it imports and includes nothing.
    """

    def __init__(self, raw: bytes) -> None:
        root = parse(raw, max_bytes=MAX_SCHEMA_BYTES)
        self._names = {element.get("name") for element in root.iter()}
        self._schema = etree.XMLSchema(root)
        self._lock = Lock()  # a validator keeps the errors of its last document

    def require(self, root: Element) -> None:
        """Returns when the tree is as the schema says.

        Raises:
            MalformedError: it is not, at the line given; never with a value of the document.
        """
        # libxml2 follows schemaLocation while it validates, and type and nil put another rule in the place of ours.
        if root.xpath("//@*[namespace-uri() = $instance]", instance=INSTANCE):
            raise MalformedError("the XML speaks of a schema", remedy="leave out the attributes of XMLSchema-instance")
        with self._lock:
            if self._schema.validate(root):
                return
            error = next(iter(self._schema.error_log))  # type: ignore[call-overload]  # the stubs do not know it
        # "Element '{namespace}Name': …": the rest may hold a value, and a name may be the document's own.
        name = error.message.partition("Element '")[2].partition("'")[0].rpartition("}")[2]
        place = f"line {error.line}, {name}" if name in self._names else f"line {error.line}"
        wrong = "an element is missing or does not belong there" if "ELEMENT_CONTENT" in error.type_name else ""
        raise MalformedError(wrong or "the XML is not as its schema says", place=place)


def _look_through(raw: bytes, max_nodes: int) -> None:
    """Returns when nothing stands in the octets that is not taken."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("the XML is not UTF-8") from error
    if b"\0" in raw:  # another encoding's octets may look like ours with nothing between them
        raise MalformedError("the XML is not UTF-8")
    # Without the octets between them it is a short text; what stands in the whole side by side does so in it, too.
    marks = raw.translate(None, _NO_MARKS)
    if b"<!" in marks and raw.count(b"<!") != raw.count(_CDATA):
        raise MalformedError("the XML has a document type or a comment")
    declared = _DECLARATION.match(raw) is not None
    if marks.count(b"<?") > declared and raw.count(b"<?") > declared:
        raise MalformedError("the XML has a processing instruction")
    # An element is one or two tags; an attribute has one equals sign, and texts may have more.
    if marks.count(b"<") > 2 * max_nodes + 1 or marks.count(b"=") > max_nodes + 8:
        raise TooLargeError("the XML has too many elements or attributes")
