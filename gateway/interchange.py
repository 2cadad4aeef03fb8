"""Contract bytes <-> values: views, cursors, feed heads, pages, mailbox messages, identity cards.

All of them are canonical JSON (RFC 8785) under a version word; a page is one such head followed by column blocks:

    "HPG2" | u32 octets of the head, u32 octets of it packed (big-endian) | page head, packed by zstd | block | …

`parse_` refuses what the contract does not describe; what a document *means* (is it for me, is it newer?) is judged in
`exchange`. Contracts: `contracts/page-2.md`, `contracts/feed-head-1.md`, `contracts/mailbox-1.md`,
`contracts/identity-card-2.md`.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import BinaryIO

from gateway.columns.block import Block, parse_block
from gateway.columns.encodings import pack_octets, unpack_octets
from gateway.crypto import canonical, dsse, restore
from gateway.crypto.keys import SealingKey, SigningKey, VerifyingKey
from gateway.errors import MalformedError, TooLargeError
from gateway.model import (
    AGENCY,
    ENTRY_GROUPS,
    JURISDICTION,
    MAX_LABELS,
    MAX_TEXT_CHARS,
    SET_NAME,
    TLS_PIN,
    FieldGroup,
    int_member,
    require,
    text_member,
    texts_member,
)

PAGE_TYPE = "application/vnd.partner-exchange.hash-page+2"
HEAD_TYPE = "application/vnd.partner-exchange.feed-head+1"
MAIL_TYPE = "application/vnd.partner-exchange.mailbox+1"
CARD_TYPE = "application/vnd.partner-exchange.identity-card+2"

PAGE_MAGIC = b"HPG2"
_FRONT = struct.Struct(">4sII")  # of a page: magic, octets of the head, octets of the head as it is packed
MAX_PAGE_HEAD_BYTES = 4 << 20  # 4,096 labels of under 1 KiB each
MAX_PAGE_BYTES = 96 << 20  # 24 MiB as a hub fills a page, and one block more, which is never above 52 MiB
MAX_PAGE_CHANGES = 2 * 65_536  # as many as a hub puts in, and one block more: a small page can name very many
MAX_SOURCES = 1024  # messages of an originator that a page names: 70 KB; with more, the newest
MAX_PAGE_BLOCKS = 8192  # small ones, each of which costs its reader a header and a decode
MAX_CARD_OPENING_KEYS = 8  # a partner seals for all of them
MAX_CARD_TOKEN_KEYS = 2  # the one in use, and its successor
MAX_CARD_PINS = 8  # certificates that are used now and will be used next
MAX_DOCUMENT_BYTES = 1 << 20  # feed head, mailbox message
MAX_CARD_BYTES = 64 << 10
KEYS_TYPE = "application/vnd.partner-exchange.key-statements+1"
KEYS_VERSION = "key-statements 1"
RESTORE_KEYS_TYPE = "application/vnd.partner-exchange.key-statements+2"
RESTORE_KEYS_VERSION = "key-statements 2"  # as 1, with restore statements among the others
MAX_KEY_STATEMENTS = 256  # of one agency: two rotations a year for a century
MAX_KEYS_BYTES = 4 << 20  # 256 statements of 14 KiB, and a card
MAX_MAIL_MESSAGES = 100  # messages of one mailbox answer
CARD_VERSION = "identity-card 2"
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
NO_VIEW = ""  # the view of a follower that holds nothing yet
NO_KEY = "00" * 32  # stands where a feed head is kept without its key


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a follower is: everything that `view` shows of changes up to `seq` in `epoch`."""

    epoch: int
    view: str
    seq: int

    def to_json(self) -> dict[str, object]:
        """As the members of a JSON object."""
        return {"epoch": self.epoch, "view": self.view, "seq": self.seq}

    @classmethod
    def from_json(cls, value: object) -> Cursor:
        """What `to_json` wrote."""
        members = _members(value, {"epoch", "view", "seq"}, "cursor")
        view = text_member(members, "view")
        require(view == NO_VIEW or HEX_DIGEST.fullmatch(view), "cursor: view is not a digest")
        epoch = int_member(members, "epoch")
        require(epoch < 1 << 16, "cursor: epoch is above 65,535")
        return cls(epoch, view, int_member(members, "seq"))


START = Cursor(0, NO_VIEW, 0)


@dataclass(frozen=True, slots=True)
class LabelView:
    """What a view shows of one label: field groups, duties, and how far a backfill has come (None: all of it)."""

    groups: frozenset[FieldGroup]
    obligations: tuple[str, ...] = ()
    until_seq: int | None = None

    def shows_the_same(self, other: LabelView) -> bool:
        """Whether both show the same fields under the same duties, however far a backfill is."""
        return self.groups == other.groups and self.obligations == other.obligations


@dataclass(frozen=True, slots=True)
class View:
    """The table label number -> what is shown. Its digest names it; equal tables are one audience class."""

    labels: Mapping[int, LabelView]
    digest: str = field(init=False)
    _text: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_text", self._encoded())
        object.__setattr__(self, "digest", hashlib.sha256(self._text).hexdigest())

    def dump(self) -> bytes:
        """Canonical JSON."""
        return self._text

    def _encoded(self) -> bytes:
        rows = []
        for number, shown in sorted(self.labels.items()):
            row: list[object] = [number, sorted(shown.groups), list(shown.obligations)]
            if shown.until_seq is not None:
                row.append(shown.until_seq)
            rows.append(row)
        return canonical.encode({"view": "view 1", "labels": rows})

    @classmethod
    def parse(cls, raw: bytes) -> View:
        """What `dump` wrote (from our own store)."""
        members = _members(canonical.parse_canonical(raw, max_bytes=MAX_PAGE_HEAD_BYTES), {"view", "labels"}, "view")
        rows = members["labels"]
        if members["view"] != "view 1" or not isinstance(rows, list):
            raise MalformedError("view: not version 1")
        labels = [_label_view(row) for row in rows]
        require(_ascends([number for number, _ in labels]), "view: label numbers do not ascend")
        return cls(dict(labels))


EMPTY_VIEW = View({})  # of somebody to whom policy shows nothing (any more)


@dataclass(frozen=True, slots=True)
class FeedHead:
    """A hub's signed word on where a set stands, for one partner. `state` is the state digest over the view.

    `key` is the secret of that digest, for this hub, set and epoch; the head therefore only ever travels sealed.
    """

    hub: str
    set_name: str
    partner: str
    purpose: str
    cursor: Cursor
    count: int
    state: str
    key: str
    issued: int
    expires: int

    def dump(self) -> bytes:
        """Canonical JSON."""
        return canonical.encode(
            {
                "feed_head": "feed-head 1",
                "hub": self.hub,
                "set": self.set_name,
                "partner": self.partner,
                "purpose": self.purpose,
                **self.cursor.to_json(),
                "count": self.count,
                "state": self.state,
                "key": self.key,
                "issued": self.issued,
                "expires": self.expires,
            }
        )

    def without_key(self) -> FeedHead:
        """As it is kept in the open: the key lies beside it, sealed."""
        return replace(self, key=NO_KEY)

    @property
    def digest(self) -> str:
        """Names this head: the entity tag of a conditional poll."""
        return hashlib.sha256(self.dump()).hexdigest()

    @classmethod
    def parse(cls, raw: bytes) -> FeedHead:
        """What `dump` wrote."""
        texts = ("feed_head", "hub", "set", "partner", "purpose", "state", "key")
        numbers = ("count", "issued", "expires")
        names = {*texts, *numbers, "epoch", "view", "seq"}
        value = _members(canonical.parse_canonical(raw, max_bytes=MAX_DOCUMENT_BYTES), names, "feed head")
        require(value["feed_head"] == "feed-head 1", "feed head: not version 1")
        _, hub, set_name, partner, purpose, state, key = (text_member(value, name) for name in texts)
        require(SET_NAME.fullmatch(set_name), "feed head: set is not a set name")
        require(AGENCY.fullmatch(hub) and AGENCY.fullmatch(partner), "feed head: hub or partner is not an agency")
        require(HEX_DIGEST.fullmatch(key), "feed head: key is not 32 bytes in hex")
        require(re.fullmatch(r"[0-9a-f]{32}", state), "feed head: state is not 128 bits in hex")
        require(len(purpose) <= MAX_TEXT_CHARS, "feed head: purpose is too long")
        cursor = Cursor.from_json({name: value[name] for name in ("epoch", "view", "seq")})
        count, issued, expires = (int_member(value, name) for name in numbers)
        return cls(hub, set_name, partner, purpose, cursor, count, state, key, issued, expires)


@dataclass(frozen=True, slots=True)
class PageLabel:
    """A label as its reader may see it: `attributes` are those of `model.Label`, a withheld status says so."""

    number: int
    digest: str
    attributes: dict[str, object]
    groups: frozenset[FieldGroup]
    obligations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PageHead:
    """What a page brings: from one cursor to another, towards the view `target`.

    `reset` tells the reader to drop what it holds; `left` names labels that it must drop whole; `labels` describes
    every label of the page's blocks and every label newly in view. `sources`: where the hub does not own the set, the
    digests of its owner's signed manifests that stand behind the page.
    """

    hub: str
    set_name: str
    start: Cursor
    end: Cursor
    target: str
    reset: bool
    left: tuple[int, ...]
    labels: tuple[PageLabel, ...]
    blocks: int
    changes: int
    sources: tuple[str, ...] = ()

    def dump(self) -> bytes:
        """Canonical JSON."""
        labels = [
            {
                "number": label.number,
                "digest": label.digest,
                "attributes": label.attributes,
                "groups": sorted(label.groups),
                "obligations": list(label.obligations),
            }
            for label in self.labels
        ]
        return canonical.encode(
            {
                "page": "hash-page 2",
                "hub": self.hub,
                "set": self.set_name,
                "from": self.start.to_json(),
                "to": self.end.to_json(),
                "target": self.target,
                "reset": self.reset,
                "left": list(self.left),
                "labels": labels,
                "blocks": self.blocks,
                "changes": self.changes,
                "sources": list(self.sources),
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> PageHead:
        """What `dump` wrote."""
        names = {
            "page",
            "hub",
            "set",
            "from",
            "to",
            "target",
            "reset",
            "left",
            "labels",
            "blocks",
            "changes",
            "sources",
        }
        value = _members(canonical.parse_canonical(raw, max_bytes=MAX_PAGE_HEAD_BYTES), names, "page")
        require(value["page"] == "hash-page 2", "page: not version 2")
        hub, set_name, target = (text_member(value, name) for name in ("hub", "set", "target"))
        require(AGENCY.fullmatch(hub) and SET_NAME.fullmatch(set_name), "page: hub or set is not a name")
        require(target == NO_VIEW or HEX_DIGEST.fullmatch(target), "page: target is not a digest")
        reset, left, labels = value["reset"], value["left"], value["labels"]
        require(isinstance(reset, bool), "page: reset is not true or false")
        if not isinstance(left, list) or not isinstance(labels, list) or len(labels) > MAX_LABELS:
            raise MalformedError("page: left or labels is not a list within bounds")
        parsed = tuple(_page_label(label) for label in labels)
        numbers = tuple(_label_number(number) for number in left)
        require(_ascends(numbers), "page: the labels that left do not ascend")
        require(_ascends([label.number for label in parsed]), "page: the labels do not ascend")
        sources = texts_member(value, "sources")
        require(
            len(sources) <= MAX_SOURCES and all(map(HEX_DIGEST.fullmatch, sources)), "page: sources are not digests"
        )
        require(list(sources) == sorted(set(sources)), "page: the sources do not ascend")
        count, changes = int_member(value, "blocks"), int_member(value, "changes")
        if count > MAX_PAGE_BLOCKS or changes > MAX_PAGE_CHANGES:
            raise TooLargeError("page: more blocks or changes than a page may bring")
        return cls(
            hub,
            set_name,
            Cursor.from_json(value["from"]),
            Cursor.from_json(value["to"]),
            target,
            bool(reset),
            numbers,
            parsed,
            count,
            changes,
            sources,
        )


def dump_page(head: PageHead, blocks: Iterable[Block], sink: BinaryIO) -> None:
    """Write a page."""
    raw = head.dump()
    packed = pack_octets(raw)
    sink.write(_FRONT.pack(PAGE_MAGIC, len(raw), len(packed)) + packed)
    for block in blocks:
        block.dump(sink)


def page_front(raw: bytes) -> bytes:
    """What stands before the blocks of a page that was parsed, octet for octet: packing anew may give other octets."""
    _, _, packed = _FRONT.unpack_from(raw)
    return raw[: _FRONT.size + packed]


def parse_page(source: BinaryIO) -> tuple[PageHead, Iterator[Block]]:
    """Read a page: its head, and its blocks as they come. The end of the input is checked after the last block."""
    start = source.read(_FRONT.size)
    require(len(start) == _FRONT.size and start.startswith(PAGE_MAGIC), "page: does not begin as a page")
    _, length, packed = _FRONT.unpack(start)
    if max(length, packed) > MAX_PAGE_HEAD_BYTES:
        raise TooLargeError("page: the head is too large")
    raw = source.read(packed)
    require(len(raw) == packed, "page: ends within its head")
    head = PageHead.parse(unpack_octets(raw, length))
    return head, _blocks(source, head.blocks)


def _blocks(source: BinaryIO, count: int) -> Iterator[Block]:
    for _ in range(count):
        yield parse_block(source, max_bytes=MAX_PAGE_BYTES)
    require(not source.read(1), "page: bytes follow the last block")


@dataclass(frozen=True, slots=True)
class MailMessage:
    """One message of a mailbox: numbered without gaps from 1 in each direction of a pair."""

    number: int
    message_id: str
    kind: str
    created: int
    body: dict[str, object]

    def to_json(self) -> dict[str, object]:
        """As the members of a JSON object."""
        return {
            "number": self.number,
            "message_id": self.message_id,
            "kind": self.kind,
            "created": self.created,
            "body": self.body,
        }

    @property
    def digest(self) -> str:
        """Identifies the content."""
        return hashlib.sha256(canonical.encode(self.to_json())).hexdigest()

    @classmethod
    def from_json(cls, value: object) -> MailMessage:
        """What `to_json` wrote."""
        members = _members(value, {"number", "message_id", "kind", "created", "body"}, "message")
        body = members["body"]
        if not isinstance(body, dict):
            raise MalformedError("message: body is not an object")
        kind, message_id = text_member(members, "kind"), text_member(members, "message_id")
        require(re.fullmatch(r"[a-z_]{1,32}", kind), "message: kind is not a word")
        require(re.fullmatch(r"[0-9a-f]{32}", message_id), "message: message_id is not 128 bits in hex")
        number = int_member(members, "number")
        require(number, "message: numbers begin with 1")
        return cls(number, message_id, kind, int_member(members, "created"), body)


def dump_mail(messages: Iterable[MailMessage]) -> bytes:
    """Mailbox messages as one payload."""
    return canonical.encode({"mailbox": "mailbox 1", "messages": [message.to_json() for message in messages]})


def parse_mail(raw: bytes) -> list[MailMessage]:
    """What `dump_mail` wrote: numbers ascend by one."""
    value = _members(canonical.parse_canonical(raw, max_bytes=MAX_DOCUMENT_BYTES), {"mailbox", "messages"}, "mailbox")
    listed = value["messages"]
    if value["mailbox"] != "mailbox 1" or not isinstance(listed, list) or len(listed) > MAX_MAIL_MESSAGES:
        raise MalformedError("mailbox: not version 1, or too many messages")
    messages = [MailMessage.from_json(one) for one in listed]
    for previous, following in pairwise(messages):
        require(following.number == previous.number + 1, "mailbox: numbers do not follow each other")
    return messages


@dataclass(frozen=True, slots=True)
class IdentityCard:
    """Who a gateway is: all its public keys and where it answers. Signed by the keys that it names."""

    agency: str
    jurisdiction: str
    name: str
    url: str
    signing: VerifyingKey
    opening: tuple[SealingKey, ...]
    tokens: tuple[dict[str, str], ...]
    log: str
    witness: str
    payload_types: tuple[str, ...]
    test: bool
    created: int
    number: int = 1
    signing_number: int = 1
    tls_pins: tuple[str, ...] = ()

    def dump(self) -> bytes:
        """Canonical JSON, before it is signed."""
        return canonical.encode(
            {
                "identity_card": CARD_VERSION,
                "agency": self.agency,
                "jurisdiction": self.jurisdiction,
                "name": self.name,
                "url": self.url,
                "signing": self.signing.to_json(),
                "opening": [str(key) for key in self.opening],
                "signing_number": self.signing_number,
                "tls_pins": list(self.tls_pins),
                "tokens": [dict(jwk) for jwk in self.tokens],
                "log": self.log,
                "witness": self.witness,
                "payload_types": list(self.payload_types),
                "test": self.test,
                "created": self.created,
                "number": self.number,
            }
        )

    @property
    def fingerprint(self) -> str:
        """160 bits over agency and lasting keys, in ten groups of four, to be read aloud and compared."""
        keys = {"agency": self.agency, "signing": self.signing.to_json(), "log": self.log, "witness": self.witness}
        text = hashlib.sha256(CARD_VERSION.encode() + b"\n" + canonical.encode(keys)).hexdigest()[:40]
        return " ".join(text[i : i + 4] for i in range(0, 40, 4))


@dataclass(frozen=True, slots=True)
class KeyNews:
    """All that an agency says of its keys: its card, and its successions, revocations and restores in order, each as
    signed."""

    card: bytes
    statements: tuple[bytes, ...]

    @property
    def version(self) -> str:
        """Who was never restored says nothing that a reader of the first version could not read."""
        restored = any(dsse.parse(raw).payload_type == restore.PAYLOAD_TYPE for raw in self.statements)
        return RESTORE_KEYS_VERSION if restored else KEYS_VERSION

    def dump(self) -> bytes:
        """Canonical JSON."""
        return canonical.encode(
            {
                "key_statements": self.version,
                "card": self.card.decode("ascii"),
                "statements": [raw.decode("ascii") for raw in self.statements],
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> KeyNews:
        """What `dump` wrote; nothing in it is verified yet."""
        value = canonical.parse_canonical(raw, max_bytes=MAX_KEYS_BYTES)
        members = _members(value, {"key_statements", "card", "statements"}, "key statements")
        statements = texts_member(members, "statements")
        require(len(statements) <= MAX_KEY_STATEMENTS, "key statements: too many")
        try:
            news = cls(text_member(members, "card").encode("ascii"), tuple(one.encode("ascii") for one in statements))
        except UnicodeEncodeError as error:
            raise MalformedError("key statements: not ASCII") from error
        require(members["key_statements"] == news.version, "key statements: of a version that does not fit them")
        return news


def keys_type(raw: bytes) -> str:
    """The media type of key statements that `KeyNews.dump` wrote."""
    return RESTORE_KEYS_TYPE if RESTORE_KEYS_VERSION.encode() in raw else KEYS_TYPE


@dataclass(frozen=True, slots=True)
class KeyConfirmation:
    """What an agency holds of its partner's keys: the SHA-256 (hex) of the card, the number of the newest signing key
    that it knows, and how many keys it knows as revoked."""

    card_digest: str
    signing_number: int
    revocations: int

    def to_json(self) -> dict[str, object]:
        """As the members of a JSON object."""
        return {
            "card": self.card_digest,
            "signing_number": self.signing_number,
            "revocations": self.revocations,
        }

    @classmethod
    def from_json(cls, value: object) -> KeyConfirmation:
        """What `to_json` wrote."""
        if not isinstance(value, dict) or set(value) != {"card", "signing_number", "revocations"}:
            raise MalformedError("key confirmation: members are not those of the contract")
        members: dict[str, object] = dict(value)
        numbers = int_member(members, "signing_number"), int_member(members, "revocations")
        return cls(text_member(members, "card"), *numbers)


def sign_card(card: IdentityCard, key: SigningKey) -> bytes:
    """The card as its owner hands it out."""
    return dsse.sign(CARD_TYPE, card.dump(), key)


def parse_card(raw: bytes) -> IdentityCard:
    """A card whose signature is by the very keys that it names: whose keys they are is for the fingerprint to say."""
    if len(raw) > MAX_CARD_BYTES:
        raise TooLargeError("identity card: too large")
    envelope = dsse.parse(raw)
    card = _card(canonical.parse_canonical(envelope.unverified_payload, max_bytes=MAX_CARD_BYTES))
    dsse.verify(raw, card.signing, CARD_TYPE)
    return card


def _card(value: object) -> IdentityCard:
    texts = ("identity_card", "agency", "jurisdiction", "name", "url", "log", "witness")
    lists = {"opening", "payload_types", "tls_pins", "tokens"}
    members = _members(
        value, {*texts, *lists, "signing", "signing_number", "test", "created", "number"}, "identity card"
    )
    version, agency, jurisdiction, name, url, log, witness = (text_member(members, n) for n in texts)
    require(version == CARD_VERSION, "identity card: not version 2")
    require(AGENCY.fullmatch(agency) and JURISDICTION.fullmatch(jurisdiction), "identity card: no agency code")
    require(agency[:2] == jurisdiction, "identity card: agency and jurisdiction do not agree")
    require(0 < len(name) <= MAX_TEXT_CHARS, "identity card: name is missing or too long")
    tokens, test = members["tokens"], members["test"]
    if not isinstance(tokens, list) or not isinstance(test, bool):
        raise MalformedError("identity card: tokens or test is ill-typed")
    require(1 <= len(tokens) <= MAX_CARD_TOKEN_KEYS, "identity card: one token key, or two while one is replaced")
    pins = texts_member(members, "tls_pins")
    require(len(pins) <= MAX_CARD_PINS and all(map(TLS_PIN.fullmatch, pins)), "identity card: a TLS pin that is none")
    number, signing_number = int_member(members, "number"), int_member(members, "signing_number")
    require(min(number, signing_number) >= 1, "identity card: numbers begin at 1")
    opening = tuple(SealingKey.parse(text) for text in texts_member(members, "opening"))
    require(1 <= len(opening) <= MAX_CARD_OPENING_KEYS, "identity card: between one and eight decryption keys")
    return IdentityCard(
        agency,
        jurisdiction,
        name,
        url,
        VerifyingKey.from_json(members["signing"]),
        opening,
        tuple(_token_key(one) for one in tokens),
        log,
        witness,
        texts_member(members, "payload_types"),
        test,
        int_member(members, "created"),
        number,
        signing_number,
        pins,
    )


def _token_key(value: object) -> dict[str, str]:
    """A public JWK with the one algorithm that it is used with."""
    if not isinstance(value, dict):
        raise MalformedError("identity card: a token key is not an object")
    # RFC 7638 3.2: the members of a public key that a thumbprint hashes, and none of a private one.
    require(set(value) - {"y"} == {"alg", "crv", "kty", "x"}, "identity card: a token key is not a public key")
    return {name: text_member(value, name) for name in value}


def _page_label(value: object) -> PageLabel:
    members = _members(value, {"number", "digest", "attributes", "groups", "obligations"}, "page label")
    digest, attributes = text_member(members, "digest"), members["attributes"]
    require(HEX_DIGEST.fullmatch(digest), "page label: digest is not 32 bytes in hex")
    if not isinstance(attributes, dict):
        raise MalformedError("page label: attributes is not an object")
    groups = _groups(members["groups"])
    require(FieldGroup.EXISTENCE in groups, "page label: existence is not among the groups")
    return PageLabel(_label_number(members["number"]), digest, attributes, groups, texts_member(members, "obligations"))


def _label_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_LABELS:
        raise MalformedError("a label number is outside 1 to 4,096")
    return value


def _label_view(value: object) -> tuple[int, LabelView]:
    if not isinstance(value, list) or len(value) not in (3, 4):
        raise MalformedError("view: a row is not that of a label")
    named = {"obligations": value[2], "until_seq": value[3] if len(value) == 4 else 0}
    until_seq = int_member(named, "until_seq") if len(value) == 4 else None
    return _label_number(value[0]), LabelView(_groups(value[1]), texts_member(named, "obligations"), until_seq)


def _ascends(numbers: Sequence[int]) -> bool:
    """Whether there is one way to write these: each is above the one before."""
    return all(before < after for before, after in pairwise(numbers))


def _groups(value: object) -> frozenset[FieldGroup]:
    known = {str(group): group for group in ENTRY_GROUPS}
    if not isinstance(value, list) or not all(isinstance(name, str) and name in known for name in value):
        raise MalformedError("groups names an unknown field group")
    require(value == sorted(set(value)), "groups is not sorted")
    return frozenset(known[name] for name in value)


def _members(value: object, names: set[str], what: str) -> dict[str, object]:
    """The object's members, exactly those named."""
    if not isinstance(value, dict) or set(value) != names:
        raise MalformedError(f"{what}: members are not those of the contract")
    return value
