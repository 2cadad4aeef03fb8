"""Partners, administrators, proposals, pauses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy import func as sql

from gateway.errors import NotFoundError
from gateway.store.tables import (
    AccessToken,
    AdministratorRow,
    ApprovalRow,
    ClientSecret,
    FeedHeadRow,
    Meta,
    OutboxRow,
    PartnerRow,
    PauseRow,
    ProposalRow,
    ScheduleRow,
    columns,
)
from gateway.store.upserts import add_new, put

ADMINISTRATOR = columns(AdministratorRow)
APPROVAL = columns(ApprovalRow)
META = columns(Meta)
PARTNER = columns(PartnerRow)
PAUSE = columns(PauseRow)
PROPOSAL = columns(ProposalRow)

EVERYTHING = "*"  # the scope of a pause of the whole gateway

# Made once: every request asks these.
_META = select(META.value).where(META.key == bindparam("key"))
_METAS = select(META.key, META.value).where(META.key.in_(bindparam("keys", expanding=True)))
_FIND = select(*PARTNER).where(PARTNER.agency == bindparam("agency"))
_PAUSED = select(sql.count()).select_from(PauseRow).where(PAUSE.scope.in_(bindparam("scopes", expanding=True)))


class Issued(NamedTuple):
    """How many of each a partner has: access tokens, feeds served to it, scheduled jobs, pages on their way, secrets of
    stock clients."""

    tokens: int
    feeds: int
    jobs: int
    pushes: int
    secrets: int


class People:
    """Who is enrolled, who may decide, what is paused."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def meta(self, key: str) -> str | None:
        """A single value of this database."""
        found = self._connection.execute(_META, {"key": key}).scalar()
        return None if found is None else str(found)

    def metas(self, *keys: str) -> dict[str, str]:
        """Those of several single values that are there, in one question."""
        return {str(key): str(value) for key, value in self._connection.execute(_METAS, {"keys": list(keys)})}

    def set_meta(self, key: str, value: str) -> None:
        """Write a single value of this database."""
        put(self._connection, Meta, {"key": key, "value": value})

    def partner(self, agency: str) -> PartnerRow:
        """The partner `agency`, in whatever state."""
        found = self.find_partner(agency)
        if found is None:
            raise NotFoundError("no such partner", remedy="`gateway partner list` names those enrolled")
        return found

    def find_partner(self, agency: str) -> PartnerRow | None:
        """The partner `agency`, or None."""
        row = self._connection.execute(_FIND, {"agency": agency}).one_or_none()
        return None if row is None else PartnerRow(**row._mapping)

    def partners(self) -> list[PartnerRow]:
        """Every partner, by agency."""
        rows = self._connection.execute(select(*PARTNER).order_by(PARTNER.agency))
        return [PartnerRow(**row._mapping) for row in rows]

    def put_partner(self, row: PartnerRow) -> None:
        """Keep a partner's row. Only `gateway.partners.put` calls this: a row needs its MAC."""
        put(self._connection, PartnerRow, row.model_dump())

    def touch_partner(self, agency: str, now: int) -> None:
        """Note that the partner was in contact."""
        self._connection.execute(update(PartnerRow).where(PARTNER.agency == agency).values(contacted=now))

    def administrators(self) -> list[AdministratorRow]:
        """Every administrator there ever was, by name. Who is one now, `gateway.standing` says."""
        rows = self._connection.execute(select(*ADMINISTRATOR).order_by(ADMINISTRATOR.name))
        return [AdministratorRow(**row._mapping) for row in rows]

    def put_administrator(self, row: AdministratorRow) -> None:
        """Keep an administrator's public keys."""
        put(self._connection, AdministratorRow, row.model_dump())

    def add_proposal(self, row: ProposalRow) -> None:
        """Record a guarded act that waits for signatures."""
        last = self._connection.execute(select(sql.max(PROPOSAL.number))).scalar() or 0
        self._connection.execute(insert(ProposalRow), [{**row.model_dump(), "number": last + 1}])

    def proposal(self, identifier: str) -> ProposalRow:
        """The proposal whose id starts with `identifier` (at least eight characters, one match)."""
        query = select(*PROPOSAL).where(PROPOSAL.id.startswith(identifier, autoescape=True))
        rows = self._connection.execute(query.limit(2)).all()
        if len(rows) != 1 or len(identifier) < 8:
            raise NotFoundError("no such proposal", remedy="`gateway approval list` names the open ones")
        return ProposalRow(**rows[0]._mapping)

    def proposals(self, *, state: str | None = None) -> list[ProposalRow]:
        """Proposals, newest first."""
        # Of those made within one second the number tells which came later.
        query = select(*PROPOSAL).order_by(PROPOSAL.created.desc(), PROPOSAL.number.desc())
        if state is not None:
            query = query.where(PROPOSAL.state == state)
        return [ProposalRow(**row._mapping) for row in self._connection.execute(query)]

    def set_proposal_state(self, identifier: str, state: str) -> None:
        """Close a proposal."""
        self._connection.execute(update(ProposalRow).where(PROPOSAL.id == identifier).values(state=state))

    def add_approval(self, row: ApprovalRow) -> None:
        """Record one administrator's signature."""
        self._connection.execute(insert(ApprovalRow), [row.model_dump()])

    def approvals(self, proposal: str) -> list[ApprovalRow]:
        """The signatures over a proposal."""
        columns = (APPROVAL.proposal, APPROVAL.administrator, APPROVAL.signature, APPROVAL.at)
        rows = self._connection.execute(select(*columns).where(APPROVAL.proposal == proposal))
        return [ApprovalRow(**row._mapping) for row in rows]

    def issued(self, partner: str) -> Issued:
        """What a partner has of us that ends when it is shut out."""
        counts = (
            select(sql.count()).select_from(AccessToken).where(columns(AccessToken).partner == partner),
            select(sql.count()).select_from(FeedHeadRow).where(columns(FeedHeadRow).partner == partner),
            select(sql.count()).select_from(ScheduleRow).where(columns(ScheduleRow).partner == partner),
            select(sql.count())
            .select_from(OutboxRow)
            .where(columns(OutboxRow).partner == partner, columns(OutboxRow).state == "waiting"),
            select(sql.count()).select_from(ClientSecret).where(columns(ClientSecret).partner == partner),
        )
        return Issued(*(self._connection.execute(count).scalar_one() for count in counts))

    def pause(self, scope: str, by: str, now: int) -> bool:
        """Pause a scope; False when it was paused already."""
        return add_new(self._connection, PauseRow, {"scope": scope, "by": by, "at": now})

    def resume(self, scope: str) -> bool:
        """Lift a pause; False when there was none."""
        return self._connection.execute(delete(PauseRow).where(PAUSE.scope == scope)).rowcount > 0

    def is_paused(self, agency: str) -> bool:
        """Whether exchange with this partner is paused, by itself or with everything."""
        return bool(self._connection.execute(_PAUSED, {"scopes": [EVERYTHING, agency]}).scalar_one())

    def pauses(self) -> Sequence[tuple[str, str, int]]:
        """What is paused: (scope, by, at)."""
        rows = self._connection.execute(select(PAUSE.scope, PAUSE.by, PAUSE.at).order_by(PAUSE.scope))
        return [(a, b, c) for a, b, c in rows]
