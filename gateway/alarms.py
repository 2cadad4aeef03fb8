"""Alarms: what an administrator must know and would not see, since nobody watches a server that works.

An alarm has a kind of a closed list, and a subject (a partner, a set, a key). While it is open there is one row for
both; raising it again changes nothing, unless its level has come nearer: then it is told again. What is raised and what
is closed is recorded in the audit log, once each.

    raise_alarm(tx, node, AlarmKind.LOG_FORK, "XB-NCVI", "…")    within the deed that found it
    sweep(node)                                                 looks for what is wrong now; closes what is over

`watch` sweeps each minute and hands what is untold to the program that the settings name. A detail is one sentence:
no digest, no case reference, nothing of an entry. `evidence` is kept beside the alarm, and handed to people alone.

Contract: contracts/alarms.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from gateway import sourcestate
from gateway.approvals import OPEN
from gateway.audit import EventKind
from gateway.caserecord import Urgency
from gateway.cases.keeping import HELD, review_at
from gateway.cases.threads import THEIRS, UNREAD
from gateway.crypto import canonical
from gateway.errors import ConflictError, DeniedError
from gateway.interchange import EMPTY_VIEW, FeedHead
from gateway.keylife import DAY_SECONDS, KeyPurpose, KeyState, alarm_level
from gateway.model import MAX_TEXT_CHARS
from gateway.node import Node
from gateway.sourcestate import State
from gateway.standing import roster
from gateway.store import Transaction
from gateway.store.people import EVERYTHING
from gateway.store.tables import (
    Acknowledgement,
    AlarmRow,
    CaseRow,
    HashSet,
    OwnKey,
    PartnerRow,
    ProposalRow,
    ScheduleRow,
    StatusTold,
    Withdrawal,
    WithdrawalHolder,
)

ALARM_VERSION = "alarm 1"
SILENT_SECONDS = DAY_SECONDS  # a partner that is down over night is no alarm
WAITING_SECONDS = DAY_SECONDS  # of a proposal: whoever must sign was at work once since


class AlarmKind(StrEnum):
    """All that is told. The list is closed: a new kind is a new line here and in contracts/alarms.md."""

    KEY_EXPIRES = "key_expires"
    KEY_EXPIRED = "key_expired"
    LOG_FORK = "log_fork"
    OWN_LOG = "own_log"
    FEED_STALE = "feed_stale"
    SYNC_FAILING = "sync_failing"
    SOURCE_FAILING = "source_failing"
    PARTNER_KEY_REVOKED = "partner_key_revoked"
    PARTNER_CARD_WAITS = "partner_card_waits"
    PARTNER_RESTORED = "partner_restored"
    UNKNOWN_ENTRIES = "unknown_entries"
    CLOCK_SKEW = "clock_skew"
    KEYSTORE = "keystore"
    PROPOSAL_WAITS = "proposal_waits"
    ACKNOWLEDGEMENT_OVERDUE = "acknowledgement_overdue"
    WITHDRAWAL_OVERDUE = "withdrawal_overdue"
    CASE_REVIEW_DUE = "case_review_due"
    KNOWN_GOOD_LISTED = "known_good_listed"
    CASE_URGENT = "case_urgent"
    CASE_UNREAD = "case_unread"
    LOOK_UP_VOLUME = "look_up_volume"
    SEARCH_RESUMED = "search_resumed"
    RESUME_OVERDUE = "resume_overdue"
    STATUS_LOST = "status_lost"
    CLAIM_CONFLICT = "claim_conflict"
    TEST = "test"


# What to do next, for whoever reads the alarm at night.
NEXT: Mapping[AlarmKind, str] = {
    AlarmKind.KEY_EXPIRES: "renew the key in time: `gateway key list`, then `gateway key rotate`",
    AlarmKind.KEY_EXPIRED: "renew the key now: `gateway key list`, then `gateway key rotate`",
    AlarmKind.LOG_FORK: "keep the evidence (`gateway alarm show`) outside this machine, ring the partner up; only two "
    "administrators resume the exchange",
    AlarmKind.OWN_LOG: "keep the evidence (`gateway alarm show`); our log lost entries, an old copy of the database is "
    "in use, or our log's key is in foreign hands: `gateway audit verify`",
    AlarmKind.FEED_STALE: "the hub shows nothing newer: `gateway sync status`, then ring the partner up",
    AlarmKind.SYNC_FAILING: "`gateway sync status` names the last error",
    AlarmKind.SOURCE_FAILING: "`gateway source show` names the last error and how far the list was taken; deletions "
    "are missing here until it goes on",
    AlarmKind.PARTNER_KEY_REVOKED: "look again at what the partner sent since the time it names: `gateway audit list`",
    AlarmKind.PARTNER_CARD_WAITS: "compare the fingerprint by voice, then sign: `gateway approval list`",
    AlarmKind.UNKNOWN_ENTRIES: "look for them in backups and in the files that were imported, and import them again",
    AlarmKind.PARTNER_RESTORED: "ring the partner up whether it knows of it; what it lost goes back to it by itself",
    AlarmKind.CLOCK_SKEW: "set the clocks of both machines: NTP",
    AlarmKind.KEYSTORE: "look at the key file and its rights: `gateway doctor`",
    AlarmKind.PROPOSAL_WAITS: "look at it and sign, or let it expire: `gateway approval list`",
    AlarmKind.ACKNOWLEDGEMENT_OVERDUE: "`gateway duties list` names the sets; ring the partner up",
    AlarmKind.WITHDRAWAL_OVERDUE: "`gateway withdrawal status --outstanding` names who has not answered: ring them up",
    AlarmKind.CASE_REVIEW_DUE: "look at it and state a new date, `gateway case complete --review-on`, or let it go",
    AlarmKind.KNOWN_GOOD_LISTED: "`gateway opinion propose` names them; ring the set's owner up: it may be poisoned",
    AlarmKind.CASE_URGENT: "read it now: `gateway case show`; whom to call: `gateway case thread`",
    AlarmKind.CASE_UNREAD: "ours: `gateway case inbox`; a partner's: call its duty officer, `gateway case thread`",
    AlarmKind.LOOK_UP_VOLUME: "ring the partner up and ask what it is looking for; `gateway audit list` shows when it "
    "asked, and `gateway pause PARTNER` stops it at once",
    AlarmKind.SEARCH_RESUMED: "look for these children again: `gateway status worklist`; then `gateway status seen ID`",
    AlarmKind.RESUME_OVERDUE: "`gateway status told ID` names who has not answered: ring them up, a child waits",
    AlarmKind.STATUS_LOST: "say it again, or take it back: `gateway status show ID`, then `gateway status change ID`",
    AlarmKind.CLAIM_CONFLICT: "agree or decline to be in touch: `gateway claim list`",
    AlarmKind.TEST: "nothing: the alarm command works",
}
# Raised and closed by `sweep` alone; the others by the deeds that find them, and by people.
SWEPT = frozenset(
    {
        AlarmKind.KEY_EXPIRES,
        AlarmKind.KEY_EXPIRED,
        AlarmKind.FEED_STALE,
        AlarmKind.SYNC_FAILING,
        AlarmKind.SOURCE_FAILING,
        AlarmKind.PROPOSAL_WAITS,
        AlarmKind.ACKNOWLEDGEMENT_OVERDUE,
        AlarmKind.WITHDRAWAL_OVERDUE,
        AlarmKind.RESUME_OVERDUE,
        AlarmKind.CASE_REVIEW_DUE,
        AlarmKind.CASE_URGENT,
        AlarmKind.CASE_UNREAD,
    }
)
# The act that ends them closes them: a person who only closed the alarm would hide what is still so.
ENDED_BY_DEED = frozenset({AlarmKind.LOG_FORK})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong now. `level`: what it counts down, so that a smaller one is told again."""

    kind: AlarmKind
    subject: str
    detail: str
    level: int = 0


def raise_alarm(
    tx: Transaction,
    node: Node,
    kind: AlarmKind,
    subject: str,
    detail: str,
    *,
    level: int = 0,
    evidence: str = "",
) -> int | None:
    """The alarm is open and on record, and will be told. Returns its number; None when it was open and no nearer."""
    subject, now = subject[:MAX_TEXT_CHARS], node.clock()
    known = tx.alarms.open(kind, subject)
    if known is None:
        row = AlarmRow(kind=kind, subject=subject, level=level, detail=detail, evidence=evidence, raised=now)
        number = tx.alarms.add(row)
    elif known.id is not None and level < known.level:
        number = known.id
        tx.alarms.sharpen(number, level, detail, now)
    else:
        return None
    details: dict[str, object] = {"alarm": number, "kind": str(kind), "level": level}
    tx.log.append([node.event(EventKind.ALARM_RAISED, actor=node.agency, subject=subject, details=details)])
    return number


def close_alarm(tx: Transaction, node: Node, kind: AlarmKind, subject: str, *, by: str = "") -> bool:
    """The open alarm of this kind about this subject is closed, on record; False when there was none."""
    row = tx.alarms.open(kind, subject[:MAX_TEXT_CHARS])
    if row is None:
        return False
    _close(tx, node, row, by or node.agency)
    return True


def close_by_hand(node: Node, number: int, by: str) -> AlarmRow:
    """Administrator `by` has closed an alarm, on record; returns it as it was.

    Raises:
        DeniedError: no such administrator.
        ConflictError: it is closed already, or only the act that ends its cause closes it.
    """
    with node.store.transaction() as tx:
        if by not in roster(tx, node).administrators:
            raise DeniedError("no such administrator", remedy="`gateway admin list` names them")
        row = tx.alarms.find(number)
        if row.closed:
            raise ConflictError("this alarm is closed already")
        if row.kind in ENDED_BY_DEED:
            raise ConflictError("only the act that ends its cause closes this alarm", remedy="`gateway resume PARTNER`")
        _close(tx, node, row, by)
        return row


def sweep(node: Node) -> list[Finding]:
    """Every alarm that looking can raise or close stands as things stand now. Returns what is wrong."""
    now = node.clock()
    with node.store.reading() as tx:
        found = _findings(tx, node, now)
        standing = {(row.kind, row.subject): row.level for row in tx.alarms.all() if row.kind in SWEPT}
    # Nothing is written while nothing changes: a sweep comes each minute.
    if {(str(one.kind), one.subject): one.level for one in found} != standing:
        with node.store.transaction() as tx:
            _settle(tx, node, found)
    return found


def alarm_json(row: AlarmRow, agency: str) -> bytes:
    """The alarm as the alarm command gets it: one JSON object on one line."""
    value: dict[str, object] = {
        "version": ALARM_VERSION,
        "id": row.id or 0,
        "agency": agency,
        "kind": row.kind,
        "subject": row.subject,
        "detail": row.detail,
        "level": row.level,
        "raised": row.raised,
        "next": NEXT[AlarmKind(row.kind)],
    }
    return canonical.encode(value) + b"\n"


def _close(tx: Transaction, node: Node, row: AlarmRow, by: str) -> None:
    number = row.id or 0
    tx.alarms.close(number, by, node.clock())
    details: dict[str, object] = {"alarm": number, "kind": row.kind}
    tx.log.append([node.event(EventKind.ALARM_CLOSED, actor=by, subject=row.subject, details=details)])


def _settle(tx: Transaction, node: Node, found: Sequence[Finding]) -> None:
    wrong = {(str(one.kind), one.subject) for one in found}
    for row in tx.alarms.all():
        if row.kind in SWEPT and (row.kind, row.subject) not in wrong:
            _close(tx, node, row, node.agency)
    for one in found:
        raise_alarm(tx, node, one.kind, one.subject, one.detail, level=one.level)


# What is wrong now


def _findings(tx: Transaction, node: Node, now: int) -> list[Finding]:
    paused = {scope for scope, _, _ in tx.people.pauses()}
    interval = node.settings.hashsharing_interval_seconds
    partners = {row.agency: row for row in tx.people.partners() if _exchanges(row, paused)}
    return [
        *key_findings(tx.keys.own(), now),
        *feed_findings(tx.sets.all(), partners, now),
        *sync_findings(tx.schedule.jobs(), partners, now),
        *([] if EVERYTHING in paused else source_findings(sourcestate.read(node, tx), interval=interval, now=now)),
        *acknowledgement_findings((row for _, row in tx.duties.unacknowledged()), partners, now),
        *proposal_findings(tx.people.proposals(state=OPEN), now),
        *withdrawal_findings(tx.withdrawals.outstanding(), now),
        *resume_findings(tx.statuses.outstanding(), {row.agency: row for row in tx.people.partners()}, now),
        *case_findings(tx.cases.past(map(str, HELD), day_of(now), now), now),
        *unread_findings(tx, now),
    ]


def _exchanges(row: PartnerRow, paused: Collection[str]) -> bool:
    """Whether anything is to be expected of a partner: what people have stopped is no news to them."""
    return row.state == "active" and not {EVERYTHING, row.agency} & set(paused)


def key_findings(keys: Iterable[OwnKey], now: int) -> Iterator[Finding]:
    """Keys in use that come to their end, or are past it."""
    for key in keys:
        if key.state != KeyState.ACTIVE or not key.expires:
            continue
        level = alarm_level(key.expires, now)
        if level == 0:
            yield Finding(AlarmKind.KEY_EXPIRED, key.key_id, f"the {key.purpose} key is past its end")
        elif level is not None and _is_news(key, level):
            days = "1 day" if level == 1 else f"{level} days"
            yield Finding(AlarmKind.KEY_EXPIRES, key.key_id, f"the {key.purpose} key ends within {days}", level)


def _is_news(key: OwnKey, level: int) -> bool:
    """Whether somebody must be told. A decryption key renews itself; and no key is near its end when half is left."""
    return key.purpose != KeyPurpose.DECRYPTION and 2 * level * DAY_SECONDS <= key.expires - key.created


def feed_findings(sets: Iterable[HashSet], partners: Mapping[str, PartnerRow], now: int) -> Iterator[Finding]:
    """Followed sets whose hub shows no living feed head (freeze), though it showed us something of them last."""
    for one in sets:
        if one.hub not in partners or not one.head:
            continue
        head = FeedHead.parse(one.head.encode())
        if head.expires <= now and head.cursor.view != EMPTY_VIEW.digest:
            yield Finding(AlarmKind.FEED_STALE, one.name, "the newest feed head of this set is past its end")


def sync_findings(jobs: Iterable[ScheduleRow], partners: Mapping[str, PartnerRow], now: int) -> Iterator[Finding]:
    """Partners with whom no sync has succeeded for too long."""
    for job in jobs:
        partner = partners.get(job.partner)
        if partner is None or not job.failures:
            continue
        if now - max(job.last_success, partner.added) >= SILENT_SECONDS:
            yield Finding(AlarmKind.SYNC_FAILING, job.partner, "no sync with this partner has succeeded for a day")


def source_findings(state: State, *, interval: int, now: int) -> Iterator[Finding]:
    """The hash-sharing server that we follow, where no run has succeeded for too long, or none gets on.

    Args:
        interval: how often it is asked, in seconds.
    """
    if not state.url or not state.began:
        return
    patience = max(SILENT_SECONDS, 2 * interval)
    if state.failures and now - max(state.last_success, state.began) >= patience:
        yield Finding(AlarmKind.SOURCE_FAILING, state.set_name, "no run with this set's server has succeeded for a day")
    elif now - max(state.since, state.began) >= patience:
        detail = "runs with this set's server succeed, and none has read a window to its end for a day"
        yield Finding(AlarmKind.SOURCE_FAILING, state.set_name, detail)
    elif state.since > now:
        detail = "this set's server was followed up to a time that has not come: our clock was put back"
        yield Finding(AlarmKind.SOURCE_FAILING, state.set_name, detail)


def acknowledgement_findings(
    pages: Iterable[Acknowledgement], partners: Mapping[str, PartnerRow], now: int
) -> Iterator[Finding]:
    """Partners that have not acknowledged in time what left under such a duty."""
    late = sorted({page.partner for page in pages if page.due <= now} & partners.keys())
    for partner in late:
        detail = "this partner has not acknowledged in time what it was sent under that duty"
        yield Finding(AlarmKind.ACKNOWLEDGEMENT_OVERDUE, partner, detail)


def withdrawal_findings(outstanding: Sequence[tuple[Withdrawal, WithdrawalHolder]], now: int) -> Iterator[Finding]:
    """Withdrawals past their deadline, of which somebody has not said what became of them."""
    late = Counter(row.id for row, _ in outstanding if row.due < now)
    for number, holders in late.items():
        who = "1 holder has" if holders == 1 else f"{holders} holders have"
        yield Finding(AlarmKind.WITHDRAWAL_OVERDUE, number, f"{who} not answered by the deadline")


def resume_findings(
    outstanding: Iterable[StatusTold], partners: Mapping[str, PartnerRow], now: int
) -> Iterator[Finding]:
    """Identifications that were taken back, of which somebody has not said in time that it searches again."""
    gone = {agency for agency, row in partners.items() if row.state in ("removed", "revoked")}
    late = Counter(row.number for row in outstanding if row.due < now and row.partner not in gone)
    for number, partners_late in late.items():
        who = "1 partner has" if partners_late == 1 else f"{partners_late} partners have"
        yield Finding(AlarmKind.RESUME_OVERDUE, number, f"{who} not said that the search goes on again")


def case_findings(cases: Iterable[CaseRow], now: int) -> Iterator[Finding]:
    """Cases past their review date. What is missing from a draft may be that date: then there is none."""
    for one in cases:
        if one.review_on and review_at(one) <= now:
            yield Finding(AlarmKind.CASE_REVIEW_DUE, one.id, "the review date of a case has passed")


def unread_findings(tx: Transaction, now: int) -> Iterator[Finding]:
    """Referrals that nobody has read: here at once where a child is at risk; here and there when the time is over."""
    late: dict[str, list[str]] = {}
    for thread in tx.cases.threads_in(map(str, UNREAD)):
        row = tx.cases.find(thread.case_id)
        if row is not None and thread.side == THEIRS and row.urgency == Urgency.CHILD_AT_RISK:
            detail = f"{thread.partner} referred a case in which a child is at risk, and nobody has read it"
            yield Finding(AlarmKind.CASE_URGENT, row.id, detail)
        if thread.due <= now:
            late.setdefault(thread.case_id, []).append("here" if thread.side == THEIRS else f"at {thread.partner}")
    for case, where in late.items():
        yield Finding(AlarmKind.CASE_UNREAD, case, f"nobody has read a referral in time: {', '.join(sorted(where))}")


def day_of(now: int) -> str:
    """The day (UTC) of a moment, as the database has days."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def proposal_findings(proposals: Iterable[ProposalRow], now: int) -> Iterator[Finding]:
    """Guarded acts that wait for a signature for too long."""
    for one in proposals:
        if one.created + WAITING_SECONDS <= now < one.expires:
            yield Finding(AlarmKind.PROPOSAL_WAITS, one.id, "a guarded act waits for signatures since a day or longer")
