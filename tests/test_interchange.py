"""Contract bytes: what was written is read back, one way to write each value, and everything else is refused."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.columns.block import Block, encode_block
from gateway.columns.encodings import pack_octets
from gateway.columns.rows import Rows, constant, counting
from gateway.crypto import canonical, dsse
from gateway.crypto.checkpoint import CheckpointKey, KeyKind
from gateway.crypto.keys import OpeningKey, SigningKey, TokenKey
from gateway.errors import GatewayError, MalformedError, TooLargeError, VerificationError
from gateway.interchange import (
    CARD_TYPE,
    MAX_CARD_BYTES,
    MAX_DOCUMENT_BYTES,
    MAX_MAIL_MESSAGES,
    MAX_PAGE_BLOCKS,
    MAX_PAGE_CHANGES,
    MAX_PAGE_HEAD_BYTES,
    NO_VIEW,
    PAGE_MAGIC,
    START,
    Cursor,
    FeedHead,
    IdentityCard,
    LabelView,
    MailMessage,
    PageHead,
    PageLabel,
    View,
    dump_mail,
    dump_page,
    page_front,
    parse_card,
    parse_mail,
    parse_page,
    sign_card,
)
from gateway.model import ENTRY_GROUPS, MAX_LABELS, ChangeKind, FieldGroup, HandlingCode, Label, VictimStatus

VECTORS = Path(__file__).parent / "vectors" / "interchange"
HUB, PARTNER, SET = "XA-NCVI", "XB-NCVI", "XA-NCVI/identified"
NOW = 1_795_000_000
MODEST = settings(max_examples=60, deadline=None)


# Values


def a_label(number: int = 3) -> PageLabel:
    status = VictimStatus.WITHHELD
    label = Label(
        HUB, "XA", HandlingCode.H1, "icse:1", status, "B2", "XA Police Data Act 2019, section 12", (), ("XB",)
    )
    groups = frozenset({FieldGroup.EXISTENCE, FieldGroup.CRYPTOGRAPHIC_DIGESTS})
    return PageLabel(number, f"{number:064x}", label.to_json(), groups, ("retain_days(365)",))


def a_block(count: int = 2, first: int = 1) -> Block:
    columns = {
        "kind": constant(ChangeKind.ASSERT, count),
        "seq": counting(first, count),
        "entry_id": counting(first, count),
        "version": constant(1, count),
        "md5": [bytes([first + n]) * 16 for n in range(count)],
    }
    return encode_block(
        set_name=SET,
        epoch=1,
        label=3,
        label_digest=bytes.fromhex(f"{3:064x}"),
        rows=Rows.of(count, columns),
        salt=lambda: bytes(16),
    )


CURSOR = Cursor(1, "ab" * 32, 40)
HEAD = FeedHead(HUB, SET, PARTNER, "victim_identification", CURSOR, 38, "0f" * 16, "cd" * 32, NOW, NOW + 86_400)
PAGE = PageHead(HUB, SET, START, CURSOR, "ab" * 32, False, (1, 7), (a_label(3), a_label(9)), 2, 4)
MAIL = [MailMessage(n, f"{n:032x}", "note", NOW, {"subject": f"letter {n}"}) for n in (4, 5)]
VIEW = View(
    {3: LabelView(frozenset({FieldGroup.EXISTENCE}), ("no_onward",)), 9: LabelView(frozenset(ENTRY_GROUPS), (), 12)}
)


@cache
def signer(number: int = 1) -> SigningKey:
    return SigningKey.from_seeds(bytes([number]) * 32, bytes([number + 1]) * 32)


@cache
def a_card() -> IdentityCard:
    origin = f"partner-exchange/{HUB}/log/1"
    return IdentityCard(
        agency=HUB,
        jurisdiction="XA",
        name="National unit of XA",
        url="https://gateway.xa.example",
        signing=signer().public,
        opening=(OpeningKey.from_seed(bytes([5]) * 32).public,),
        tokens=(TokenKey.from_seed(bytes([6]) * 32).card_jwk(),),
        log=str(CheckpointKey.from_seed(origin, bytes([7]) * 32).verifier),
        witness=str(
            CheckpointKey.from_seed("partner-exchange/XA-NCVI/witness", bytes([8]) * 32, KeyKind.COSIGNER).verifier
        ),
        payload_types=("application/vnd.partner-exchange.mailbox+1",),
        test=True,
        created=NOW,
        number=2,
        tls_pins=("A" * 43 + "=",),
    )


def a_page() -> bytes:
    sink = BytesIO()
    dump_page(PAGE, [a_block(), a_block(first=3)], sink)
    return sink.getvalue()


def read_page(raw: bytes) -> tuple[PageHead, list[Block]]:
    head, blocks = parse_page(BytesIO(raw))
    return head, list(blocks)


def read_cursor(raw: bytes) -> Cursor:
    return Cursor.from_json(canonical.parse_canonical(raw, max_bytes=MAX_DOCUMENT_BYTES))


def read_card_payload(raw: bytes) -> IdentityCard:
    """A card whose payload is these bytes, signed as its owner would."""
    return parse_card(dsse.sign(CARD_TYPE, raw, signer()))


DOCUMENTS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "view": (VIEW.dump(), View.parse),
    "cursor": (canonical.encode(CURSOR.to_json()), read_cursor),
    "feed head": (HEAD.dump(), FeedHead.parse),
    "page head": (PAGE.dump(), PageHead.parse),
    "mailbox": (dump_mail(MAIL), parse_mail),
    "card": (a_card().dump(), read_card_payload),
}


# Round trips

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
numbers = st.integers(0, 2**53 - 1)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
groups = st.sets(st.sampled_from(ENTRY_GROUPS)).map(frozenset)
agencies = st.sampled_from(["XA-NCVI", "XZ-K9", "XB-ABCDEFGHIJ123456"])
cursors = st.builds(Cursor, st.integers(0, 65_535), st.one_of(st.just(NO_VIEW), digests), numbers)
label_views = st.builds(LabelView, groups, st.lists(words, max_size=3).map(tuple), st.one_of(st.none(), numbers))
views = st.dictionaries(st.integers(1, MAX_LABELS), label_views, max_size=6).map(View)
heads = st.builds(
    FeedHead,
    agencies,
    agencies.map(lambda name: f"{name}/a-set"),
    agencies,
    words,
    cursors,
    numbers,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    digests,
    numbers,
    numbers,
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)
objects = st.dictionaries(words, json_values, max_size=3)
page_labels = st.builds(
    PageLabel,
    st.integers(1, MAX_LABELS),
    digests,
    objects,
    groups.map(lambda some: some | {FieldGroup.EXISTENCE}),
    st.lists(words, max_size=2).map(tuple),
)
page_heads = st.builds(
    PageHead,
    agencies,
    agencies.map(lambda name: f"{name}/a-set"),
    cursors,
    cursors,
    digests,
    st.booleans(),
    st.sets(st.integers(1, MAX_LABELS), max_size=4).map(lambda some: tuple(sorted(some))),
    st.lists(page_labels, max_size=3, unique_by=lambda label: label.number).map(
        lambda some: tuple(sorted(some, key=lambda label: label.number))
    ),
    st.integers(0, MAX_PAGE_BLOCKS),
    st.integers(0, MAX_PAGE_CHANGES),
    st.sets(digests, max_size=3).map(lambda some: tuple(sorted(some))),
)
letters = st.builds(
    MailMessage,
    st.integers(1, 2**50),
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.text("abc_", min_size=1, max_size=32),
    numbers,
    objects,
)


@MODEST
@given(views)
def test_a_view_is_read_back_under_the_same_digest(view: View) -> None:
    again = View.parse(view.dump())
    assert again == view
    assert again.digest == view.digest


@MODEST
@given(views, views)
def test_views_have_one_digest_exactly_when_they_show_the_same(one: View, other: View) -> None:
    assert (one.digest == other.digest) == (dict(one.labels) == dict(other.labels))


@MODEST
@given(cursors)
def test_a_cursor_is_read_back(cursor: Cursor) -> None:
    assert Cursor.from_json(cursor.to_json()) == cursor


@MODEST
@given(heads)
def test_a_feed_head_is_read_back_under_the_same_digest(head: FeedHead) -> None:
    again = FeedHead.parse(head.dump())
    assert (again, again.digest) == (head, head.digest)
    assert head.without_key() == replace(head, key="00" * 32)


@MODEST
@given(page_heads)
def test_a_page_head_is_read_back(head: PageHead) -> None:
    assert PageHead.parse(head.dump()) == head


@MODEST
@given(letters, st.integers(1, MAX_MAIL_MESSAGES))
def test_mail_is_read_back_and_a_letter_has_one_digest(letter: MailMessage, count: int) -> None:
    sent = [replace(letter, number=letter.number + n) for n in range(count)]
    assert parse_mail(dump_mail(sent)) == sent
    assert len({one.digest for one in sent}) == count


@settings(max_examples=15, deadline=None)
@given(
    st.text(min_size=1, max_size=256).filter(lambda text: text.isprintable()),
    numbers,
    st.integers(1, (1 << 53) - 1),
    st.booleans(),
)
def test_a_card_is_read_back_and_its_fingerprint_is_that_of_its_keys(
    name: str, created: int, number: int, test: bool
) -> None:
    card = replace(a_card(), name=name, created=created, number=number, test=test)
    again = parse_card(sign_card(card, signer()))
    assert again == card
    assert again.fingerprint == a_card().fingerprint


@pytest.mark.parametrize("field", ["agency", "signing", "witness", "log"])
def test_the_fingerprint_changes_with_each_key_and_the_agency(field: str) -> None:
    other: dict[str, Any] = {
        "agency": "XA-OTHER",
        "signing": signer(9).public,
        "witness": "another",
        "log": "another",
    }
    assert replace(a_card(), **{field: other[field]}).fingerprint != a_card().fingerprint


def test_a_page_is_read_back_block_by_block() -> None:
    head, blocks = read_page(a_page())
    assert head == PAGE
    assert [block.digest for block in blocks] == [a_block().digest, a_block(first=3).digest]


# Members

ILL_TYPED: list[object] = [None, True, -1, 1, "", "text", [], [1], {}, {"a": 1}, 2**53 - 1]


def objects_in(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The path to each object and array inside a document."""
    if isinstance(value, dict):
        yield path
        for name, inner in value.items():
            yield from objects_in(inner, (*path, name))
    if isinstance(value, list):
        for at, inner in enumerate(value):
            yield from objects_in(inner, (*path, at))


def at(document: Any, path: tuple[object, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def free_form(name: str, path: tuple[object, ...]) -> bool:
    """Parts that the contract leaves to others: the body of a letter, the attributes of a label."""
    return bool({"body", "attributes"} & set(path))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_missing_or_extra_member_is_refused_at_every_level(name: str) -> None:
    raw, parse = DOCUMENTS[name]
    parse(raw)
    tried = 0
    for path in objects_in(json.loads(raw)):
        if free_form(name, path):
            continue
        for member in [*at(json.loads(raw), path)]:
            document = json.loads(raw)
            del at(document, path)[member]
            with pytest.raises(MalformedError):
                parse(canonical.encode(document))
            tried += 1
        document = json.loads(raw)
        at(document, path)["zzz"] = 1
        with pytest.raises(MalformedError):
            parse(canonical.encode(document))
    assert tried >= 2


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_ill_typed_member_is_refused_or_is_another_value(name: str) -> None:
    """Nothing but MalformedError ever comes out, and what is accepted is written back as it came."""
    raw, parse = DOCUMENTS[name]
    refused = 0
    for path in objects_in(json.loads(raw)):
        for member in [] if free_form(name, path) else [*at(json.loads(raw), path)]:
            old = at(json.loads(raw), path)[member]
            for wrong in ILL_TYPED:
                document = json.loads(raw)
                at(document, path)[member] = wrong
                try:
                    found = parse(canonical.encode(document))
                except MalformedError:
                    refused += 1
                    continue
                assert type(wrong) is type(old), f"{member} took {wrong!r}"
                assert found != parse(raw) or wrong == old
    assert refused > 20


def test_elements_of_another_type_are_refused() -> None:
    for name, path in {
        "view": ("labels", 0),
        "page head": ("left", 0),
        "mailbox": ("messages", 0),
        "card": ("opening", 0),
    }.items():
        raw, parse = DOCUMENTS[name]
        for wrong in (None, True, -1, 0, 4097, 1 << 52, "x", [], [1, 2], [1, [], []], [[], [], []], {}):
            document = json.loads(raw)
            at(document, path[:-1])[path[-1]] = wrong
            if name == "view" and wrong == [1, [], []]:
                continue  # that is a label of which nothing is shown
            with pytest.raises(MalformedError):
                parse(canonical.encode(document))


VIOLATIONS: dict[str, dict[str, list[tuple[str, object]]]] = {
    "view": {
        "version": [("view", "view 2")],
        "descending": [("labels", [[9, ["existence"], []], [3, ["existence"], []]])],
        "twice": [("labels", [[3, ["existence"], []], [3, ["existence"], []]])],
        "unknown group": [("labels", [[3, ["everything"], []]])],
        "case group": [("labels", [[3, ["persons"], []]])],
        "groups out of order": [("labels", [[3, ["series", "existence"], []]])],
        "group twice": [("labels", [[3, ["existence", "existence"], []]])],
        "negative place": [("labels", [[3, ["existence"], [], -1]])],
        "no place": [("labels", [[3, ["existence"], [], None]])],
        "duties not texts": [("labels", [[3, ["existence"], [7]]])],
    },
    "cursor": {
        "epoch": [("epoch", 65_536)],
        "view in capitals": [("view", "AB" * 32)],
        "view too short": [("view", "ab" * 31)],
    },
    "feed head": {
        "version": [("feed_head", "feed-head 2")],
        "hub": [("hub", "somebody")],
        "partner": [("partner", "XB")],
        "set": [("set", "XA-NCVI/Capital")],
        "set of nobody": [("set", "identified")],
        "state": [("state", "0f" * 15)],
        "state in capitals": [("state", "0F" * 16)],
        "key": [("key", "cd" * 31)],
        "purpose": [("purpose", "x" * 257)],
        "epoch": [("epoch", 1 << 16)],
    },
    "page head": {
        "version": [("page", "hash-page 1")],
        "hub": [("hub", "XA")],
        "set": [("set", "XA-NCVI")],
        "target": [("target", "xyz")],
        "left descends": [("left", [7, 1])],
        "left twice": [("left", [7, 7])],
        "left beyond the labels": [("left", [MAX_LABELS + 1])],
        "left zero": [("left", [0])],
        "labels descend": [("labels", [json.loads(PAGE.dump())["labels"][n] for n in (1, 0)])],
        "label twice": [("labels", [json.loads(PAGE.dump())["labels"][0]] * 2)],
        "label without existence": [("labels", [{**json.loads(PAGE.dump())["labels"][0], "groups": ["series"]}])],
        "sources descend": [("sources", ["f0" * 32, "0f" * 32])],
        "source twice": [("sources", ["0f" * 32] * 2)],
        "source of another length": [("sources", ["0f" * 31])],
        "too many sources": [("sources", [f"{number:064x}" for number in range(1025)])],
        "too many blocks": [("blocks", MAX_PAGE_BLOCKS + 1)],
        "too many changes": [("changes", MAX_PAGE_CHANGES + 1)],
        "too many labels": [("labels", [json.loads(PAGE.dump())["labels"][0]] * (MAX_LABELS + 1))],
    },
    "mailbox": {
        "version": [("mailbox", "mailbox 2")],
        "too many": [("messages", [one.to_json() for one in [replace(MAIL[0], number=n + 1) for n in range(101)]])],
        "number 0": [("messages", [replace(MAIL[0], number=0).to_json()])],
        "a gap": [("messages", [MAIL[0].to_json(), replace(MAIL[1], number=6).to_json()])],
        "twice": [("messages", [MAIL[0].to_json(), MAIL[0].to_json()])],
        "kind": [("messages", [replace(MAIL[0], kind="A note").to_json()])],
        "kind empty": [("messages", [replace(MAIL[0], kind="").to_json()])],
        "id": [("messages", [replace(MAIL[0], message_id="0" * 31).to_json()])],
    },
    "card": {
        "version": [("identity_card", "identity-card 1")],
        "agency": [("agency", "XA")],
        "jurisdiction": [("jurisdiction", "XB")],
        "small letters": [("agency", "xa-ncvi"), ("jurisdiction", "xa")],
        "no name": [("name", "")],
        "long name": [("name", "x" * 257)],
        "no opening key": [("opening", [])],
        "nine opening keys": [("opening", [str(a_card().opening[0])] * 9)],
        "classical opening key": [("opening", ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"])],
        "private token key": [("tokens", [{**a_card().tokens[0], "d": "AAAA"}])],
        "no token key": [("tokens", [])],
        "three token keys": [("tokens", [a_card().tokens[0]] * 3)],
        "token key without alg": [("tokens", [{"crv": "Ed25519", "kty": "OKP", "x": "AA"}])],
        "token member": [("tokens", [{**a_card().tokens[0], "x": 1}])],
        "number 0": [("number", 0)],
        "signing number 0": [("signing_number", 0)],
        "a pin that is none": [("tls_pins", ["AAAA"])],
        "nine pins": [("tls_pins", ["A" * 43 + "="] * 9)],
        "another signer": [("signing", signer(9).public.to_json())],
        "half a signer": [("signing", {"Ed25519": signer().public.to_json()["Ed25519"]})],
    },
}


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, found in VIOLATIONS.items() for what in found])
def test_a_value_outside_the_rules_is_refused(name: str, what: str) -> None:
    raw, parse = DOCUMENTS[name]
    document = json.loads(raw)
    document.update(VIOLATIONS[name][what])
    with pytest.raises(VerificationError if what == "another signer" else MalformedError):
        parse(canonical.encode(document))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_another_way_to_write_the_same_value_is_refused(name: str) -> None:
    raw, parse = DOCUMENTS[name]
    value = json.loads(raw)
    first = next(iter(value))
    for other in (
        json.dumps(value).encode(),
        json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(),
        raw + b"\n",
        b"\xef\xbb\xbf" + raw,
        raw[:-1] + b',"%b":1}' % first.encode(),
        re.sub(rb"([:\[,]\d+)(?=[,\]}])", rb"\1.0", raw, count=1),
        raw.decode().encode("utf-16"),
    ):
        with pytest.raises(MalformedError):
            parse(other)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_document_cut_anywhere_is_refused(name: str) -> None:
    raw, parse = DOCUMENTS[name]
    step = max(1, len(raw) // 60)
    for end in [*range(0, len(raw), step), len(raw) - 1]:
        with pytest.raises(MalformedError):
            parse(raw[:end])


@pytest.mark.parametrize(
    ("parse", "bound"),
    [
        (View.parse, MAX_PAGE_HEAD_BYTES),
        (FeedHead.parse, MAX_DOCUMENT_BYTES),
        (PageHead.parse, MAX_PAGE_HEAD_BYTES),
        (parse_mail, MAX_DOCUMENT_BYTES),
        (parse_card, MAX_CARD_BYTES),
    ],
)
def test_a_document_above_its_bound_is_too_large_before_it_is_read(
    parse: Callable[[bytes], object], bound: int
) -> None:
    with pytest.raises(TooLargeError):
        parse(b"[" * (bound + 1))


# Cards


def test_no_flipped_byte_of_a_signed_card_is_accepted() -> None:
    raw = sign_card(a_card(), signer())
    parse_card(raw)
    # One bit of every ninth octet; the bit wanders, so every kind of place meets every bit.
    for where in range(0, len(raw), 9):
        damaged = raw[:where] + bytes([raw[where] ^ 1 << where % 8]) + raw[where + 1 :]
        with pytest.raises((MalformedError, VerificationError)):
            parse_card(damaged)


def test_a_card_is_signed_by_the_very_keys_that_it_names_and_by_nobody_beside() -> None:
    payload = a_card().dump()
    other = signer(9)
    for raw in (
        dsse.sign(CARD_TYPE, payload, other),
        dsse.sign(CARD_TYPE, payload, signer(), other),
        dsse.sign("application/json", payload, signer()),
    ):
        with pytest.raises(VerificationError):
            parse_card(raw)
    envelope = json.loads(dsse.sign(CARD_TYPE, payload, signer()))
    for signatures in (envelope["signatures"][:1], envelope["signatures"] * 2):
        with pytest.raises(VerificationError):
            parse_card(canonical.encode({**envelope, "signatures": signatures}))


def test_a_card_in_another_spelling_is_refused_though_its_signature_holds() -> None:
    spaced = json.dumps(json.loads(a_card().dump())).encode()
    with pytest.raises(MalformedError):
        parse_card(dsse.sign(CARD_TYPE, spaced, signer()))


# Pages as frames


def test_a_page_cut_anywhere_is_refused() -> None:
    raw = a_page()
    for end in range(len(raw)):
        with pytest.raises(MalformedError):
            read_page(raw[:end])


def test_bytes_after_the_last_block_are_refused() -> None:
    for tail in (b"\x00", b"HBK1", a_page()):
        with pytest.raises(MalformedError):
            read_page(a_page() + tail)


def test_any_flipped_byte_of_a_page_is_refused_or_stays_within_the_head() -> None:
    """The frame holds no signature, and zstd packs the same octets in several ways: the envelope refuses those."""
    raw = a_page()
    body = len(page_front(raw))
    for where in range(len(raw)):
        damaged = raw[:where] + bytes([raw[where] ^ 1 << where % 8]) + raw[where + 1 :]
        try:
            head, blocks = read_page(damaged)
        except (MalformedError, VerificationError):
            continue
        assert 12 <= where < body or head == PAGE  # nothing but the packed head says what the head says
        if where >= body:  # a block's own digest covers its header, and the header its parts
            assert [block.digest for block in blocks] != [a_block().digest, a_block(first=3).digest]


@pytest.mark.parametrize("magic", [b"HPG1", b"HBK1", b"hpg2", b"\0\0\0\0"])
def test_another_beginning_is_no_page(magic: bytes) -> None:
    with pytest.raises(MalformedError):
        read_page(magic + a_page()[4:])


def test_a_head_that_claims_too_much_is_refused_before_it_is_read() -> None:
    class Counting(BytesIO):
        most = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.most = max(self.most, size or 0)
            return super().read(size)

    for head, packed in ((MAX_PAGE_HEAD_BYTES + 1, 64), (64, MAX_PAGE_HEAD_BYTES + 1)):
        source = Counting(struct.pack(">4sII", PAGE_MAGIC, head, packed) + bytes(64))
        with pytest.raises(TooLargeError):
            parse_page(source)
        assert source.most == 12


def test_a_packed_head_that_would_unpack_to_more_than_it_says_is_refused() -> None:
    raw = PAGE.dump()
    for said, packed in ((len(raw) - 1, raw), (len(raw) + 1, raw), (len(raw), raw + bytes(1 << 20))):
        frame = pack_octets(packed)
        page = struct.pack(">4sII", PAGE_MAGIC, said, len(frame)) + frame
        with pytest.raises(MalformedError):
            parse_page(BytesIO(page))


def test_what_stands_before_the_blocks_is_found_as_it_came() -> None:
    raw = a_page()
    blocks = BytesIO()
    for block in read_page(raw)[1]:
        block.dump(blocks)
    assert page_front(raw) + blocks.getvalue() == raw


@pytest.mark.parametrize("blocks", [0, 1, 3, 2**53 - 1])
def test_a_page_with_another_number_of_blocks_is_refused(blocks: int) -> None:
    sink = BytesIO()
    dump_page(replace(PAGE, blocks=blocks), [a_block(), a_block(first=3)], sink)
    with pytest.raises(MalformedError):
        read_page(sink.getvalue())


@MODEST
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_errors(raw: bytes) -> None:
    for parse in (View.parse, FeedHead.parse, PageHead.parse, parse_mail, parse_card, read_page):
        for candidate in (raw, struct.pack(">4sII", PAGE_MAGIC, len(raw), len(raw)) + raw):
            with pytest.raises(GatewayError):
                parse(candidate)


@MODEST
@given(json_values)
def test_no_json_raises_anything_but_our_errors(value: object) -> None:
    raw = canonical.encode(value)
    for parse in (View.parse, FeedHead.parse, PageHead.parse, parse_mail, read_cursor):
        with pytest.raises(MalformedError):
            parse(raw)


# Frozen bytes


READERS: dict[str, Callable[[bytes], object]] = {
    "view": View.parse,
    "cursor": read_cursor,
    "feed-head": FeedHead.parse,
    "page-head": PageHead.parse,
    "page": read_page,
    "mailbox": parse_mail,
}
INDEX: list[dict[str, str]] = json.loads((VECTORS / "index.json").read_text(encoding="utf-8"))["vectors"]


@pytest.mark.parametrize("vector", INDEX, ids=lambda vector: vector["file"])
def test_a_frozen_vector_gets_its_word(vector: dict[str, str]) -> None:
    raw = (VECTORS / vector["file"]).read_bytes()
    try:
        found = READERS[vector["kind"]](raw)
    except GatewayError as error:
        word = type(error).__name__
    else:
        word = "ok"
        if vector["kind"] == "view":
            assert isinstance(found, View)
            assert found.digest == vector["digest"]
        if vector["kind"] == "feed-head":
            assert isinstance(found, FeedHead)
            assert found.digest == vector["digest"]
        if vector["kind"] == "mailbox":
            assert isinstance(found, list)
            assert [letter.digest for letter in found] == vector["digest"].split()
    assert word == vector["expect"], vector["about"]


def test_every_vector_file_is_in_the_index_and_each_kind_has_a_good_and_a_bad_one() -> None:
    files = {path.name for path in VECTORS.iterdir()} - {"index.json", "README.md"}
    assert files == {vector["file"] for vector in INDEX}
    for kind in READERS:
        words = {vector["expect"] for vector in INDEX if vector["kind"] == kind}
        assert "ok" in words
        assert words - {"ok"}


def test_what_is_written_today_is_what_was_frozen() -> None:
    """A published version never changes: the bytes of the same values are the same."""
    frozen = {
        "view-ok.json": VIEW.dump(),
        "feed-head-ok.json": HEAD.dump(),
        "page-head-ok.json": PAGE.dump(),
        "mailbox-ok.json": dump_mail(MAIL),
        "cursor-ok.json": canonical.encode(CURSOR.to_json()),
    }
    for name, raw in frozen.items():
        assert (VECTORS / name).read_bytes() == raw, name
    head, blocks = read_page((VECTORS / "page-ok.bin").read_bytes())
    assert (head, [block.digest for block in blocks]) == (PAGE, [a_block().digest, a_block(first=3).digest])


def test_base64_has_one_spelling_in_a_card() -> None:
    envelope = json.loads(sign_card(a_card(), signer()))
    signature = envelope["signatures"][0]["sig"]
    raw = base64.b64decode(signature)
    assert len(raw) % 3
    loose = signature.rstrip("=")[:-1] + chr(ord(signature.rstrip("=")[-1]) + 1) + "=" * signature.count("=")
    assert base64.b64decode(loose) == raw
    envelope["signatures"][0]["sig"] = loose
    with pytest.raises(MalformedError):
        parse_card(canonical.encode(envelope))
