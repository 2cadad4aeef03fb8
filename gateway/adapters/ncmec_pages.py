"""Pages of NCMEC hash-sharing v2 as a server sends them: entries become drafts, deletions the references they end.

Read as open clients read it (there is no public schema): what a page has besides is passed over and counted. A bad
entry is refused alone, by its number in the page; a page that is none is refused whole.

- An entry's reference is `member/id`: the two together are its key there.
- `md5`, `sha1`, `pdq`, `pdna` (base64 or hex) are carried. An entry with none of them any more is as good as deleted.
- A classification A1 … B2 becomes the category `ncmec:A1` … `ncmec:B2`.
- Feedback of other members, large fingerprints and vendors' ones are dropped.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway import xml
from gateway.adapters.ncmec import CLASSIFICATIONS, NAMESPACE
from gateway.errors import MalformedError
from gateway.model import DIGEST_BYTES, AdapterReport, EntryDraft, require

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
_NOTHING = ("", -1)
_CATEGORIES = {code: category for category, code in CLASSIFICATIONS.items()}
_ID_TAG, _MEMBER_TAG, _CODE_TAG = _PREFIX + "id", _PREFIX + "member", _PREFIX + "classification"
_PRINTS_TAG, _FEEDBACK_TAG = _PREFIX + "fingerprints", _PREFIX + "feedback"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_FOLLOWING = re.compile(r"/v2/entries\?[\x21-\x7e]{1,4000}")  # appended to the base URL as it is
_ID = re.compile(r"[\x21-\x7e]{1,200}")  # with the member shorter than any text may be
_MEMBER = re.compile(r"[1-9][0-9]{0,19}")


@dataclass(frozen=True, slots=True)
class SourcePage:
    """What one page says: entries to hold, references of those that ended, and where the next page is ("" after the
    last)."""

    drafts: Sequence[EntryDraft]
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
    drafts: dict[str, EntryDraft] = {}
    ended: dict[str, None] = {}
    number = 0
    for number, element in enumerate(_entries(root), 1):
        try:
            reference, draft = _entry(element, report)
        except MalformedError as error:
            report.refuse(number, _local(element), error.message)
            continue
        # Each entry stands in a window once; where it does not, the last word counts.
        if draft is not None:
            ended.pop(reference, None)
            drafts[reference] = draft
        else:
            drafts.pop(reference, None)
            ended[reference] = None
    report.read += number
    report.accepted = report.read - report.refused
    return SourcePage(list(drafts.values()), list(ended), _following(root))


def _entries(root: xml.Element) -> Iterator[xml.Element]:
    for container in root:
        if container.tag in _CONTAINERS:
            yield from container


def _entry(element: xml.Element, report: AdapterReport) -> tuple[str, EntryDraft | None]:
    """(reference, draft), None for an entry that ended."""
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
    digests = {} if not kind or prints is None else _digests(prints, report)
    if not digests:
        return reference, None
    feedback, code = parts.get(_FEEDBACK_TAG), parts.get(_CODE_TAG)
    if feedback is not None and len(feedback):
        report.drop("feedback")
    category = "" if code is None else _CATEGORIES.get(code.text or "", "")
    return reference, EntryDraft(digests, reference, kind, category)


def _digests(prints: xml.Element, report: AdapterReport) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for one in prints:
        name, digits = _DIGESTS.get(str(one.tag), _NOTHING)
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
            report.drop(_local(one))
    return found


def _following(root: xml.Element) -> str:
    text = _text(root.find(f"{_PREFIX}paging/{_PREFIX}next"))
    require(not text or _FOLLOWING.fullmatch(text), "the next page is not one of the same list")
    return text


def _text(element: xml.Element | None) -> str:
    return "" if element is None else (element.text or "").strip()


def _local(element: xml.Element) -> str:
    """A tag's name; of another namespace's, which may be anything, only that it is one."""
    name = str(element.tag).removeprefix(_PREFIX)
    return name if _NAME.fullmatch(name) else "another"
