"""The one XML parser: what it takes, and that nothing else costs anything or reaches anybody."""

from __future__ import annotations

import socket
import time
import tracemalloc

import pytest

from gateway import xml
from gateway.errors import GatewayError, MalformedError, TooLargeError

MAX = 1 << 20


def listener() -> socket.socket:
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen()
    found.setblocking(False)
    return found


def test_a_small_document_is_a_tree() -> None:
    root = xml.parse(b'<?xml version="1.0"?>\n<a xmlns="urn:x" k="1"><b>&lt;\xc3\xa9&#65;</b></a>', max_bytes=MAX)
    assert (root.tag, root.get("k"), root[0].tag, root[0].text) == ("{urn:x}a", "1", "{urn:x}b", "<éA")


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
REFUSED = {
    "an entity": b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
    "a billion laughs": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l11;</a>'.encode(),
    "quadratic": f'<!DOCTYPE a [<!ENTITY x "{"y" * 100_000}">]><a>{"&x;" * 10_000}</a>'.encode(),
    "in an attribute": b'<!DOCTYPE a [<!ENTITY x "y">]><a k="&x;"/>',
    "a parameter entity": b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:PORT/x"> %x;]><a/>',
    "an outside subset": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:PORT/x.dtd"><a/>',
    "a public subset": b'<!DOCTYPE a PUBLIC "-//X//Y" "http://127.0.0.1:PORT/x.dtd"><a/>',
    "a file": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>',
    "an entity over the network": b'<!DOCTYPE a [<!ENTITY x SYSTEM "http://127.0.0.1:PORT/x">]><a>&x;</a>',
    "an empty document type": b"<!DOCTYPE a><a/>",
    "an entity that nobody declared": b"<a>&x;</a>",
    "a comment": b"<a>b<!-- c -->d</a>",
    "a comment before the root": b"<!-- c --><a/>",
    "an instruction": b"<a><?php x ?></a>",
    "a style sheet": b'<?xml-stylesheet href="http://127.0.0.1:PORT/x.xsl"?><a/>',
    "depth": b"<a>" * 33 + b"</a>" * 33,
    "elements": b"<a>" + b"<b/>" * 20_000 + b"</a>",
    "attributes": b"<a " + b" ".join(b'k%d="1"' % n for n in range(33)) + b"/>",
    "UTF-16": "<a/>".encode("utf-16"),
    "UTF-16 with a document type": '<!DOCTYPE a [<!ENTITY x "y">]><a/>'.encode("utf-16"),
    "UTF-16 without a mark": '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'.encode("utf-16-le"),
    "a document type after a long time": b"<?xml version='1.0'?>" + b" " * 100_000 + b"<!DOCTYPE a><a/>",
    "a document type in a CDATA section": b"<a><![CDATA[<!DOCTYPE a>]]></a>",
    "attributes in all": b"<a>" + b'<b k="1" l="2"/>' * 10_005 + b"</a>",
    "Latin-1": b'<?xml version="1.0" encoding="ISO-8859-1"?><a>\xe9</a>',
    "an attribute twice": b'<a k="1" k="2"/>',
    "two roots": b"<a/><b/>",
    "a cut": b"<a><b>",
    "nothing": b"",
    "a null": b"<a>\x00</a>",
}


@pytest.mark.parametrize("what", REFUSED)
def test_anything_else_is_refused_at_once_and_reaches_nobody(what: str) -> None:
    with listener() as door:
        raw = REFUSED[what].replace(b"PORT", str(door.getsockname()[1]).encode())
        tracemalloc.start()
        began = time.perf_counter()
        with pytest.raises((MalformedError, TooLargeError)):
            xml.parse(raw, max_bytes=2 << 20)
        took, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        with pytest.raises(BlockingIOError):
            door.accept()
    assert took < 1
    assert peak < 64 << 20


def test_a_cdata_section_is_text() -> None:
    assert xml.parse(b"<a><![CDATA[b & <c>]]></a>", max_bytes=MAX).text == "b & <c>"


def test_what_names_another_place_is_text_and_nothing_else() -> None:
    with listener() as door:
        at = f"http://127.0.0.1:{door.getsockname()[1]}/x"
        raw = (
            f'<a xmlns:xi="http://www.w3.org/2001/XInclude" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
            f' xsi:schemaLocation="urn:x {at}"><xi:include href="{at}"/></a>'
        )
        root = xml.parse(raw.encode(), max_bytes=MAX)
        with pytest.raises(BlockingIOError):
            door.accept()
    assert len(root) == 1


def test_a_document_that_says_another_encoding_is_read_as_what_it_is() -> None:
    root = xml.parse(b'<?xml version="1.0" encoding="UTF-7"?><a>+ADw-</a>', max_bytes=MAX)
    assert root.text == "+ADw-"


def test_the_bound_holds_before_anything_is_read() -> None:
    with pytest.raises(TooLargeError):
        xml.parse(b"<a>" + b" " * 100 + b"</a>", max_bytes=50)


def test_the_reason_is_told_and_none_of_the_document() -> None:
    for raw in (b"<secret>&secret;</secret>", b"<!DOCTYPE secret><secret/>", b"<secret></other>"):
        with pytest.raises(GatewayError) as refused:
            xml.parse(raw, max_bytes=MAX)
        assert "secret" not in str(refused.value)


XSD = b"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:x" elementFormDefault="qualified">
  <xs:element name="a"><xs:complexType><xs:sequence>
    <xs:element name="b" type="xs:integer" nillable="true"/>
  </xs:sequence></xs:complexType></xs:element>
</xs:schema>"""


def test_a_tree_is_as_its_schema_says_or_refused_at_its_line() -> None:
    schema = xml.Schema(XSD)
    schema.require(xml.parse(b'<a xmlns="urn:x"><b>1</b></a>', max_bytes=MAX))
    refused = {
        b'<a xmlns="urn:x">\n<b>secret</b></a>': "line 2, b",
        b'<a xmlns="urn:x">\n<secret>1</secret></a>': "line 2",
        b'<a xmlns="urn:secret"><b>1</b></a>': "line 1, a",
        b'<a xmlns="urn:x"/>': "line 1, a",
        b'<a xmlns="urn:x">\n<b secret="1">1</b></a>': "line 2, b",
    }
    for raw, place in refused.items():
        with pytest.raises(MalformedError) as error:
            schema.require(xml.parse(raw, max_bytes=MAX))
        assert error.value.place == place
        assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["schemaLocation", "noNamespaceSchemaLocation", "type", "nil"])
def test_a_document_that_speaks_of_a_schema_is_refused_and_reaches_nobody(name: str) -> None:
    with listener() as door:
        at = f"http://127.0.0.1:{door.getsockname()[1]}/x.xsd"
        value = {"schemaLocation": f"urn:y {at}", "noNamespaceSchemaLocation": at, "type": "xs:integer", "nil": "true"}[
            name
        ]
        raw = f'<a xmlns="urn:x" xmlns:i="{xml.INSTANCE}" xmlns:xs="http://www.w3.org/2001/XMLSchema">'
        raw += f'<b i:{name}="{value}"></b></a>'
        with pytest.raises(MalformedError, match="speaks of a schema"):
            xml.Schema(XSD).require(xml.parse(raw.encode(), max_bytes=MAX))
        with pytest.raises(BlockingIOError):
            door.accept()
