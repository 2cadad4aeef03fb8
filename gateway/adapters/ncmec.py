"""NCMEC hash-sharing v2: the XML that stock clients read, and the feedback that they send.

There is no public schema. What is written here breaks no stock client: their rules stand beside the lines that keep
them, and `contracts/hashsharing-1.md` maps every field, and names what is not carried. Times are Unix seconds here,
`2026-11-28T10:00:00Z` there: with milliseconds in them a client raises.

    <images count="1" maxTimestamp="2026-11-28T10:00:00Z">
        <image><member id="7">XA-NCVI</member><timestamp>…</timestamp><id>1-0001000000000001</id>…</image>
    </images>
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from xml.sax.saxutils import escape, quoteattr

from gateway import xml
from gateway.errors import MalformedError

NAMESPACE = "https://hashsharing.ncmec.org/hashsharing/v2"
MAX_FEEDBACK_BYTES = 16 << 10  # a word and a few GUIDs
MAX_REASONS = 16
CLASSIFICATIONS = {f"ncmec:{code}": code for code in ("A1", "A2", "B1", "B2")}  # no other scheme says the same
# Every type that a client may ask about; None where our entries have nothing of that kind to give.
TYPES: Mapping[str, str | None] = {
    "MD5": "md5",
    "SHA1": "sha1",
    "PDQ": "pdq",
    "PDNA": "photodna",
    "NETCLEAN": None,
    "VIDENTIFIER": None,
    "TMK_PDQF": "tmk_pdqf",
    "SSVH_PDNA": None,
    "SSVH_SAFER_HASH": None,
}
LARGE: Mapping[str, str] = {"tmk_pdqf": "TMK_PDQF"}  # what an entry refers to, by our name
_KINDS = {name: kind for kind, name in TYPES.items() if name}  # the type of a fingerprint, by our name
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_STAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{3})?Z", re.ASCII)
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Verdict(StrEnum):
    """What a partner says of a fingerprint."""

    AFFIRMATIVE = "affirmative"
    NEGATIVE = "negative"


# Why somebody disagrees. The GUIDs are ours, and never change.
REASONS = {
    "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0001": "Not illegal where we are",
    "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0002": "Does not show a child",
    "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0003": "Wrong category",
    "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0004": "The fingerprint is of a harmless or common file",
    "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0005": "The fingerprint does not belong to the file",
}

UNTOLD, UNTOLD_NAME = "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0000", "Not told"  # of whoever is not named; none may give it
# What agencies call them between gateways (contracts/opinions-1.md); whatever is not here is not told.
REASON_OF = {
    "lawful": "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0001",
    "no_child": "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0002",
    "wrong_category": "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0003",
    "known_good": "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0004",
    "wrong_digest": "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0005",
}
# A member whose name is not told; no agency has this number.
ANOTHER = f'<member id="{0x7FFF_FFFF}">another agency</member>'


@dataclass(frozen=True, slots=True)
class Member:
    """An agency as clients see one."""

    agency: str

    @property
    def number(self) -> int:
        """Its number: of its code alone, so that it is the same at every gateway, for ever."""
        digest = hashlib.sha256(b"hash-sharing member 1\n" + self.agency.encode()).digest()
        return 1 + int.from_bytes(digest[:4], "big") % 0x7FFF_FFFE  # clients may hold it in 31 bits

    def xml(self) -> str:
        """As an element."""
        return f'<member id="{self.number}">{escape(self.agency)}</member>'


@dataclass(frozen=True, slots=True)
class Opinion:
    """What an agency thinks of an entry, as clients hear it.

    Args:
        member: whose, None for another that is not named.
        reasons: of a negative one, GUIDs of `REASONS` or `UNTOLD`.
        algorithm: our name of the algorithm of the digest that it is about, "" for the entry as a whole.
        at: Unix seconds, 0 where that is not told.
    """

    verdict: Verdict
    member: Member | None = None
    reasons: tuple[str, ...] = ()
    algorithm: str = ""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry, or that it was deleted. `at`: Unix seconds; `digests`: by our name of the algorithm."""

    id: str
    at: int
    is_video: bool
    is_deleted: bool
    category: str = ""
    digests: Mapping[str, bytes] = field(default_factory=dict)
    opinions: Sequence[Opinion] = ()


@dataclass(frozen=True, slots=True)
class Feedback:
    """A client's word on one fingerprint."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()


def is_video(media_type: str) -> bool:
    """Whether an entry is a video to clients; what says nothing of itself is an image."""
    return media_type.lower().startswith("video")


def parse_stamp(text: str) -> int:
    """Unix seconds of `2026-11-28T10:00:00Z`; thousandths are passed over, since nothing is published within a second.

    Raises:
        MalformedError: not in this form, or no time.
    """
    match = _STAMP.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        year, month, day, hour, minute, second = map(int, match.groups())
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise MalformedError("not a time as 2026-11-28T10:00:00Z") from error
    return int((moment - _EPOCH).total_seconds())


def stamp(at: int) -> str:
    """Unix seconds as clients read them."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status(address: str, user: str, member: Member) -> bytes:
    """Who the caller is."""
    inside = f"<ipAddress>{escape(address)}</ipAddress><username>{escape(user)}</username>{member.xml()}"
    return _document("status", inside)


def members(found: Iterable[Member]) -> bytes:
    """The agencies that entries may be of."""
    return _document("members", "".join(member.xml() for member in found))


def query_result(member: Member, entries: Iterable[Entry], following: str = "") -> bytes:
    """A page of entries of one member.

    Args:
        following: the path and query of the next page after the base URL; "" for the last page.
    """
    images: list[Entry] = []
    videos: list[Entry] = []
    for entry in entries:
        (videos if entry.is_video else images).append(entry)
    inside = _container("images", "image", member, images) + _container("videos", "video", member, videos)
    if following:  # a client stops at the first page without it
        inside += f"<paging><next>{escape(following)}</next></paging>"
    return _document("queryResult", inside)


def reasons(kind: str) -> bytes:
    """Why a client may disagree with a fingerprint of one of `TYPES`; none where we have no such fingerprint."""
    rows = "".join(
        f"<reason guid={quoteattr(guid)} name={quoteattr(name)} type={quoteattr(kind.capitalize())}/>"
        for guid, name in (REASONS if TYPES[kind] else {}).items()
    )
    return _document("availableFeedbackReasons", rows)


def categorizations(categories: Sequence[str]) -> bytes:
    """Our categories (scheme:code), each scheme a group. The GUID of one is made of its name, so it never changes."""
    groups: dict[str, str] = {}
    for category in categories:
        scheme, _, code = category.partition(":")
        raw = hashlib.sha256(b"hash-sharing categorization 1\n" + category.encode()).hexdigest()
        guid = "-".join((raw[:8], raw[8:12], f"8{raw[12:15]}", f"8{raw[15:18]}", raw[18:30]))  # RFC 9562, version 8
        groups[scheme] = groups.get(scheme, "") + f'<categorization guid="{guid}" name={quoteattr(code)}/>'
    rows = (
        f'<group name={quoteattr(scheme)} allowMultiple="false">{inside}</group>' for scheme, inside in groups.items()
    )
    return _document("availableCategorizations", "".join(rows))


def submission_result() -> bytes:
    """What a client that gave feedback gets: nothing that any of them reads."""
    return _document("submissionResult", "")


def parse_feedback(raw: bytes) -> Feedback:
    """What a client's feedback says.

    Raises:
        MalformedError, TooLargeError: not a feedback submission, or a reason that is none of ours.
    """
    root = xml.parse(raw, max_bytes=MAX_FEEDBACK_BYTES)
    if root.tag != _name("feedbackSubmission") or len(root) != 1 or root.attrib:
        raise MalformedError("not a feedback submission")
    word = root[0]
    if word.tag == _name(Verdict.AFFIRMATIVE) and not len(word):
        return Feedback(Verdict.AFFIRMATIVE)
    if word.tag != _name(Verdict.NEGATIVE) or len(word) != 1 or word[0].tag != _name("reasonIds"):
        raise MalformedError("feedback is affirmative, or negative with reasonIds")
    given = tuple(_guid(one) for one in word[0])
    if not 0 < len(given) <= MAX_REASONS:
        raise MalformedError("negative feedback names a reason, and not very many")
    return Feedback(Verdict.NEGATIVE, tuple(dict.fromkeys(given)))


def _guid(element: xml.Element) -> str:
    text = (element.text or "").strip().lower()
    if element.tag != _name("guid") or len(element) or _GUID.fullmatch(text) is None or text not in REASONS:
        raise MalformedError("a reason is not one that feedback/…/reasons names")
    return text


def _name(tag: str) -> str:
    return f"{{{NAMESPACE}}}{tag}"


def _document(root: str, inside: str) -> bytes:
    return f'{_HEAD}<{root} xmlns="{NAMESPACE}">{inside}</{root}>'.encode()


def _container(name: str, one: str, member: Member, entries: Sequence[Entry]) -> str:
    if not entries:
        return f'<{name} count="0"/>'  # with a maxTimestamp a client would take this for a container with entries
    newest = stamp(max(entry.at for entry in entries))
    head, owner = f'<{name} count="{len(entries)}" maxTimestamp="{newest}">', member.xml()
    return head + "".join(_entry(one, owner, entry) for entry in entries) + f"</{name}>"


def _entry(one: str, owner: str, entry: Entry) -> str:
    if entry.is_deleted:
        tag = f"deleted{one.capitalize()}"
        return f"<{tag}>{owner}<id>{entry.id}</id><timestamp>{stamp(entry.at)}</timestamp></{tag}>"
    code = CLASSIFICATIONS.get(entry.category)
    classification = f"<classification>{code}</classification>" if code else ""
    prints = "".join(_fingerprint(name, entry.digests[name]) for name in _ELEMENTS if name in entry.digests)
    prints += "".join(_reference(entry.id, name) for name in LARGE if name in entry.digests)
    told = f"<timestamp>{stamp(entry.at)}</timestamp><id>{entry.id}</id>{classification}"
    return f"<{one}>{owner}{told}<fingerprints>{prints}</fingerprints>{_feedback(entry)}</{one}>"


def _feedback(entry: Entry) -> str:
    """What is thought of an entry; what is about the whole of it stands with its first fingerprint."""
    shown = [name for name in (*_ELEMENTS, *LARGE) if name in entry.digests]
    by_kind: dict[tuple[str, Verdict], list[Opinion]] = {}
    for one in entry.opinions:
        if shown and (one.algorithm or shown[0]) in shown:
            by_kind.setdefault((one.algorithm or shown[0], one.verdict), []).append(one)
    rows = ""
    for (name, verdict), some in by_kind.items():
        kind = _KINDS[name].capitalize()
        if verdict is Verdict.AFFIRMATIVE:
            rows += f'<affirmativeFeedback type="{kind}">{_givers(some)}</affirmativeFeedback>'
            continue
        # A reason, then who gave it, and so on by turns.
        reasons = ""
        for guid in dict.fromkeys(guid for one in some for guid in one.reasons or (UNTOLD,)):
            word = quoteattr(REASONS.get(guid, UNTOLD_NAME))
            reasons += f'<reason guid="{guid}" name={word} type="{kind}"/>'
            reasons += _givers([one for one in some if guid in (one.reasons or (UNTOLD,))])
        rows += f'<negativeFeedback type="{kind}"><reasons>{reasons}</reasons></negativeFeedback>'
    return f"<feedback>{rows}</feedback>" if rows else ""


def _givers(some: Sequence[Opinion]) -> str:
    """Who thinks so, and when the last of them said it."""
    at = max(one.at for one in some)
    stamped = f' timestamp="{stamp(at)}"' if at else ""
    return f"<members{stamped}>{''.join(ANOTHER if one.member is None else one.member.xml() for one in some)}</members>"


# By our name, in the order of their schema.
_LARGE_ELEMENTS = {"tmk_pdqf": "tmk-pdqf"}
_ELEMENTS = {"md5": "md5", "sha1": "sha1", "photodna": "pdna", "pdq": "pdq"}


def _reference(identifier: str, name: str) -> str:
    """An empty element that says where a large fingerprint is: clients append it to their base URL."""
    href = f"/v2/entries/{identifier}/fingerprints/{LARGE[name]}"
    return f'<{_LARGE_ELEMENTS[name]} rel="self" href="{href}"/>'


def _fingerprint(name: str, value: bytes) -> str:
    # Lower-case hex, or a client passes a PDQ over; PhotoDNA as everywhere else in base64.
    text = base64.b64encode(value).decode() if name == "photodna" else value.hex()
    return f"<{_ELEMENTS[name]}>{text}</{_ELEMENTS[name]}>"
