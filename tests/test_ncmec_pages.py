"""Pages of an NCMEC-style server: read by the column and one by one, to the same drafts and the same report."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import xml
from gateway.adapters import ncmec_pages
from gateway.adapters.ncmec import NAMESPACE
from gateway.adapters.ncmec_pages import Link, SourcePage, parse_page
from gateway.errors import GatewayError, MalformedError
from gateway.model import AdapterReport, EntryDraft, RefusedRow

Read = tuple[list[EntryDraft], set[str], int, int, int, dict[str, int], list[RefusedRow]]


def page(images: Sequence[str], videos: Sequence[str] = ()) -> bytes:
    inside = f"<images>{''.join(images)}</images><videos>{''.join(videos)}</videos>"
    return f'<queryResult xmlns="{NAMESPACE}">{inside}</queryResult>'.encode()


def hexed(what: str, digits: int) -> str:
    return hashlib.shake_128(what.encode()).hexdigest(digits // 2)


def entry(tag: str, identifier: str, *prints: str, member: str = "42", more: str = "") -> str:
    inside = f"<fingerprints>{''.join(prints)}</fingerprints>" if prints else ""
    return (
        f'<{tag}><member id="{member}">M</member><timestamp>2026-11-28T00:00:00Z</timestamp>'
        f"<id>{identifier}</id>{more}{inside}</{tag}>"
    )


def told(found: SourcePage, report: AdapterReport) -> Read:
    drafts = [*found.drafts.drafts(), *(draft for draft, _ in found.linked)]
    return (
        sorted(drafts, key=lambda draft: draft.source_ref),
        set(found.ended),
        report.read,
        report.accepted,
        report.refused,
        report.dropped_fields,
        report.refused_rows,
    )


def read(raw: bytes) -> Read:
    report = AdapterReport("ncmec")
    return told(parse_page(raw, report), report)


def read_singly(raw: bytes) -> Read:
    """The slow definition: every entry as it stands."""
    report, one_by_one = AdapterReport("ncmec"), ncmec_pages._Read("ncmec")
    root = xml.parse(raw, max_bytes=len(raw))
    ncmec_pages._read_singly(enumerate(ncmec_pages._entries(list(root)), 1), one_by_one)
    one_by_one.report_to(report)
    return told(SourcePage(one_by_one.batch(), one_by_one.linked, list(one_by_one.ended), ""), report)


MD5, SHA1, PDQ = (
    f"<{name}>{hexed(name, digits)}</{name}>" for name, digits in (("md5", 32), ("sha1", 40), ("pdq", 64))
)
PRINTS = [
    MD5,
    SHA1,
    PDQ,
    MD5.upper().replace("MD5", "md5"),
    f"<pdna>{base64.b64encode(bytes(range(144))).decode()}</pdna>",
    f"<pdna>{hexed('pdna', 288)}</pdna>",
    "<md5>xyz</md5>",
    "<md5/>",
    "<md5> aa</md5>",
    f"<sha1> {hexed('spaces', 40)}\n</sha1>",
    f"<sha1><x/>{hexed('inside', 40)}</sha1>",
    f"<sha1><![CDATA[{hexed('cdata', 40)}]]></sha1>",
    f"<md5>{hexed('a', 30)}&#97;b</md5>",
    "<netclean>x</netclean>",
    '<tmk-pdqf rel="self" href="/v2/entries/1/fingerprints/TMK_PDQF"/>',
    '<tmk-pdqf rel="self" href="https://elsewhere.example/v2/x"/>',
    '<tmk-pdqf rel="self" href="/v2/../secrets"/>',
    '<md5 xmlns="urn:other">x</md5>',
]
MORE = [
    "",
    "",
    "<classification>A1</classification>",
    "<classification>A9</classification>",
    "<classification/>",
    '<feedback><affirmativeFeedback type="Md5"/></feedback>',
    "<feedback/>",
    "<id>again</id>",
    "<image/>",
]
TAGS = ["image", "video", "deletedImage", "deletedVideo", "soundtrack"]
ENTRIES = st.builds(
    lambda tag, identifier, prints, member, more: entry(tag, identifier, *prints, member=member, more=more),
    st.sampled_from(TAGS[:1] * 6 + TAGS),
    st.sampled_from([*map(str, range(40)), "", " 1", "a b", "1\n2", "x" * 201]),
    st.lists(st.sampled_from(PRINTS[:3] * 6 + PRINTS), max_size=3),
    st.sampled_from(["42"] * 8 + ["43", "0", "x"]),
    st.sampled_from(MORE),
)


@given(st.lists(ENTRIES, max_size=12), st.lists(ENTRIES, max_size=3))
@example([entry("image", "1", MD5), entry("image", "2", "<md5>xyz</md5>")], [])
@example([entry("image", "1", MD5), "<soundtrack><image/></soundtrack>"], [])
@example(["<image/><x><image/></x>", "<x><image><image/></image></x>"], [])
@example([entry("image", "1", MD5), entry("image", "1\n2", MD5)], [])
@example([entry("image", "1", MD5)], [entry("deletedVideo", "1")])
def test_entries_read_by_the_column_are_read_as_one_by_one(images: list[str], videos: list[str]) -> None:
    raw = page(images, videos)
    assert read(raw) == read_singly(raw)


def test_a_page_as_servers_send_it_is_read_by_the_column_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncmec_pages, "_entry", SimpleNamespace())  # whoever calls it fails
    rows = [entry("image", str(n), f"<md5>{hexed(str(n), 32)}</md5>", SHA1) for n in range(50)]
    rows += [entry("image", f"p{n}", MD5, PDQ, more="<classification>B2</classification>") for n in range(50)]
    rows += [entry("deletedImage", f"d{n}") for n in range(50)]
    drafts, ended, count, accepted, refused, dropped, _ = read(page(rows, [entry("video", "v", MD5, "<netclean/>")]))
    assert (len(drafts), len(ended), count, accepted, refused) == (101, 50, 151, 151, 0)
    assert dropped == {"netclean": 1}
    by_reference = {draft.source_ref: draft for draft in drafts}
    assert by_reference["42/7"] == EntryDraft(
        {"md5": bytes.fromhex(hexed("7", 32)), "sha1": bytes.fromhex(hexed("sha1", 40))}, "42/7", "image"
    )
    assert (by_reference["42/p1"].category, by_reference["42/v"].media_type) == ("ncmec:B2", "video")


def test_a_bad_entry_is_refused_alone_by_its_number() -> None:
    rows = [entry("image", str(n), MD5) for n in range(20)]
    rows[7] = entry("image", "7", MD5, member="x")
    rows[11] = "<soundtrack/>"
    drafts, _, count, accepted, refused, _, rows_refused = read(page(rows, [entry("video", "", MD5)]))
    assert (len(drafts), count, accepted, refused) == (18, 21, 18, 3)
    assert [(row.line, row.field) for row in rows_refused] == [(8, "image"), (12, "soundtrack"), (21, "video")]


def test_an_entry_that_stands_twice_in_a_page_counts_as_it_came_last() -> None:
    rows = [entry("image", "1", MD5), entry("deletedImage", "1"), entry("deletedImage", "2"), entry("image", "2", MD5)]
    drafts, ended, *_ = read(page(rows))
    assert (ended, [draft.source_ref for draft in drafts]) == ({"42/1"}, ["42/2"])


def test_a_link_is_one_of_the_same_server() -> None:
    where = "/v2/entries/1/fingerprints/TMK_PDQF"
    found = parse_page(
        page([entry("video", "1", f'<tmk-pdqf rel="self" href="{where}"/>')]), report := AdapterReport("ncmec")
    )
    assert [(draft.digests, link) for draft, link in found.linked] == [({}, Link("tmk_pdqf", where))]
    assert report.dropped_fields == {}
    for href in ("//evil.example/v2/", "/v2/../x", "/v2/%0d%0a x", "http://127.0.0.1/v2/x", ""):
        found = parse_page(page([entry("video", "1", f'<tmk-pdqf href="{href}"/>', MD5)]), AdapterReport("ncmec"))
        assert (found.linked, found.drafts.n) == ([], 1)


@pytest.mark.parametrize("raw", [b"<queryResult/>", b"", b"<x/>", page(["<image>"])])
def test_what_is_no_page_is_refused_whole(raw: bytes) -> None:
    with pytest.raises(GatewayError):
        parse_page(raw, AdapterReport("ncmec"))
    with pytest.raises(MalformedError):
        parse_page(b"<queryResult/>", AdapterReport("ncmec"))
