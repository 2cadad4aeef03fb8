"""Hash sets, their labels, sums, views, followers and feed heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy import func as sql

from gateway.errors import NotFoundError, StaleCursorError
from gateway.store.tables import (
    BlockTable,
    DroppedBlock,
    FeedHeadRow,
    Follower,
    HashSet,
    LabelRow,
    LabelSum,
    LabelTable,
    OfferedLabel,
    OnwardSource,
    ViewRow,
    columns,
)
from gateway.store.upserts import add_many, add_new, put

BLOCK = columns(BlockTable)
DROPPED = columns(DroppedBlock)
HEAD = columns(FeedHeadRow)
FOLLOWER = columns(Follower)
HASH_SET = columns(HashSet)
LABEL = columns(LabelTable)
OFFERED = columns(OfferedLabel)
SOURCE = columns(OnwardSource)
SUM = columns(LabelSum)
VIEW = columns(ViewRow)

# Made once: building a statement costs more than running it.
_FIND = select(*HASH_SET).where(HASH_SET.name == bindparam("name"), HASH_SET.relays == 0)
_FIND_SERVED = select(*HASH_SET).where(HASH_SET.name == bindparam("name"), HASH_SET.hub == "")
_FIND_COPY = select(*HASH_SET).where(HASH_SET.relays == bindparam("mirror"))
# Where a set stands: whatever is done to its entries changes one of these.
_STATE = select(
    HASH_SET.epoch,
    HASH_SET.seq,
    HASH_SET.revision,
    select(sql.max(BLOCK.id)).where(BLOCK.set_id == bindparam("set_id")).scalar_subquery(),
    select(sql.max(DROPPED.id)).where(DROPPED.set_id == bindparam("set_id")).scalar_subquery(),
).where(HASH_SET.id == bindparam("set_id"))
_LABELS = select(*LABEL).where(LABEL.set_id == bindparam("set_id")).order_by(LABEL.number)
_OFFERED = select(*OFFERED).where(OFFERED.set_id == bindparam("set_id")).order_by(OFFERED.number)
_SUMS = select(SUM.label, SUM.part, SUM.value).where(SUM.set_id == bindparam("set_id"))
_COUNT_REVISION = update(HashSet).where(HASH_SET.id == bindparam("of_set")).values(revision=HASH_SET.revision + 1)
_FOLLOWERS = select(*FOLLOWER).where(FOLLOWER.set_id == bindparam("set_id")).order_by(FOLLOWER.partner)
_FOLLOWER = select(*FOLLOWER).where(FOLLOWER.set_id == bindparam("set_id"), FOLLOWER.partner == bindparam("partner"))
_HEAD = select(*HEAD).where(HEAD.set_id == bindparam("set_id"), HEAD.partner == bindparam("partner"))
_HEAD_CONTENT = select(HEAD.content).where(HEAD.set_id == bindparam("set_id"), HEAD.partner == bindparam("partner"))
_VIEW = select(VIEW.content).where(
    VIEW.set_id == bindparam("set_id"), VIEW.partner == bindparam("partner"), VIEW.digest == bindparam("digest")
)


class Sets:
    """Everything about sets but their blocks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, row: HashSet) -> int:
        """Add a set; returns its id."""
        values = row.model_dump(exclude={"id"})
        key = self._connection.execute(insert(HashSet).values(**values)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def find(self, name: str) -> HashSet | None:
        """The set `name`, our own or a mirror, or None."""
        row = self._connection.execute(_FIND, {"name": name}).one_or_none()
        return None if row is None else HashSet(**row._mapping)

    def find_served(self, name: str) -> HashSet | None:
        """What partners are served under a name: our own set, or the onward copy of a mirror; or None."""
        row = self._connection.execute(_FIND_SERVED, {"name": name}).one_or_none()
        return None if row is None else HashSet(**row._mapping)

    def onward_copy(self, mirror: int) -> HashSet | None:
        """The onward copy of a mirror, or None."""
        row = self._connection.execute(_FIND_COPY, {"mirror": mirror}).one_or_none()
        return None if row is None else HashSet(**row._mapping)

    def get(self, name: str) -> HashSet:
        """The set `name`."""
        found = self.find(name)
        if found is None:
            raise NotFoundError("no such set", remedy="`gateway set list` names those that exist")
        return found

    def by_id(self, set_id: int) -> HashSet:
        """The set of this id, which is there."""
        row = self._connection.execute(select(*HASH_SET).where(HASH_SET.id == set_id)).one()
        return HashSet(**row._mapping)

    def state(self, set_id: int) -> tuple[int, ...]:
        """Epoch, seq, revision, newest block and newest drop of a set: another state has other numbers."""
        return tuple(number or 0 for number in self._connection.execute(_STATE, {"set_id": set_id}).one())

    def all(self) -> list[HashSet]:
        """Every set of ours and every mirror, by name."""
        return [row for row in self.stored() if not row.relays]

    def stored(self) -> list[HashSet]:
        """The same, and the onward copies of mirrors."""
        query = select(*HASH_SET).order_by(HASH_SET.name, HASH_SET.relays)
        return [HashSet(**row._mapping) for row in self._connection.execute(query)]

    def advance(self, set_id: int, *, expected_seq: int, seq: int, next_entry: int) -> None:
        """Move an own set on; a set that has moved meanwhile is a conflict (compare-and-swap)."""
        where = (HASH_SET.id == set_id, HASH_SET.seq == expected_seq)
        done = self._connection.execute(update(HashSet).where(*where).values(seq=seq, next_entry=next_entry))
        if done.rowcount != 1:
            raise StaleCursorError("the set has moved on meanwhile")

    def begin_epochs(self) -> None:
        """Every own set is in its next epoch; where it stands, and the number of its next entry, stay."""
        self._connection.execute(update(HashSet).where(HASH_SET.hub == "").values(epoch=HASH_SET.epoch + 1))

    def advance_mirror(self, set_id: int, *, expected: tuple[int, str, int], to: tuple[int, str, int]) -> None:
        """Move a mirror's cursor (epoch, view, seq); a cursor that has moved is a conflict (compare-and-swap)."""
        epoch, view, seq = expected
        where = (HASH_SET.id == set_id, HASH_SET.epoch == epoch, HASH_SET.view == view, HASH_SET.seq == seq)
        values = {"epoch": to[0], "view": to[1], "seq": to[2]}
        if self._connection.execute(update(HashSet).where(*where).values(**values)).rowcount != 1:
            raise StaleCursorError("the mirror has moved on meanwhile")

    def change_hub(self, set_id: int, hub: str, view: str) -> None:
        """A mirror comes from another hub from now on: nothing that the former one said of it stays, but what it holds.

        Args:
            view: that no hub knows, so that everything is fetched anew.
        """
        values = {"hub": hub, "head": "", "epoch": 0, "view": view, "seq": 0, "equality": "unknown"}
        self._connection.execute(update(HashSet).where(HASH_SET.id == set_id).values(**values))

    def add_source(self, row: OnwardSource) -> None:
        """Remember whose messages stand behind changes of an onward copy."""
        put(self._connection, OnwardSource, row.model_dump())

    def sources(self, set_id: int, first_seq: int, last_seq: int) -> list[OnwardSource]:
        """The messages behind the changes in [first_seq, last_seq] of an onward copy, the newest first."""
        query = select(*SOURCE).where(
            SOURCE.set_id == set_id, SOURCE.last_seq >= first_seq, SOURCE.first_seq <= last_seq
        )
        found = self._connection.execute(query.order_by(SOURCE.last_seq.desc()))
        return [OnwardSource(**row._mapping) for row in found]

    def set_head(self, set_id: int, head: str, sealed_digest_key: bytes) -> None:
        """Keep the last verified feed head of a mirror."""
        values = {"head": head, "sealed_digest_key": sealed_digest_key}
        self._connection.execute(update(HashSet).where(HASH_SET.id == set_id).values(**values))

    def set_equality(self, set_id: int, word: str) -> None:
        """Keep what the last comparison with the hub said."""
        self._connection.execute(update(HashSet).where(HASH_SET.id == set_id).values(equality=word))

    def labels(self, set_id: int) -> list[LabelRow]:
        """The labels of a set, by number."""
        return [LabelRow(**row._mapping) for row in self._connection.execute(_LABELS, {"set_id": set_id})]

    def offered_labels(self, set_id: int) -> list[LabelRow]:
        """The labels under which entries were offered for a set, by number."""
        return [LabelRow(**row._mapping) for row in self._connection.execute(_OFFERED, {"set_id": set_id})]

    def add_offered_labels(self, rows: Sequence[LabelRow]) -> None:
        """Add such labels."""
        named = ("set_id", "number", "digest", "salt", "attributes")
        add_many(self._connection, OfferedLabel, [{name: getattr(row, name) for name in named} for row in rows])

    def put_labels(self, rows: Sequence[LabelRow]) -> None:
        """Add labels, or change what a mirror knows of them."""
        told = ("attributes", "groups", "obligations")
        put(self._connection, LabelTable, *(dict(row) for row in rows), changing=told)

    def drop_label(self, set_id: int, number: int) -> None:
        """Forget a mirror's label and its sums."""
        self._connection.execute(delete(LabelTable).where(LABEL.set_id == set_id, LABEL.number == number))
        self._connection.execute(delete(LabelSum).where(SUM.set_id == set_id, SUM.label == number))

    def sums(self, set_id: int) -> dict[tuple[int, int], bytes]:
        """(label, part) -> 24 bytes of count, low, high."""
        found = self._connection.execute(_SUMS, {"set_id": set_id})
        return {(label, part): bytes(value) for label, part, value in found}

    def put_sums(self, set_id: int, sums: Mapping[tuple[int, int], bytes]) -> None:
        """Write the sums given; others stay. Whoever keeps what he read of them sees it by the set's revision."""
        rows = [{"set_id": set_id, "label": at[0], "part": at[1], "value": value} for at, value in sums.items()]
        put(self._connection, LabelSum, *rows)
        if rows:
            self._connection.execute(_COUNT_REVISION, {"of_set": set_id})

    def put_view(self, set_id: int, partner: str, digest: str, content: str) -> None:
        """Remember a view that a partner was given, under its digest."""
        row = {"set_id": set_id, "partner": partner, "digest": digest, "content": content}
        add_new(self._connection, ViewRow, row)

    def view(self, set_id: int, partner: str, digest: str) -> str | None:
        """A view that this partner was given, or None: what others see must not be guessed by naming it."""
        asked = {"set_id": set_id, "partner": partner, "digest": digest}
        return self._connection.execute(_VIEW, asked).scalar()

    def put_follower(self, row: Follower, *, begins: bool = False) -> None:
        """Note how far a partner holds a set of ours.

        Args:
            begins: with its present cursor it begins to hold the set; otherwise `since` stays as it was.
        """
        changing = () if begins else ("epoch", "view", "seq", "at")
        put(self._connection, Follower, row.model_dump(), changing=changing)

    def follower(self, set_id: int, partner: str) -> Follower | None:
        """How far one partner is known to hold a set, or None."""
        row = self._connection.execute(_FOLLOWER, {"set_id": set_id, "partner": partner}).one_or_none()
        return None if row is None else Follower(**row._mapping)

    def followers(self, set_id: int) -> list[Follower]:
        """Partners that are known to hold something of a set."""
        rows = self._connection.execute(_FOLLOWERS, {"set_id": set_id})
        return [Follower(**row._mapping) for row in rows]

    def set_horizon(self, set_id: int, seq: int) -> None:
        """Note that history up to a seq is no longer whole."""
        self._connection.execute(update(HashSet).where(HASH_SET.id == set_id).values(horizon=seq))

    def head(self, set_id: int, partner: str) -> FeedHeadRow | None:
        """The feed head last issued to a partner, or None."""
        row = self._connection.execute(_HEAD, {"set_id": set_id, "partner": partner}).one_or_none()
        return None if row is None else FeedHeadRow(**row._mapping)

    def head_content(self, set_id: int, partner: str) -> str | None:
        """What the feed head last issued to a partner says, without its sealed bytes; None without one."""
        return self._connection.execute(_HEAD_CONTENT, {"set_id": set_id, "partner": partner}).scalar()

    def put_head(self, row: FeedHeadRow) -> None:
        """Keep the feed head issued to a partner."""
        put(self._connection, FeedHeadRow, row.model_dump())

    def drop_heads(self, partners: Iterable[str]) -> None:
        """Forget the heads issued to partners, so that the next poll makes new ones."""
        self._connection.execute(delete(FeedHeadRow).where(HEAD.partner.in_(list(partners))))
