"""A thread: what two agencies say to each other about one case. Its states, and what each message does to them.

    who referred it    sent ─> received ─> read ─> accepted ─> declined
                        │          │         │         │
                        └──────────┴─────────┴─────────┴──> recalled ─> deleted        or: refused, deleted
    who has it                 received ─> read ─> accepted ─> declined                or: refused, recalled, deleted

Each mailbox direction is in order and brings every message once, so what can go wrong is that two messages cross. Then
one rule holds: who has the report says whether it is still there. A declined, refused or deleted report is gone and
never comes back in this thread; a recall that crosses an answer still takes the report away.

Pure: the books are kept by `referring` and `hearing`. Contract: contracts/mailbox-1.md, rules 12 to 19.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.caserecord import MAX_NOTE_CHARS, TEXT, Urgency
from gateway.errors import MalformedError
from gateway.interchange import HEX_DIGEST
from gateway.model import AGENCY, MAX_TEXT_CHARS, Purpose, int_member, require, text_member, texts_member

REFERRAL, ANSWER, MESSAGE, RECALL = "case_referral", "case_answer", "case_message", "case_recall"  # kinds of mail
OURS, THEIRS = "ours", "theirs"  # who referred the case
THREAD_BYTES = 16
_THREAD = re.compile(r"[0-9a-f]{32}")


class ThreadState(StrEnum):
    """Where a thread stands, as this end knows it."""

    SENT = "sent"
    RECEIVED = "received"
    READ = "read"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    REFUSED = "refused"
    RECALLED = "recalled"
    DELETED = "deleted"


class Answer(StrEnum):
    """What a holder of the report says of it. PASSED_ON: to whom, under its own policy and the originator's leave."""

    RECEIVED = "received"
    READ = "read"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    REFUSED = "refused"
    DELETED = "deleted"
    PASSED_ON = "passed_on"


class Saying(StrEnum):
    """What a message on a case is."""

    ASK = "ask"
    SAY = "say"
    CLOSED = "closed"


OVER = frozenset({ThreadState.DECLINED, ThreadState.REFUSED, ThreadState.DELETED})
TALKING = frozenset({ThreadState.SENT, ThreadState.RECEIVED, ThreadState.READ, ThreadState.ACCEPTED})
UNREAD = frozenset({ThreadState.SENT, ThreadState.RECEIVED})
_ORDER = [ThreadState.SENT, ThreadState.RECEIVED, ThreadState.READ, ThreadState.ACCEPTED]


def heard(state: ThreadState, answer: Answer) -> ThreadState | None:
    """Where a thread that we began stands after an answer; None where that changes nothing."""
    if state in OVER or answer is Answer.PASSED_ON:
        return None
    if answer in (Answer.DECLINED, Answer.REFUSED, Answer.DELETED):
        return ThreadState.DELETED if state is ThreadState.RECALLED else ThreadState(answer)
    if state is ThreadState.RECALLED:
        return None  # it crossed our recall
    new = ThreadState(answer)
    return new if _ORDER.index(new) > _ORDER.index(state) else None


@dataclass(frozen=True, slots=True)
class Referral:
    """The body of a referral: a report that goes, for the first time or in a newer version.

    `report` is canonical `vidx 1.0`, as text. `obligations` bind the receiver. `contact`: who is on duty at the sender.
    """

    thread: str
    purpose: Purpose
    urgency: Urgency
    obligations: tuple[str, ...]
    report: str
    note: str = ""
    contact: str = ""

    def __post_init__(self) -> None:
        _thread(self.thread)
        note_of(self.note)
        line_of(self.contact)

    def body(self) -> dict[str, object]:
        """As it stands in the mailbox."""
        return {
            "thread": self.thread,
            "purpose": str(self.purpose),
            "urgency": str(self.urgency),
            "obligations": list(self.obligations),
            "report": self.report,
            "note": self.note,
            "contact": self.contact,
        }

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> Referral:
        """What `body` wrote; MalformedError for anything else."""
        value = _members(body, "thread", "purpose", "urgency", "obligations", "report", "note", "contact")
        texts = {name: text_member(value, name) for name in ("thread", "report", "note", "contact")}
        try:
            purpose, urgency = Purpose(text_member(value, "purpose")), Urgency(text_member(value, "urgency"))
        except ValueError as error:
            raise MalformedError("a referral with a word outside its closed list") from error
        return cls(texts["thread"], purpose, urgency, texts_member(value, "obligations"), *list(texts.values())[1:])


@dataclass(frozen=True, slots=True)
class Answered:
    """The body of an answer. `digest`: of the report that it speaks of; `to`: whom it was passed on to."""

    thread: str
    answer: Answer
    digest: str
    at: int
    reason: str = ""
    contact: str = ""
    to: str = ""

    def __post_init__(self) -> None:
        _thread(self.thread)
        require(HEX_DIGEST.fullmatch(self.digest), "an answer to no report")
        note_of(self.reason)
        line_of(self.contact)
        require(bool(self.to) == (self.answer is Answer.PASSED_ON), "an answer that names a third agency, or none")
        require(not self.to or AGENCY.fullmatch(self.to), "an answer that names no agency")

    def body(self) -> dict[str, object]:
        """As it stands in the mailbox."""
        return {
            "thread": self.thread,
            "answer": str(self.answer),
            "digest": self.digest,
            "at": self.at,
            "reason": self.reason,
            "contact": self.contact,
            "to": self.to,
        }

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> Answered:
        """What `body` wrote; MalformedError for anything else."""
        value = _members(body, "thread", "answer", "digest", "at", "reason", "contact", "to")
        try:
            answer = Answer(text_member(value, "answer"))
        except ValueError as error:
            raise MalformedError("an answer that is none of the closed list") from error
        texts = [text_member(value, name) for name in ("reason", "contact", "to")]
        return cls(text_member(value, "thread"), answer, text_member(value, "digest"), int_member(value, "at"), *texts)


@dataclass(frozen=True, slots=True)
class Said:
    """The body of a message on a case: a question, a remark, or that the case is closed."""

    thread: str
    saying: Saying
    text: str
    contact: str = ""

    def __post_init__(self) -> None:
        _thread(self.thread)
        note_of(self.text)
        require(self.text or self.saying is Saying.CLOSED, "a message without words")
        line_of(self.contact)

    def body(self) -> dict[str, object]:
        """As it stands in the mailbox."""
        return {"thread": self.thread, "saying": str(self.saying), "text": self.text, "contact": self.contact}

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> Said:
        """What `body` wrote; MalformedError for anything else."""
        value = _members(body, "thread", "saying", "text", "contact")
        try:
            saying = Saying(text_member(value, "saying"))
        except ValueError as error:
            raise MalformedError("a message on a case of an unknown kind") from error
        return cls(text_member(value, "thread"), saying, text_member(value, "text"), text_member(value, "contact"))


@dataclass(frozen=True, slots=True)
class Recall:
    """The body of a recall: the report is to be deleted, and that is to be answered."""

    thread: str
    reason: str

    def __post_init__(self) -> None:
        _thread(self.thread)
        note_of(self.reason)

    def body(self) -> dict[str, object]:
        """As it stands in the mailbox."""
        return {"thread": self.thread, "reason": self.reason}

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> Recall:
        """What `body` wrote; MalformedError for anything else."""
        value = _members(body, "thread", "reason")
        return cls(text_member(value, "thread"), text_member(value, "reason"))


def note_of(text: str) -> str:
    """Words of a person: at most two pages, no control characters."""
    require(
        len(text) <= MAX_NOTE_CHARS and TEXT.fullmatch(text), "a text that is too long, or holds control characters"
    )
    return text


def line_of(text: str) -> str:
    """One line of text, such as whom to call."""
    fits = len(text) <= MAX_TEXT_CHARS and TEXT.fullmatch(text) and not set("\n\t") & set(text)
    require(fits, "a contact that is not one line")
    return text


def _thread(text: str) -> None:
    require(_THREAD.fullmatch(text), "a thread is 32 hex digits")


def _members(body: Mapping[str, object], *names: str) -> dict[str, object]:
    require(set(body) == set(names), "a message on a case whose members are not those of the contract")
    return dict(body)
