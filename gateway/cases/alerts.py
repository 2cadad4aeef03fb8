"""A person of interest, shown to the public: what its originator lets out, once two people have seen exactly that.

An alert holds marks, description, apparent age and sex, and whom to call: never a digest, a victim, a series, a role or
a reference. Texts are written by people, so each is searched for such words, and refused with them.

    propose   the bytes are made and kept, sealed, under their SHA-256, which administrators sign (act `case_alert`)
    release   exactly those bytes, when the log says that they were approved and the case still says the same

Contract: contracts/alert-1.md.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from html import escape

from gateway.approvals import Arguments
from gateway.audit import EventKind
from gateway.caserecord import CaseRecord, Contact, Person
from gateway.cases.keeping import Casebook, CaseState, HeldCase
from gateway.cases.proving import own_event, own_head
from gateway.crypto import canonical
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError
from gateway.model import Restriction, text_member
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import CaseDraft

ACT = "case_alert"
VERSION = "alert 1"
_HEX = re.compile(r"[0-9a-f]{24,}")  # an MD5 is 32; a part of one names an entry as well
_BASE64 = re.compile(r"(?=[A-Za-z0-9+/_-]*[0-9+/_])[A-Za-z0-9+/_-]{22,}={0,2}")  # 16 octets and more
_SEPARATORS = re.compile(r"[\s:.,;_\-–—/\\|]+")
_UNSEEN = {"Cf", "Mn", "Me"}  # what nobody sees, or what sits on another character


class AlertForm(StrEnum):
    """How an alert is written."""

    JSON = "json"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Alert:
    """What the public is shown of one person."""

    agency: str
    issued: date
    person: Person
    contact: Contact

    def dump(self, form: AlertForm) -> bytes:
        """The bytes that are released."""
        return self._html().encode() if form is AlertForm.HTML else canonical.encode(self._value()) + b"\n"

    def _value(self) -> dict[str, object]:
        age = self.person.age
        return {
            "alert": VERSION,
            "agency": self.agency,
            "issued": self.issued.isoformat(),
            "person": {
                "sex": str(self.person.sex),
                "age": None if age is None else {"low": age.low, "high": age.high},
                "description": self.person.description,
                "marks": [
                    {"kind": str(one.kind), "where": one.body_part, "text": one.text} for one in self.person.marks
                ],
            },
            "contact": {
                "unit": self.contact.unit,
                "telephone": self.contact.telephone,
                "email": self.contact.email,
            },
        }

    def _html(self) -> str:
        person, age = self.person, self.person.age
        years = "" if age is None else f"{age.low} to {age.high} years"
        facts = [("Sex", str(person.sex)), ("Apparent age", years), ("Description", person.description)]
        rows = "".join(f"<tr><th>{name}</th><td>{_text(value)}</td></tr>\n" for name, value in facts if value)
        marks = "".join(
            f"<li><b>{_text(', '.join(filter(None, (one.kind, one.body_part))))}</b>: {_text(one.text)}</li>\n"
            for one in person.marks
        )
        call = [self.contact.unit, self.contact.telephone, self.contact.email]
        return _PAGE.format(
            agency=escape(self.agency),
            issued=self.issued.isoformat(),
            facts=rows,
            marks=f"<h2>Marks</h2>\n<ul>\n{marks}</ul>\n" if marks else "",
            contact="<br>\n".join(_text(one) for one in call if one),
        )


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Who knows this person? {agency}, {issued}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem; color: #111; }}
h1 {{ font-size: 1.8rem; }} h2 {{ font-size: 1.2rem; }}
table {{ border-collapse: collapse; }} th, td {{ text-align: left; vertical-align: top; padding: .3rem 1rem .3rem 0; }}
.call {{ border: 2px solid #111; padding: 1rem; font-size: 1.2rem; }}
@media print {{ @page {{ margin: 2cm; }} body {{ margin: 0; max-width: none; }} .call {{ break-inside: avoid; }} }}
</style>
</head>
<body>
<h1>Who knows this person?</h1>
<table>
{facts}</table>
{marks}<h2>Please call</h2>
<p class="call">{contact}</p>
<p>Issued by {agency} on {issued}.</p>
</body>
</html>
"""


def _text(text: str) -> str:
    return escape(text).replace("\n", "<br>\n")


def alert_of(held: HeldCase, person: str, issued: date) -> Alert:
    """The alert of a person of interest.

    Raises:
        NotFoundError: there is no such person in the case.
        DeniedError: the originator does not release it, or a text names what must not be named.
        ConflictError: the case is not open.
        MalformedError: there is nobody to call, or nothing to show.
    """
    if held.row.source:
        raise DeniedError("only its originator releases something of a case", remedy="ask it: `gateway case ask`")
    if held.row.state != CaseState.OPEN:
        raise ConflictError(f"the case is {held.row.state}")
    found = [one for one in held.record.persons if one.ref == person]
    if not found:
        raise NotFoundError("no such person in this case", remedy="`gateway case show --descriptions` names them")
    [one] = found
    if not one.releasable:
        raise DeniedError(
            "this person is not marked as releasable", remedy="the case system says so, in a newer version"
        )
    if {Restriction.EMBARGO, Restriction.COURT_ORDER} & set(held.record.restrictions):
        raise DeniedError("the case is under an embargo, or sealed by a court")
    if not one.marks and not one.description:
        raise MalformedError("there is nothing to show of this person: neither marks nor a description")
    if held.record.contact is None:
        raise MalformedError("there is nobody to call", remedy="state the unit: `gateway case complete --contact`")
    for name, text in _texts(one, held.record.contact):
        _check_names_nothing(name, text, held.record)
    return Alert(held.record.originator, issued, one, held.record.contact)


def _texts(person: Person, contact: Contact) -> Iterator[tuple[str, str]]:
    yield "description", person.description
    for number, mark in enumerate(person.marks, 1):
        yield f"mark {number}", f"{mark.body_part}\n{mark.text}"
    yield "contact", f"{contact.unit}\n{contact.telephone}\n{contact.email}"


def _check_names_nothing(place: str, text: str, record: CaseRecord) -> None:
    """DeniedError where a text holds a digest, a reference, a victim, a series or another person's name."""
    seen = _as_read(text)
    if _HEX.search(_SEPARATORS.sub("", seen)) or _BASE64.search(unicodedata.normalize("NFKC", text)):
        raise DeniedError("the text holds what looks like a digest", place=place, remedy="change it in the case system")
    names = [record.reference, *(one.ref for one in record.victims), *(one.ref for one in record.persons)]
    names += [name for series in record.series for name in (series.name, *series.aliases)]
    packed = _SEPARATORS.sub(" ", f" {seen} ")
    for name in names:
        if re.search(rf"(?<!\w){re.escape(_SEPARATORS.sub(' ', _as_read(name)).strip())}(?!\w)", packed):
            raise DeniedError(
                "the text names the case, a victim, a series or a person", place=place, remedy="change it there"
            )


def _as_read(text: str) -> str:
    """A text as people read it: without what nobody sees, without differences of form, size and accents."""
    flat = unicodedata.normalize("NFKD", text)
    return "".join(one for one in flat if unicodedata.category(one) not in _UNSEEN).casefold()


class Alerts:
    """Alerts of one gateway's own cases."""

    def __init__(self, node: Node, book: Casebook) -> None:
        self._node = node
        self._book = book

    def propose(self, case: str, person: str, form: AlertForm) -> tuple[str, Arguments]:
        """The act that releases an alert, for two administrators to sign: exactly these bytes. Raises as `alert_of`."""
        with self._node.store.transaction() as tx:
            held = self._book.open(tx.cases.beginning(case))
            raw = alert_of(held, person, self._node.today).dump(form)
            digest = hashlib.sha256(raw).hexdigest()
            draft = CaseDraft(
                digest=digest,
                case_id=held.row.id,
                what="alert",
                to=str(form),
                created=self._node.clock(),
                sealed=self._node.keystore.master_key.seal(_packed(person, raw), _context(digest), self._node.random),
            )
            tx.cases.put_draft(draft)
            return ACT, {"case": held.row.id, "form": str(form), "digest": digest}

    def approve(self, tx: Transaction, arguments: Arguments, proposal: str) -> None:
        """Two administrators have signed these bytes: they may be released, on record. Raises as `proposed`."""
        case, form, digest = arguments_of(arguments)
        self.proposed(tx, arguments)
        details: dict[str, object] = {"case": case, "form": str(form), "digest": digest, "proposal": proposal}
        event = self._node.event(EventKind.CASE_RELEASED, actor=self._node.agency, subject=case, details=details)
        tx.log.append([event])

    def proposed(self, tx: Transaction, arguments: Arguments) -> bytes:
        """The bytes that were proposed.

        Raises:
            ConflictError: the case does not say the same any more.
        """
        case, form, digest = arguments_of(arguments)
        draft = tx.cases.draft(digest)
        if draft is None or (draft.case_id, draft.to) != (case, form):
            raise ConflictError("what was proposed is not here any more", remedy="propose the alert again")
        person, raw = self._opened(draft)
        issued = datetime.fromtimestamp(draft.created, UTC).date()
        held = self._book.open(tx.cases.beginning(case))
        if alert_of(held, person, issued).dump(form) != raw:
            raise ConflictError("the case has changed since the alert was proposed", remedy="propose it again")
        return raw

    def release(self, case: str, person: str, form: AlertForm) -> bytes:
        """The bytes of an alert that two administrators have approved, as they are kept.

        Raises:
            DeniedError: nobody has approved an alert of this person in this form, as the case is now.
        """
        with self._node.store.reading() as tx:
            held = self._book.open(tx.cases.beginning(case))
            alert_of(held, person, self._node.today)  # whatever was approved, what may not go now does not go
            head = own_head(self._node, tx)
            for row in reversed(tx.log.of_kinds([EventKind.CASE_RELEASED])):
                event = own_event(tx, head, row)
                if (event.kind, event.details.get("case"), event.details.get("form")) != (
                    EventKind.CASE_RELEASED,
                    held.row.id,
                    str(form),
                ):
                    continue
                raw = self._approved(tx, held, person, form, str(event.details.get("digest")))
                if raw is not None:
                    return raw
        raise DeniedError(
            "two administrators have to approve exactly this alert", remedy="propose it: add --admin NAME"
        )

    def _approved(self, tx: Transaction, held: HeldCase, person: str, form: AlertForm, digest: str) -> bytes | None:
        """The kept bytes of an approval, where they are this person's and the case still says the same."""
        draft = tx.cases.draft(digest)
        if draft is None or draft.what != "alert":
            return None
        whose, raw = self._opened(draft)
        if whose != person or hashlib.sha256(raw).hexdigest() != digest:
            return None
        issued = datetime.fromtimestamp(draft.created, UTC).date()
        return raw if alert_of(held, person, issued).dump(form) == raw else None

    def _opened(self, draft: CaseDraft) -> tuple[str, bytes]:
        kept = self._node.keystore.master_key.open(draft.sealed, _context(draft.digest))
        person, _, raw = kept.partition(b"\n")
        return person.decode(), raw


def arguments_of(arguments: Arguments) -> tuple[str, AlertForm, str]:
    """(case, form, digest of the bytes) of an act; MalformedError for anything else."""
    value = dict(arguments)
    if set(value) != {"case", "form", "digest"}:
        raise MalformedError("an alert whose arguments are not those of the contract")
    try:
        form = AlertForm(text_member(value, "form"))
    except ValueError as error:
        raise MalformedError("an alert in a form that is not known") from error
    return text_member(value, "case"), form, text_member(value, "digest")


def _packed(person: str, raw: bytes) -> bytes:
    return person.encode() + b"\n" + raw


def _context(digest: str) -> str:
    return f"case alert {digest}"
