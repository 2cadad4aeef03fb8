"""Pages of NCMEC hash-sharing v2 as a server sends them: entries become drafts, deletions the references they end.

Read as open clients read it (there is no public schema): what a page has besides is passed over and counted. A bad
entry is refused alone, by its number in the page; a page that is none is refused whole.

- An entry's reference is `member/id`: the two together are its key there.
- `md5`, `sha1`, `pdq`, `pdna` (base64 or hex) are carried. An entry with none of them any more is as good as deleted.
- Of a large fingerprint a page has only where it is (`LINKED`); whoever follows the server fetches it.
- A classification A1 … B2 becomes the category `ncmec:A1` … `ncmec:B2`.
- Feedback of other members and vendors' fingerprints are dropped.

A thousand entries of a page are laid out in a few ways, so what stands where is found out once for each **layout**: the
tags of an entry in their order, each with how many children it has, which together are its tree. The columns of a
layout are then read at once. Entries of a layout that says something else, or of which a column does not read well, are
read one by one, which knows every reason; both read alike, and a test holds them together.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from gateway import xml
from gateway.adapters.ncmec import CLASSIFICATIONS, NAMESPACE
from gateway.columns.drafts import DraftBatch
from gateway.errors import MalformedError
from gateway.model import DIGEST_BYTES, AdapterReport, EntryDraft, LabelWords, require

MAX_PAGE_BYTES = 32 << 20  # NCMEC's have a thousand entries, some with much feedback: two megabytes
MAX_PAGE_NODES = 400_000
_PREFIX = f"{{{NAMESPACE}}}"
_CONTAINERS = (_PREFIX + "images", _PREFIX + "videos")
_MEANS = {"image": "image", "video": "video", "deletedImage": "", "deletedVideo": ""}
_KINDS = {_PREFIX + name: kind for name, kind in _MEANS.items()}
# By tag: our name, and how many hex digits a value has.
_DIGESTS = {
    _PREFIX + name: (ours, 2 * (DIGEST_BYTES[ours] or 0))
    for name, ours in (("md5", "md5"), ("sha1", "sha1"), ("pdq", "pdq"), ("pdna", "photodna"))
}
_PHOTODNA_BASE64 = 192  # characters, and none to fill up with
LINKED = {_PREFIX + "tmk-pdqf": "tmk_pdqf"}
_NOTHING = ("", -1)
_CATEGORIES = {code: category for category, code in CLASSIFICATIONS.items()}
_ID_TAG, _MEMBER_TAG, _CODE_TAG = _PREFIX + "id", _PREFIX + "member", _PREFIX + "classification"
_PRINTS_TAG, _FEEDBACK_TAG = _PREFIX + "fingerprints", _PREFIX + "feedback"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_FOLLOWING = re.compile(r"/v2/entries\?[\x21-\x7e]{1,4000}")  # appended to the base URL as it is
_HREF = re.compile(r"/v2/[A-Za-z0-9_./~%?&=-]{1,1000}")  # as well
_ID = re.compile(r"[\x21-\x7e]{1,200}")  # with the member shorter than any text may be
_IDS = re.compile(r"(?:[\x21-\x7e]{1,200}\n)+")
_MEMBER = re.compile(r"[1-9][0-9]{0,19}")


class Link(NamedTuple):
    """Where a large fingerprint of an entry is, as the server names it: after its base URL."""

    algorithm: str
    href: str


@dataclass(frozen=True, slots=True)
class SourcePage:
    """What one page says.

    Args:
        drafts: entries to hold.
        linked: entries to hold that have a large fingerprint as well, with where it is.
        ended: references of those that ended.
        following: where the next page is, "" after the last.
    """

    drafts: DraftBatch
    linked: Sequence[tuple[EntryDraft, Link]]
    ended: Sequence[str]
    following: str


def parse_page(raw: bytes, report: AdapterReport) -> SourcePage:
    """The page that these bytes are; the report counts what was refused and dropped.

    Raises:
        MalformedError, TooLargeError: it is none.
    """
    root = xml.parse(raw, max_bytes=MAX_PAGE_BYTES, max_nodes=MAX_PAGE_NODES)
    if root.tag != _PREFIX + "queryResult":
        raise MalformedError("the answer is no query result")
    containers = [container for container in root if container.tag in _CONTAINERS]
    read = _Read(report.format)
    if not all(_read_container(container, read) for container in containers) or read.repeats:
        # Entries in each other, or one that stands there twice, of which the last word counts: in their order.
        read = _Read(report.format)
        _read_singly(enumerate(_entries(containers), 1), read)
    read.report_to(report)
    return SourcePage(read.batch(), read.linked, list(read.ended), _following(root))


def _entries(containers: Sequence[xml.Element]) -> Iterator[xml.Element]:
    for container in containers:
        yield from container


class _Read:
    """What was read of a page so far. `count`: its entries."""

    def __init__(self, form: str) -> None:
        self.count = 0
        self.report = AdapterReport(form)
        self.batches: list[DraftBatch] = []
        self.drafts: dict[str, EntryDraft] = {}
        self.links: dict[str, Link] = {}
        self.ended: dict[str, None] = {}
        self._seen: set[str] = set()
        self._met = 0

    @property
    def repeats(self) -> bool:
        """Whether two entries have one reference."""
        return len(self._seen) < self._met

    def meet(self, references: Sequence[str]) -> None:
        """Note whom entries were of."""
        self._seen.update(references)
        self._met += len(references)

    @property
    def linked(self) -> list[tuple[EntryDraft, Link]]:
        """Entries with a large fingerprint."""
        return [(self.drafts[reference], link) for reference, link in self.links.items()]

    def batch(self) -> DraftBatch:
        """The other entries."""
        plain = [draft for reference, draft in self.drafts.items() if reference not in self.links]
        return DraftBatch.joined([*self.batches, *([DraftBatch.of(plain)] if plain or not self.batches else [])])

    def report_to(self, report: AdapterReport) -> None:
        """Count it all."""
        for name, count in self.report.dropped_fields.items():
            report.drop(name, count)
        for row in sorted(self.report.refused_rows, key=lambda row: row.line):
            report.refuse(row.line, row.field, row.reason)
        report.read += self.count
        report.accepted = report.read - report.refused


# Layout by layout


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where in entries that are laid out alike things stand: how far behind the entry itself; 0 for not at all."""

    kind: str
    member: int
    id: int
    code: int = 0
    digests: tuple[tuple[int, str, int], ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(slots=True)
class _Node:
    """An element of a layout: where it stands, its tag, its children."""

    at: int
    tag: str
    children: list[_Node] = field(default_factory=list)


def _read_container(container: xml.Element, read: _Read) -> bool:
    """Read the entries of a container; False where it cannot be told where each begins."""
    elements = list(container.iter())
    tags = tuple([element.tag for element in elements])
    counts = tuple(map(len, elements))
    begins = [at for at, tag in enumerate(tags) if tag in _KINDS]
    if len(begins) != len(container) or begins[:1] not in ([], [1]):
        return False
    alike: dict[tuple[tuple[object, ...], tuple[int, ...]], list[int]] = {}
    for begin, end in pairwise([*begins, len(tags)]):
        alike.setdefault((tags[begin:end], counts[begin:end]), []).append(begin)
    singly = []
    for (names, children), members in alike.items():
        entry = _tree(list(map(str, names)), children)
        if entry is None:
            return False
        layout = _layout(entry)
        if layout is None or not _read_columns(layout, elements, members, read):
            singly += members
    if singly:
        numbers = {begin: number for number, begin in enumerate(begins, read.count + 1)}
        _read_singly(((numbers[begin], elements[begin]) for begin in sorted(singly)), read, counted=False)
    read.count += len(begins)
    return True


def _tree(tags: Sequence[str], counts: Sequence[int]) -> _Node | None:
    """The tree of elements in the order of a document, each with so many children; None where they are no tree."""
    root = _Node(0, tags[0])
    open_nodes = [root]
    for at in range(1, len(tags)):
        while open_nodes and len(open_nodes[-1].children) == counts[open_nodes[-1].at]:
            open_nodes.pop()
        if not open_nodes:
            return None
        node = _Node(at, tags[at])
        open_nodes[-1].children.append(node)
        open_nodes.append(node)
    return root if sum(counts) == len(counts) - 1 else None


def _layout(entry: _Node) -> _Layout | None:
    """How such entries are read; None for one by one."""
    parts = {child.tag: child for child in entry.children}
    leaves = [parts.get(tag) for tag in (_MEMBER_TAG, _ID_TAG)]
    if len(parts) < len(entry.children) or not all(leaves):
        return None
    member, identifier = (leaf.at if leaf is not None else 0 for leaf in leaves)
    kind, prints = _KINDS[entry.tag], parts.get(_PRINTS_TAG)
    if not kind:
        return _Layout(kind, member, identifier)
    found = [] if prints is None else prints.children
    digests = tuple((one.at, *_DIGESTS[one.tag]) for one in found if one.tag in _DIGESTS)
    once = len({one.tag for one in found}) == len(found)
    if not digests or not once or any(one.tag in LINKED for one in found):
        return None
    feedback, code = parts.get(_FEEDBACK_TAG), parts.get(_CODE_TAG)
    dropped = [_local(one.tag) for one in found if one.tag not in _DIGESTS]
    dropped += ["feedback"] if feedback is not None and feedback.children else []
    return _Layout(kind, member, identifier, 0 if code is None else code.at, digests, tuple(dropped))


def _read_columns(layout: _Layout, elements: Sequence[xml.Element], begins: Sequence[int], read: _Read) -> bool:
    """Read entries of one layout at once; False, and nothing is read, where one of them is not as it should be."""
    members = [elements[begin + layout.member].get("id", "") for begin in begins]
    ids = [elements[begin + layout.id].text or "" for begin in begins]
    lines = "\n".join([*ids, ""])
    if not all(map(_MEMBER.fullmatch, set(members))) or not _IDS.fullmatch(lines) or lines.count("\n") > len(ids):
        return False
    references = [f"{member}/{text}" for member, text in zip(members, ids, strict=True)]
    if layout.kind:
        columns: dict[str, bytes | list[str]] = {}
        for at, name, digits in layout.digests:
            raw = _column([elements[begin + at].text or "" for begin in begins], digits, name)
            if raw is None:
                return False
            columns[name] = raw
        columns |= {"source_ref": references, "media_type": [layout.kind] * len(begins)}
        numbers: dict[str, int] = {}
        codes = [elements[begin + layout.code].text or "" if layout.code else "" for begin in begins]
        stated = [numbers.setdefault(_CATEGORIES.get(code, ""), len(numbers)) for code in codes]
        words = [LabelWords(category=category) for category in numbers]
        read.batches.append(DraftBatch.alike(len(begins), columns, words, stated))
        for name in layout.dropped:
            read.report.drop(name, len(begins))
    else:
        read.ended.update(dict.fromkeys(references))
    read.meet(references)
    return True


def _column(texts: Sequence[str], digits: int, name: str) -> bytes | None:
    """The octets of a digest of many entries, one after the other; None where not all are written plainly."""
    lengths = set(map(len, texts))
    try:
        if lengths == {digits}:
            return binascii.unhexlify("".join(texts))
        if name == "photodna" and lengths == {_PHOTODNA_BASE64}:
            return base64.b64decode("".join(texts), validate=True)
    except (ValueError, binascii.Error):
        return None
    return None


# One by one


def _read_singly(entries: Iterator[tuple[int, xml.Element]], read: _Read, *, counted: bool = True) -> None:
    """Read entries as they stand, each with its number in the page."""
    for number, element in entries:
        read.count += counted
        try:
            reference, draft, link = _entry(element, read.report)
        except MalformedError as error:
            read.report.refuse(number, _local(element.tag), error.message)
            continue
        read.meet([reference])
        # Each entry stands in a window once; where it does not, the last word counts.
        read.links.pop(reference, None)
        if draft is not None:
            read.ended.pop(reference, None)
            read.drafts[reference] = draft
        else:
            read.drafts.pop(reference, None)
            read.ended[reference] = None
        if link is not None:
            read.links[reference] = link


def _entry(element: xml.Element, report: AdapterReport) -> tuple[str, EntryDraft | None, Link | None]:
    """(reference, draft, where a large fingerprint is); no draft for an entry that ended."""
    kind = _KINDS.get(str(element.tag))
    if kind is None:
        raise MalformedError("neither an entry nor a deletion")
    parts = {child.tag: child for child in element}
    member, text = parts.get(_MEMBER_TAG), _text(parts.get(_ID_TAG))
    number = member.get("id", "") if member is not None else ""
    if not (_MEMBER.fullmatch(number) and _ID.fullmatch(text)):
        raise MalformedError("without member or id")
    reference = f"{number}/{text}"
    prints = parts.get(_PRINTS_TAG)
    digests, link = ({}, None) if not kind or prints is None else _digests(prints, report)
    if not digests and link is None:
        return reference, None, None
    feedback, code = parts.get(_FEEDBACK_TAG), parts.get(_CODE_TAG)
    if feedback is not None and len(feedback):
        report.drop("feedback")
    category = "" if code is None else _CATEGORIES.get(code.text or "", "")
    return reference, EntryDraft(digests, reference, kind, category), link


def _digests(prints: xml.Element, report: AdapterReport) -> tuple[dict[str, bytes], Link | None]:
    found: dict[str, bytes] = {}
    link: Link | None = None
    for one in prints:
        tag = str(one.tag)
        href = one.get("href", "") if tag in LINKED else ""
        if _HREF.fullmatch(href) and "/../" not in href:
            link = Link(LINKED[tag], href)
            continue
        name, digits = _DIGESTS.get(tag, _NOTHING)
        text = (one.text or "").strip()
        try:
            if len(text) == digits:
                raw = bytes.fromhex(text)
            else:
                raw = base64.b64decode(text, validate=True) if name == "photodna" else b""
        except (ValueError, binascii.Error):
            raw = b""
        if 2 * len(raw) == digits:  # hex digits may have spaces between them, which count for nothing
            found[name] = raw
        else:
            report.drop(_local(one.tag))
    return found, link


def _following(root: xml.Element) -> str:
    text = _text(root.find(f"{_PREFIX}paging/{_PREFIX}next"))
    require(not text or _FOLLOWING.fullmatch(text), "the next page is not one of the same list")
    return text


def _text(element: xml.Element | None) -> str:
    return "" if element is None else (element.text or "").strip()


def _local(tag: object) -> str:
    """A tag's name; of another namespace's, which may be anything, only that it is one."""
    name = str(tag).removeprefix(_PREFIX)
    return name if _NAME.fullmatch(name) else "another"
