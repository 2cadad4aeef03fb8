"""What waits for somebody, by role: numbers and where to go, never a text of a case.

Each number is bounded in what it costs: the first screen asks for all of them again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.audit import EventKind
from gateway.caserecord import Urgency
from gateway.cases import CaseState
from gateway.console.pages import Desk
from gateway.keylife import DAY_SECONDS
from gateway.logsearch import LogSearch
from gateway.signin import Role, Session
from gateway.statuses import Word

MOST = 1_000  # of one thing; nobody needs to know by how much it is more
REFUSED_DAYS = 7  # for so long a refused message is news


@dataclass(frozen=True, slots=True)
class Need:
    """So many of something wait. `where`: the page for it; "" where there is none, then `hint` says what to do."""

    count: int
    one: str
    many: str
    where: str = ""
    hint: str = ""
    urgent: bool = False


def needs(desk: Desk, someone: Session) -> list[Need]:
    """What waits for whoever is signed in, the urgent first."""
    found: list[Need] = []
    if Role.ANALYST in someone.roles:
        found += _of_analysts(desk)
    if Role.ADMINISTRATOR in someone.roles:
        found += _of_administrators(desk, someone.person)
    if someone.roles & {Role.ADMINISTRATOR, Role.AUDITOR}:
        found += _of_readers_of_the_log(desk)
    if someone.roles & {Role.ADMINISTRATOR, Role.ANALYST}:
        found += _overdue(desk)
    return sorted((one for one in found if one.count), key=lambda one: not one.urgent)


def _of_analysts(desk: Desk) -> Iterator[Need]:
    own = desk.node.agency
    with desk.node.store.reading() as tx:
        inbox = tx.cases.urgencies(CaseState.INBOX)
        unseen = tx.statuses.unseen(own)
        claims = sum(one.word == Word.OPEN for one in tx.statuses.claims())
        disputed = tx.opinions.disputed(own, MOST)
    urgent = inbox.pop(str(Urgency.CHILD_AT_RISK), 0)
    waiting = sum(inbox.values())
    yield Need(
        urgent, "case in the inbox, a child at risk", "cases in the inbox, a child at risk", "/cases", urgent=True
    )
    other = "other " if urgent else ""
    yield Need(waiting, f"{other}case in the inbox", f"{other}cases in the inbox", "/cases")
    yield Need(unseen, "status that nobody has read", "statuses that nobody has read", hint="`gateway status list`")
    yield Need(
        claims,
        "lead that a partner holds too waits for an answer",
        "leads that partners hold too wait for an answer",
        hint="`gateway claim list`",
    )
    yield Need(
        disputed,
        "entry of ours is disputed, and we have said nothing",
        "entries of ours are disputed, and we have said nothing",
        hint="`gateway opinion list`",
    )


def _of_administrators(desk: Desk, person: str) -> Iterator[Need]:
    now = desk.node.clock()
    proposals = [one for one in desk.approvals.all(only_open=True) if one.expires > now]
    mine = sum(person not in one.signers for one in proposals)
    others = len(proposals) - mine
    yield Need(mine, "proposal waits for your signature", "proposals wait for your signature", "/approvals")
    yield Need(
        others,
        "proposal that you signed waits for another signature",
        "proposals that you signed wait for other signatures",
        "/approvals",
    )


def _of_readers_of_the_log(desk: Desk) -> Iterator[Need]:
    since = datetime.fromtimestamp(desk.node.clock() - REFUSED_DAYS * DAY_SECONDS, UTC).date().isoformat()
    kind = str(EventKind.MESSAGE_REFUSED)
    count = LogSearch(desk.node).how_many("kind", kind, since, MOST)
    yield Need(
        count,
        f"message of a partner was refused in the last {REFUSED_DAYS} days",
        f"messages of partners were refused in the last {REFUSED_DAYS} days",
        f"/log?kind={kind}&since={since}",
    )


def _overdue(desk: Desk) -> Iterator[Need]:
    now = desk.node.clock()
    with desk.node.store.reading() as tx:
        late = {row.id for row, _ in tx.withdrawals.outstanding() if row.due < now}
    yield Need(
        len(late),
        "withdrawal is past its deadline: a holder has not answered",
        "withdrawals are past their deadline: holders have not answered",
        hint="`gateway withdrawal status --outstanding`",
        urgent=True,
    )
