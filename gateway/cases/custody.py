"""The chain of custody of a case: each arrival and each leaving, with what proves it.

The steps are events of our log, in its order: nothing can be put into the database or taken out of it unseen. Of each
it is said what is proved and what is not:

    our log     the leaf commits to the event and stands under our newest signed tree head
    receipt     the partner's log holds that it took in this message, with exactly this report
    signature   the partner signed that it has this report; or, of what came, that it sent it

A step is verified when our log holds it and, where somebody else is in it, at least one of the partner's proofs holds.
It is broken when anything that is there does not hold; else it is not proved. Words about the report are shown as well
(an answer that the partner fetched has no receipt), but decide nothing about the chain: its links are where it moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from gateway.audit import Event, EventKind, LeafRow, parse_event
from gateway.cases.keeping import HELD, Casebook
from gateway.cases.proving import digest_in, own_event, own_head, receipt_of, signed_message
from gateway.cases.threads import ANSWER, MESSAGE, REFERRAL, Answer
from gateway.crypto.checkpoint import Checkpoint
from gateway.errors import AuditBrokenError, GatewayError, MalformedError, NotFoundError, VerificationError
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import CaseMessage, CaseRow

KINDS = (EventKind.CASE_CHANGED, EventKind.CASE_SENT, EventKind.CASE_HEARD)


class Verdict(StrEnum):
    """What became of a check, or of a step."""

    VERIFIED = "verified"
    NOT_PROVED = "not proved"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `why` says what holds, or why it does not."""

    what: str
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """One arrival, leaving or change. `digest`: SHA-256 of the report that it is about, where it is about one."""

    leaf: int
    at: int
    deed: str
    who: str
    partner: str
    thread: str
    version: int
    digest: str
    checks: tuple[Check, ...]
    is_word: bool = False  # an answer, or a recall: it tells of the report, and does not carry it

    @property
    def verdict(self) -> Verdict:
        """Of the whole step."""
        found = [one.verdict for one in self.checks]
        if Verdict.BROKEN in found:
            return Verdict.BROKEN
        own, *others = found
        proved = own is Verdict.VERIFIED and (not others or Verdict.VERIFIED in others)
        return Verdict.VERIFIED if proved else Verdict.NOT_PROVED


@dataclass(frozen=True, slots=True)
class Custody:
    """The chain of one case, as of `at`; `head` is our log's signed tree head that the leaves were proved under."""

    case: str
    agency: str
    originator: str
    reference: str
    state: str
    at: int
    origin: str
    head: Checkpoint
    steps: tuple[Step, ...]

    @property
    def verdict(self) -> Verdict:
        """Of the whole chain: broken where any step is, verified where each step is at which the report moved."""
        if any(one.verdict is Verdict.BROKEN for one in self.steps):
            return Verdict.BROKEN
        moved = [one.verdict for one in self.steps if not one.is_word]
        return Verdict.VERIFIED if moved and set(moved) == {Verdict.VERIFIED} else Verdict.NOT_PROVED


def chain(node: Node, identifier: str) -> Custody:
    """The chain of custody of a case, everything verified anew.

    Raises:
        NotFoundError: there is no such case.
        VerificationError: our newest checkpoint is not signed by our log's key: then nothing can be proved.
    """
    with node.store.reading() as tx:
        row = tx.cases.beginning(identifier)
        head = own_head(node, tx)
        steps = list(_steps(node, tx, head, row))
        reference = Casebook(node).open(row).record.reference if row.state in HELD else ""
        return Custody(
            case=row.id,
            agency=node.agency,
            originator=row.originator,
            reference=reference,
            state=row.state,
            at=node.clock(),
            origin=head.origin,
            head=head,
            steps=tuple(steps),
        )


def _steps(node: Node, tx: Transaction, head: Checkpoint, row: CaseRow) -> Iterator[Step]:
    found: set[int] = set()
    told = {one.leaf: one for one in tx.cases.messages(row.id)}
    for logged in tx.log.of_kinds(KINDS):
        claimed = _claimed(logged)
        known = told.get(logged.index)
        if claimed is not None and claimed.details.get("case") == row.id:
            found.add(logged.index)
            if _is_a_step(claimed):
                yield _step(node, tx, head, logged, claimed)
        elif known is not None:
            found.add(logged.index)
            yield _altered(known)
    for leaf, known in told.items():
        if leaf not in found and known.kind != MESSAGE:
            yield _altered(known)


def _claimed(logged: LeafRow) -> Event | None:
    """What a leaf says, unverified; None where it says nothing that can be read."""
    try:
        return None if logged.event_bytes is None else parse_event(logged.event_bytes)
    except MalformedError:
        return None


def _is_a_step(event: Event) -> bool:
    """Words about a case are no custody, and what a message tells twice is told once."""
    if event.kind is EventKind.CASE_CHANGED:
        return "partner" not in event.details and event.details.get("deed") not in _TOLD_BY_MESSAGES
    return event.details.get("message") != MESSAGE and event.details.get("outcome") != "known"


_TOLD_BY_MESSAGES = frozenset({"accepted", "declined", "refused", "recalled"})


def _step(node: Node, tx: Transaction, head: Checkpoint, logged: LeafRow, event: Event) -> Step:
    details = event.details
    partner, number = str(details.get("partner", "")), details.get("sequence")
    digest, kind = str(details.get("report_digest", "")), str(details.get("message", ""))
    checks = [_check("our log", lambda: _in_our_log(tx, head, logged))]
    if event.kind is EventKind.CASE_SENT and isinstance(number, int):
        sent = number
        report = digest if kind == REFERRAL else ""
        checks.append(_check("receipt", lambda: _by_receipt(node, tx, partner, sent, report)))
        if kind == REFERRAL:
            checks.append(_check("signature", lambda: _by_answer(node, tx, event, partner, digest)))
    if event.kind is EventKind.CASE_HEARD and isinstance(number, int):
        came = number
        checks.append(_check("signature", lambda: _by_sender(node, tx, event, came)))
    return Step(
        leaf=logged.index,
        at=event.at,
        deed=_deed(event),
        who=event.actor,
        partner=partner,
        thread=str(details.get("thread", "")),
        version=int(str(details.get("version", 0))),
        digest=digest,
        checks=tuple(checks),
        is_word=kind not in ("", REFERRAL),
    )


def _altered(known: CaseMessage) -> Step:
    """A message that our log does not tell of, or tells otherwise."""
    check = Check("our log", Verdict.BROKEN, "our log does not hold what the database says of this message")
    return Step(
        leaf=known.leaf,
        at=known.at,
        deed=known.kind.removeprefix("case_"),
        who="",
        partner=known.partner,
        thread=known.thread,
        version=0,
        digest=known.digest,
        checks=(check,),
    )


def _deed(event: Event) -> str:
    details = event.details
    if event.kind is EventKind.CASE_CHANGED:
        return str(details.get("deed", ""))
    kind = str(details.get("message", "")).removeprefix("case_")
    word = str(details.get("word", ""))
    way = "sent" if event.kind is EventKind.CASE_SENT else str(details.get("outcome", "")).replace("taken", "came")
    return f"{kind} {word}, {way}" if word else f"{kind}, {way}"


def _check(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, Verdict.VERIFIED, look())
    except NotFoundError as error:
        return Check(what, Verdict.NOT_PROVED, error.message)
    except (VerificationError, MalformedError, AuditBrokenError) as error:
        return Check(what, Verdict.BROKEN, error.message)
    except GatewayError as error:
        return Check(what, Verdict.NOT_PROVED, error.message)


def _in_our_log(tx: Transaction, head: Checkpoint, logged: LeafRow) -> str:
    own_event(tx, head, logged)
    return f"leaf {logged.index} under our signed tree of {head.size}"


def _by_receipt(node: Node, tx: Transaction, partner: str, number: int, digest: str) -> str:
    receipt = receipt_of(node, tx, partner, number, digest)
    return f"leaf {receipt.leaf_index} under the signed tree of {receipt.checkpoint.size} of {receipt.origin}"


def _by_answer(node: Node, tx: Transaction, sent: Event, partner: str, digest: str) -> str:
    """The partner's signed answer that it has the report."""
    case, thread = sent.details.get("case"), sent.details.get("thread")
    for one in tx.cases.messages(str(case)):
        if (one.partner, one.way, one.thread, one.kind) != (partner, "in", thread, ANSWER) or one.blank:
            continue
        message = signed_message(node, tx, partner, one.number)
        has = message.body.get("answer") in (Answer.RECEIVED, Answer.READ, Answer.ACCEPTED)
        if has and (message.body.get("thread"), digest_in(message)) == (thread, digest):
            return f"{partner} signed that it has this report, in its message {one.number}"
    raise NotFoundError("the partner has not said that it has this report")


def _by_sender(node: Node, tx: Transaction, came: Event, number: int) -> str:
    partner, digest = str(came.details.get("partner", "")), came.details.get("report_digest", "")
    message = signed_message(node, tx, partner, number)
    if message.kind != came.details.get("message") or (digest and digest_in(message) != digest):
        raise VerificationError("the partner signed something else")
    return f"{partner} signed it, as its message {number}"
