"""Referring cases: to the right partner, what policy lets go of it, once; then what is said about it in the thread.

    1 what would go is shown: `preview`; where policy asks for four eyes it is laid before administrators (`propose`)
    2 `refer`: decision receipt, message, thread and leaf are one commit
    3 a newer version follows by itself to whoever has the case, as policy says then; where it says no, a recall goes
    4 the partner's answers come by mailbox (`hearing`); people here `accept`, `decline`, `ask` and `say`

Nothing is referred by itself: `proposals` names the units that a case points to, and a person decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from gateway.approvals import LIFETIME_SECONDS, Arguments
from gateway.caserecord import Urgency
from gateway.cases.deciding import Asked, Preview, due_at, preview, record, urgent_of
from gateway.cases.keeping import Casebook, CaseState, HeldCase
from gateway.cases.talking import Talk
from gateway.cases.threads import (
    OURS,
    OVER,
    RECALL,
    REFERRAL,
    TALKING,
    THEIRS,
    THREAD_BYTES,
    Answer,
    Recall,
    Referral,
    Saying,
    ThreadState,
)
from gateway.crypto import canonical
from gateway.errors import ConflictError, DeniedError, GatewayError, MalformedError, NotFoundError, OverloadedError
from gateway.model import JURISDICTION, Purpose, int_member, text_member
from gateway.node import Node
from gateway.policy import Action
from gateway.store import Transaction
from gateway.store.tables import CaseDraft, CaseRow, CaseThread
from gateway.vidx import CaseReport

ACT = "case_refer"
REVIEWED_META = "cases reviewed"  # under which policy, on which day, what partners hold of cases was looked at last
NOT_ANY_MORE = "policy no longer lets you hold it"


@dataclass(frozen=True, slots=True)
class Referred:
    """A case that went. `number`: of the message in the partner's mailbox."""

    case: str
    partner: str
    thread: str
    number: int
    due: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """A unit that a case points to. `confidence` is in percent; `why`: what speaks for it, in one sentence."""

    case: str
    partner: str
    country: str
    confidence: int
    why: str


class Referrals:
    """What leaves of cases. It follows the casebook: what changes there is told on."""

    def __init__(self, node: Node, book: Casebook, talk: Talk) -> None:
        self._node = node
        self._book = book
        self._talk = talk
        book.follower = self

    # Whom, and what

    def partners_of(self, to: str) -> list[str]:
        """The active partners that a country's code or an agency's names.

        Raises:
            NotFoundError: there is none.
        """
        with self._node.store.reading() as tx:
            rows = [row for row in tx.people.partners() if row.state == "active"]
        found = [row.agency for row in rows if to in (row.agency, row.jurisdiction)]
        if not found:
            what = "unit of this country is a partner" if JURISDICTION.fullmatch(to) else "such partner"
            raise NotFoundError(f"no {what}", remedy="`gateway partner list` names those enrolled")
        return sorted(found)

    def preview(self, case: str, partner: str, purpose: Purpose | None = None, *, urgent: bool = False) -> Preview:
        """What would go of a case to a partner, and why the rest stays; raises as `deciding.preview`."""
        with self._node.store.reading() as tx:
            return self._preview(tx, self._book.open(tx.cases.beginning(case)), partner, purpose, urgent=urgent)

    def proposals(self) -> list[Pointer]:
        """The units that open cases point to and that do not have them, urgent cases first. Nothing is sent."""
        found: list[Pointer] = []
        with self._node.store.reading() as tx:
            units = [(row.agency, row.jurisdiction) for row in tx.people.partners() if row.state == "active"]
            for row in tx.cases.all([CaseState.OPEN]):
                held = self._book.open(row)
                asked = {one.partner for one in tx.cases.threads(row.id) if one.state not in OVER}
                found += _pointers(held, [unit for unit in units if unit[0] not in {*asked, row.source}])
        return found

    # Referring

    def refer(
        self, case: str, partner: str, purpose: Purpose | None = None, *, urgent: bool = False, note: str = ""
    ) -> Referred:
        """The case goes to the partner, as far as policy lets it; raises as `deciding.preview`.

        Raises:
            DeniedError: policy refuses it, which is on record; or two administrators have to approve it.
            ConflictError: the partner has it already.
        """
        with self._node.store.transaction() as tx:
            held = self._book.open(tx.cases.beginning(case))
            shown = self._preview(tx, held, partner, purpose, urgent=urgent)
            self._thread_for(tx, shown)
            if shown.allowed and shown.needs_approval:
                raise DeniedError(
                    "two administrators have to approve this referral", remedy="propose it: add --admin NAME"
                )
            if shown.allowed:
                return self._send(tx, held, shown, note=note)
            self._record(tx, shown)
        raise DeniedError(shown.sentence, rules=shown.rules)

    def propose(
        self, case: str, partner: str, purpose: Purpose | None = None, *, urgent: bool = False, note: str = ""
    ) -> tuple[str, Arguments]:
        """The act that refers a case, for two administrators to sign: exactly this report to exactly this partner.

        What goes is kept, sealed, under the digest that they sign.
        """
        with self._node.store.transaction() as tx:
            held = self._book.open(tx.cases.beginning(case))
            shown = self._preview(tx, held, partner, purpose, urgent=urgent)
            self._thread_for(tx, shown)
            if not shown.allowed:
                raise DeniedError(shown.sentence, rules=shown.rules)
            arguments: dict[str, object] = {
                "case": held.row.id,
                "partner": partner,
                "purpose": str(shown.purpose),
                "urgent": int(urgent),
                "report": shown.digest,
                "note": self._node.keystore.row_mac(note.encode()).hex(),
            }
            digest = _digest(arguments)
            sealed = self._node.keystore.master_key.seal(note.encode(), _context(digest), self._node.random)
            tx.cases.put_draft(
                CaseDraft(
                    digest=digest,
                    case_id=held.row.id,
                    what="referral",
                    to=partner,
                    created=self._node.clock(),
                    sealed=sealed,
                )
            )
            return ACT, arguments

    def refer_approved(self, tx: Transaction, arguments: Arguments, proposal: str) -> Referred:
        """Two administrators have signed: it goes, if it still is what they have signed.

        Raises:
            ConflictError: the case or the policy has changed since.
        """
        held = self._book.open(tx.cases.beginning(text_member(dict(arguments), "case")))
        shown, note = self.proposed(tx, arguments)
        thread = self._thread_for(tx, shown)
        tx.cases.drop_draft(_digest(arguments))
        return self._send(tx, held, shown, note=note, proposal=proposal, thread=thread)

    def proposed(self, tx: Transaction, arguments: Arguments) -> tuple[Preview, str]:
        """What a proposed referral would send now, with its note; raises as `refer_approved`."""
        case, partner, purpose, urgent, report = arguments_of(arguments)
        held = self._book.open(tx.cases.beginning(case))
        shown = self._preview(tx, held, partner, purpose, urgent=urgent)
        draft = tx.cases.draft(_digest(arguments))
        if not shown.allowed or shown.digest != report or draft is None:
            raise ConflictError("the case or the policy has changed since it was proposed", remedy="refer it again")
        return shown, self._node.keystore.master_key.open(draft.sealed, _context(draft.digest)).decode()

    def recall(self, case: str, partner: str, reason: str) -> CaseThread:
        """The partner is told to delete the case.

        Raises:
            NotFoundError: it does not have it from us.
        """
        with self._node.store.transaction() as tx:
            row = tx.cases.beginning(case)
            for thread in tx.cases.threads(row.id):
                if (thread.partner, thread.side) == (partner, OURS) and thread.state in TALKING:
                    self._recall(tx, thread, reason)
                    return thread
        raise NotFoundError("this partner does not have the case from us", remedy="`gateway case thread` shows who has")

    # Following the casebook (within its deeds)

    def changed(self, tx: Transaction, row: CaseRow, report: CaseReport) -> None:
        """A case has another report now: whoever has it gets that, as far as policy lets it go, or a recall."""
        # Of a closed case too: what partners hold of it is still theirs to hold, or not.
        held = HeldCase(row.model_copy(update={"state": str(CaseState.OPEN)}), report)
        for thread in tx.cases.threads(row.id):
            if thread.side == OURS and thread.state in TALKING:
                self._follow(tx, held, thread)

    def ended(self, tx: Transaction, row: CaseRow) -> None:
        """A case is closed or gone: partners are told, and what was said about it is erased with it."""
        for thread in tx.cases.threads(row.id):
            if thread.state not in TALKING:
                continue
            if row.state == CaseState.CLOSED:
                self._talk.tell(tx, row, thread, Saying.CLOSED, "")
            elif thread.side == THEIRS:
                self._talk.reply(tx, row, thread, Answer.DELETED)
            elif row.source:
                self._recall(tx, thread, "what it was passed on from is gone")
        if row.state in (CaseState.DECLINED, CaseState.ERASED):
            self._talk.blank(tx, row.id)

    def keep_house(self) -> None:
        """What has arrived of a case that is gone is erased; under another policy, or on another day, what partners
        hold of cases is looked at again; and what could not go to a partner goes when it can."""
        with self._node.store.reading() as tx:
            gone = tx.cases.worded([CaseState.DECLINED, CaseState.ERASED])
            seen, behind = tx.people.meta(REVIEWED_META), self._behind(tx)
        now = f"{self._node.policy.digest} {self._node.today}"
        if gone:
            with self._node.store.transaction() as tx:
                for case in gone:
                    self._talk.blank(tx, case)
        if seen != now:
            with self._node.store.transaction() as tx:
                ours = {one.case_id for one in tx.cases.threads_in(map(str, TALKING)) if one.side == OURS}
                self._look_again(tx, [row for case in sorted(ours) if (row := tx.cases.find(case)) is not None])
                tx.cases.drop_old_drafts("referral", self._node.clock() - LIFETIME_SECONDS)
                tx.people.set_meta(REVIEWED_META, now)
        elif behind:
            with self._node.store.transaction() as tx:
                self._look_again(tx, [row for case in behind if (row := tx.cases.find(case)) is not None])

    def _look_again(self, tx: Transaction, rows: Iterable[CaseRow]) -> None:
        for row in rows:
            with suppress(GatewayError):  # one that cannot be opened keeps no other waiting
                self.changed(tx, row, self._book.open(row).report)

    def _behind(self, tx: Transaction) -> list[str]:
        """Cases of which a partner that may exchange now has an older version: it could not go before."""
        found = set()
        for case, partner in tx.cases.behind(OURS, map(str, TALKING)):
            row = tx.people.find_partner(partner)
            if row is not None and row.state == "active" and not tx.people.is_paused(partner):
                found.add(case)
        return sorted(found)

    # One step each

    def _preview(
        self, tx: Transaction, held: HeldCase, partner: str, purpose: Purpose | None, *, urgent: bool
    ) -> Preview:
        why = purpose or held.record.purpose
        if why is None:
            raise MalformedError("the referral has no purpose", remedy="state it with --purpose")
        return preview(self._node, tx, held, partner, purpose=why, urgency=urgent_of(held.record, urgent=urgent))

    def _thread_for(self, tx: Transaction, shown: Preview) -> str:
        """The thread in which a report would go: a new one (""), or the one that an approved newer report goes in.

        Raises:
            ConflictError: the partner has this case, and what is newer of it follows by itself; or it is to delete it.
        """
        for thread in tx.cases.threads(shown.case):
            if thread.partner != shown.partner or thread.state in OVER:
                continue
            newer = shown.needs_approval and shown.digest != thread.digest
            if not newer or thread.side != OURS or thread.state not in TALKING:
                raise ConflictError(
                    "the partner has this case, or is asked to delete it",
                    remedy="what it has and said: `gateway case thread`",
                )
            return thread.id
        return ""

    def _record(self, tx: Transaction, shown: Preview) -> None:
        asked = Asked(Action.REFER, shown.partner, shown.case, shown.label, shown.purpose)
        record(self._node, tx, asked, shown.receipt)

    def _send(
        self,
        tx: Transaction,
        held: HeldCase,
        shown: Preview,
        *,
        note: str = "",
        proposal: str = "",
        thread: str = "",
    ) -> Referred:
        """The report goes, in a new thread or in the one that it has. Everything is one commit."""
        self._record(tx, shown)
        now, contact = self._node.clock(), self._node.settings.case_duty_contact
        referral = Referral(
            thread=thread or self._node.random.bytes(THREAD_BYTES).hex(),
            purpose=shown.purpose,
            urgency=shown.urgency,
            obligations=shown.obligations,
            report=shown.report.decode(),
            note=note,
            contact=contact,
        )
        known = tx.cases.thread(shown.partner, referral.thread)
        row = CaseThread(
            partner=shown.partner,
            id=referral.thread,
            case_id=shown.case,
            side=OURS,
            state=str(ThreadState.SENT) if known is None else known.state,
            purpose=str(shown.purpose),
            version=held.record.version,
            digest=shown.digest,
            groups=" ".join(shown.going),
            obligations=" ".join(shown.obligations),
            created=now if known is None else known.created,
            due=due_at(self._node, shown.urgency, shown.obligations) if known is None else known.due,
            read=0 if known is None else known.read,
            answered=0 if known is None else known.answered,
        )
        tx.cases.put_thread(row)
        details: dict[str, object] = {
            "version": row.version,
            "report_digest": row.digest,
            "groups": list(shown.going),
            "purpose": row.purpose,
            "urgency": str(shown.urgency),
            **({"proposal": proposal} if proposal else {}),
        }
        number = self._talk.post(tx, row, REFERRAL, referral.body(), details)
        if shown.urgency is Urgency.CHILD_AT_RISK:
            tx.schedule.hasten(now)
        if held.row.source and known is None:
            self._tell_source(tx, held.row, shown.partner)
        return Referred(shown.case, shown.partner, row.id, number, row.due)

    def _follow(self, tx: Transaction, held: HeldCase, thread: CaseThread) -> None:
        urgency, purpose = Urgency(held.row.urgency), Purpose(thread.purpose)
        try:
            shown = preview(self._node, tx, held, thread.partner, purpose=purpose, urgency=urgency)
        except DeniedError:
            self._recall(tx, thread, NOT_ANY_MORE)
            return
        except (NotFoundError, OverloadedError):
            return  # nothing moves to this partner now; when it may again, `keep_house` comes here
        except GatewayError:
            return  # too long, or not complete: what it has, it has lawfully, and `case thread` shows which version
        if not shown.allowed:
            self._record(tx, shown)
            self._recall(tx, thread, NOT_ANY_MORE)
        elif shown.needs_approval:
            # Nothing goes without two people. But what the partner may not hold any more does not wait for them.
            if not set(thread.groups.split()) <= set(map(str, shown.going)):
                self._recall(tx, thread, NOT_ANY_MORE)
        elif shown.digest != thread.digest:
            self._send(tx, held, shown, thread=thread.id)

    def _recall(self, tx: Transaction, thread: CaseThread, reason: str) -> None:
        thread.state, thread.answered = str(ThreadState.RECALLED), 0
        tx.cases.put_thread(thread)
        self._talk.post(tx, thread, RECALL, Recall(thread.id, reason).body(), {"version": thread.version})
        tx.schedule.hasten(self._node.clock())

    def _tell_source(self, tx: Transaction, row: CaseRow, partner: str) -> None:
        """Who referred a case to us learns to whom it was passed on."""
        for thread in tx.cases.threads(row.id):
            if thread.side == THEIRS and thread.state in TALKING:
                self._talk.answer(tx, thread, Answer.PASSED_ON, to=partner)


def arguments_of(arguments: Arguments) -> tuple[str, str, Purpose, bool, str]:
    """(case, partner, purpose, urgent, digest of the report) of an act; MalformedError for anything else."""
    value = dict(arguments)
    if set(value) != {"case", "partner", "purpose", "urgent", "report", "note"}:
        raise MalformedError("a referral whose arguments are not those of the contract")
    try:
        purpose = Purpose(text_member(value, "purpose"))
    except ValueError as error:
        raise MalformedError("a referral for a purpose outside the closed list") from error
    text_member(value, "note")
    case, partner, report = (text_member(value, name) for name in ("case", "partner", "report"))
    return case, partner, purpose, bool(int_member(value, "urgent")), report


def _pointers(held: HeldCase, units: Sequence[tuple[str, str]]) -> Iterator[Pointer]:
    """The units of other countries that the places of a case name, each with the surest place."""
    surest: dict[str, int] = {}
    for place in held.record.places:
        if place.country:
            surest[place.country] = max(place.confidence, surest.get(place.country, 0))
    for country, confidence in sorted(surest.items(), key=lambda one: (-one[1], one[0])):
        for agency, jurisdiction in sorted(units):
            if jurisdiction == country:
                why = (
                    f"the place clue points to {country} with confidence {confidence / 100:.2g}, "
                    f"and {country}'s unit {agency} is enrolled"
                )
                yield Pointer(held.row.id, agency, country, confidence, why)


def _digest(arguments: Arguments) -> str:
    return hashlib.sha256(canonical.encode(dict(arguments))).hexdigest()


def _context(digest: str) -> str:
    return f"case draft {digest}"
