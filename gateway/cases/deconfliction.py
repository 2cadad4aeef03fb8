"""Claims: two agencies that both hold a lead on one child are told so once, and nothing else until both agree.

A conflict is two assertions, ours and a partner's, both `lead`, that share a mark. Both sides work out its id by
themselves and find it by themselves, whichever claim came first. What each sees is that the other claims it too, and
since when. Then each says `agree` or `decline`; only where both agree each gets what the other chose to give: whom to
call, and a reference to name. Words have versions, and the newest counts, so it does not matter in which order they
come.

A side that policy keeps from knowing of our claim is not asked either: an answer would tell it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.alarms import AlarmKind, close_alarm, raise_alarm
from gateway.audit import EventKind
from gateway.cases import lines
from gateway.crypto import canonical
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError
from gateway.mailbox import Mailbox
from gateway.model import VictimStatus, text_member
from gateway.node import Node
from gateway.statuses import Answer, Assertion, Word, claim_id, is_line, newest_answer, settled
from gateway.statusmail import CLAIM_ANSWER, CLAIM_CONTACT, dump_answer, dump_contact, parse_answer, parse_contact
from gateway.store import Transaction
from gateway.store.tables import ClaimRow

MAX_CONTACT_BYTES = 8 << 10
MAX_UNKNOWN = 1_000  # words on conflicts that we do not see, of one partner: a real one has a handful


@dataclass(frozen=True, slots=True)
class Claim:
    """A conflict as it stands. `since`: when the partner's claim began; `contact`, `reference`: what it gave us."""

    id: str
    partner: str
    assertion: str
    since: int
    found: int
    ours: Word
    theirs: Word
    over: bool
    contact: str = ""
    reference: str = ""

    @property
    def state(self) -> str:
        """One word: over, open, agreed or declined."""
        if self.over:
            return "over"
        return {Word.AGREE: "agreed", Word.DECLINE: "declined"}.get(
            settled(Answer(1, self.ours), Answer(1, self.theirs)), "open"
        )


class Claims:
    """Finds conflicts, and carries what both sides say."""

    def __init__(self, node: Node, mailbox: Mailbox) -> None:
        self._node = node
        self._mailbox = mailbox

    def look(self, tx: Transaction, assertion: Assertion, met: Iterable[Assertion]) -> tuple[str, ...]:
        """Conflicts that an assertion makes with those that it meets are on record, and old ones of it end; their ids.

        Within the deed that makes or takes the assertion.
        """
        found = []
        ours = assertion.agency == self._node.agency
        for other in met if assertion.status is VictimStatus.LEAD else ():
            if other.status is not VictimStatus.LEAD or (ours == (other.agency == self._node.agency)):
                continue
            mine, theirs = (assertion, other) if ours else (other, assertion)
            found.append(self._note(tx, mine, theirs))
        if assertion.status is not VictimStatus.LEAD:
            for row in tx.statuses.claims():
                if (assertion.agency, assertion.id) in ((self._node.agency, row.number), (row.partner, row.theirs)):
                    close_alarm(tx, self._node, AlarmKind.CLAIM_CONFLICT, row.id)
        return tuple(found)

    def _note(self, tx: Transaction, mine: Assertion, theirs: Assertion) -> str:
        number = claim_id(mine.key, theirs.key)
        row = tx.statuses.claim(number, theirs.agency) or ClaimRow(id=number, partner=theirs.agency)
        if row.at:
            return number  # told already: once is enough
        row.number, row.theirs, row.at = mine.id, theirs.id, self._node.clock()
        tx.statuses.put_claim(row)
        self._log(tx, EventKind.CLAIM_CONFLICT, row, "found")
        detail = f"{theirs.agency} and we both hold a lead on the same child or series"
        raise_alarm(tx, self._node, AlarmKind.CLAIM_CONFLICT, number, detail)
        return number

    # What we say

    def agree(self, number: str, contact: str, reference: str = "") -> Claim:
        """We agree to be in touch about a conflict; `contact` and `reference` go to the partner once it agrees as well.

        Raises:
            DeniedError: policy does not let the partner know of our claim.
            ConflictError: the conflict is over.
        """
        for text, name in ((contact, "contact"), (reference, "reference")):
            if text and not is_line(text):
                raise MalformedError(f"a {name} is one line")
        if not contact:
            raise MalformedError("a contact is needed: whom the other side calls")
        raw = canonical.encode({"contact": contact, "reference": reference})
        return self._say(number, Word.AGREE, raw)

    def decline(self, number: str) -> Claim:
        """We do not want to be in touch about a conflict. It may be agreed to later."""
        return self._say(number, Word.DECLINE, b"")

    def _say(self, number: str, word: Word, give: bytes) -> Claim:
        node = self._node
        with node.store.transaction() as tx:
            row = self._one(tx, number)
            if self._claim(tx, row).over:
                raise ConflictError("this conflict is over: one of both claims is no lead any more")
            if not any(one.partner == row.partner for one in tx.statuses.told(row.number)):
                raise DeniedError(
                    "policy does not let this partner know of our claim, so an answer must not tell it",
                    remedy="`gateway policy explain` says why; ring the partner up where the law allows it",
                )
            row.version, row.word = lines.next_version(node, tx, row.version), str(word)
            row.sealed = node.keystore.master_key.seal(give, _context(row, "ours"), node.random) if give else b""
            tx.statuses.put_claim(row)
            body = dump_answer(row.id, Answer(row.version, word))
            self._mailbox.post(tx, row.partner, CLAIM_ANSWER, body)
            self._log(tx, EventKind.CLAIM_ANSWERED, row, str(word))
            self._give(tx, row)
            close_alarm(tx, node, AlarmKind.CLAIM_CONFLICT, row.id)
            tx.schedule.hasten(node.clock())
            return self._claim(tx, row)

    def _give(self, tx: Transaction, row: ClaimRow) -> None:
        """What we chose goes to the partner once both have agreed, once for each time that we said so."""
        both = settled(Answer(row.version, Word(row.word)), Answer(row.their_version, Word(row.their_word)))
        if both is not Word.AGREE or row.given >= row.version or not row.sealed:
            return
        contact, reference = self._opened(row, "ours", row.sealed)
        self._mailbox.post(tx, row.partner, CLAIM_CONTACT, dump_contact(row.id, contact, reference))
        row.given = row.version
        tx.statuses.put_claim(row)

    # What they say

    def hear_answer(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        """A partner's word on a conflict; it may come before we have found the conflict ourselves."""
        number, answer = parse_answer(body)
        row = tx.statuses.claim(number, sender)
        if row is None:
            unknown = sum(one.partner == sender and not one.at for one in tx.statuses.claims())
            if unknown >= MAX_UNKNOWN:
                raise DeniedError("more words on claims than this gateway keeps")
            row = ClaimRow(id=number, partner=sender)
        held = Answer(row.their_version, Word(row.their_word))
        newer = newest_answer(held, answer)
        if newer == held:
            return
        row.their_version, row.their_word = newer.version, str(newer.word)
        if newer.word is Word.DECLINE:
            row.sealed_theirs = b""
        tx.statuses.put_claim(row)
        self._log(tx, EventKind.CLAIM_ANSWERED, row, str(newer.word), actor=sender)
        self._give(tx, row)

    def hear_contact(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        """What a partner gives us, now that both have agreed. Unasked for it is not kept."""
        number, contact, reference = parse_contact(body)
        row = tx.statuses.claim(number, sender)
        if row is None or row.word != Word.AGREE:
            raise DeniedError("a contact for a claim on which we have not agreed")
        raw = canonical.encode({"contact": contact, "reference": reference})
        row.sealed_theirs = self._node.keystore.master_key.seal(raw, _context(row, "theirs"), self._node.random)
        tx.statuses.put_claim(row)

    # What is open

    def all(self) -> list[Claim]:
        """Every conflict that we have found, the newest first."""
        with self._node.store.reading() as tx:
            return [self._claim(tx, row) for row in tx.statuses.claims() if row.at]

    def _one(self, tx: Transaction, number: str) -> ClaimRow:
        found = [row for row in tx.statuses.claims(number) if row.at]
        if len(found) != 1:
            raise NotFoundError("no such claim", remedy="`gateway claim list` names them")
        return found[0]

    def _claim(self, tx: Transaction, row: ClaimRow) -> Claim:
        mine, theirs = tx.statuses.find(self._node.agency, row.number), tx.statuses.find(row.partner, row.theirs)
        over = any(one is None or one.status != VictimStatus.LEAD for one in (mine, theirs))
        contact = reference = ""
        ours, other = Word(row.word), Word(row.their_word)
        if row.sealed_theirs and ours is Word.AGREE and other is Word.AGREE:
            contact, reference = self._opened(row, "theirs", row.sealed_theirs)
        since = 0 if theirs is None else theirs.at
        return Claim(row.id, row.partner, row.number, since, row.at, ours, other, over, contact, reference)

    def _opened(self, row: ClaimRow, side: str, sealed: bytes) -> tuple[str, str]:
        raw = self._node.keystore.master_key.open(sealed, _context(row, side))
        value = canonical.parse_canonical(raw, max_bytes=MAX_CONTACT_BYTES)
        assert isinstance(value, dict), "this gateway sealed it"
        return text_member(dict(value), "contact"), text_member(dict(value), "reference")

    def _log(self, tx: Transaction, kind: EventKind, row: ClaimRow, word: str, *, actor: str = "") -> None:
        details: dict[str, object] = {"claim": row.id, "partner": row.partner, "outcome": word}
        node = self._node
        tx.log.append([node.event(kind, actor=actor or node.agency, subject=row.partner, details=details)])


def _context(row: ClaimRow, side: str) -> str:
    return f"claim {row.id} with {row.partner}, {side}"
