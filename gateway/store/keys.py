"""Keys: our own through their lives, partners' signing keys, our cards and statements, and who has seen which."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from gateway.errors import NotFoundError
from gateway.store.tables import KeySeen, KeyStatement, OwnCard, OwnKey, PartnerKey, PartnerRestore, columns
from gateway.store.upserts import put

OWN = columns(OwnKey)
CARD = columns(OwnCard)
STATEMENT = columns(KeyStatement)
PARTNER_KEY = columns(PartnerKey)
RESTORE = columns(PartnerRestore)
SEEN = columns(KeySeen)


class Keys:
    """The public side of every key; private halves are the keystore's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # Ours

    def own(self, purpose: str | None = None) -> list[OwnKey]:
        """Our keys, oldest first."""
        query = select(*OWN).order_by(OWN.purpose.desc(), OWN.created, OWN.number, OWN.key_id)
        if purpose is not None:
            query = query.where(OWN.purpose == purpose)
        return [OwnKey(**row._mapping) for row in self._connection.execute(query)]

    def own_key(self, key_id: str) -> OwnKey:
        """The own key whose id starts with `key_id` (at least eight characters, one match)."""
        query = select(*OWN).where(OWN.key_id.startswith(key_id, autoescape=True)).limit(2)
        rows = self._connection.execute(query).all()
        if len(rows) != 1 or len(key_id) < 8:
            raise NotFoundError("no such key", remedy="`gateway key list` names them")
        return OwnKey(**rows[0]._mapping)

    def put_own(self, row: OwnKey) -> None:
        """Keep one of our keys as it stands now."""
        put(self._connection, OwnKey, row.model_dump())

    def card(self) -> OwnCard | None:
        """The newest card that we handed out."""
        row = self._connection.execute(select(*CARD).order_by(CARD.number.desc()).limit(1)).one_or_none()
        return None if row is None else OwnCard(**row._mapping)

    def card_by_digest(self, digest: str) -> OwnCard | None:
        """The card with this SHA-256 (hex), None if it never was ours."""
        row = self._connection.execute(select(*CARD).where(CARD.digest == digest)).first()
        return None if row is None else OwnCard(**row._mapping)

    def card_number(self, number: int) -> OwnCard | None:
        """The card of a number."""
        row = self._connection.execute(select(*CARD).where(CARD.number == number)).one_or_none()
        return None if row is None else OwnCard(**row._mapping)

    def add_card(self, row: OwnCard) -> None:
        """Keep a card that is handed out from now on."""
        self._connection.execute(insert(OwnCard), [row.model_dump()])

    def statements(self) -> list[KeyStatement]:
        """All that we ever said of our signing keys and our log, in order."""
        rows = self._connection.execute(select(*STATEMENT).order_by(STATEMENT.id))
        return [KeyStatement(**row._mapping) for row in rows]

    def add_statement(self, kind: str, number: int, statement: bytes, now: int) -> None:
        """Append a succession, a revocation or a restore."""
        row = {"kind": kind, "number": number, "statement": statement, "created": now}
        self._connection.execute(insert(KeyStatement), [row])

    # Who has seen it

    def seen(self) -> dict[str, KeySeen]:
        """The card that each partner last said it holds."""
        rows = self._connection.execute(select(*SEEN))
        return {row.partner: KeySeen(**row._mapping) for row in rows}

    def note_seen(self, row: KeySeen) -> None:
        """Note which card, signing key and revocations a partner knows."""
        put(self._connection, KeySeen, row.model_dump())

    def forget_seen(self, partner: str) -> None:
        """A partner that is removed holds nothing of ours any more."""
        self._connection.execute(delete(KeySeen).where(SEEN.partner == partner))

    # Partners'

    def of_partner(self, agency: str) -> list[PartnerKey]:
        """A partner's signing keys, newest number first."""
        query = select(*PARTNER_KEY).where(PARTNER_KEY.agency == agency)
        rows = self._connection.execute(query.order_by(PARTNER_KEY.number.desc(), PARTNER_KEY.accepted.desc()))
        return [PartnerKey(**row._mapping) for row in rows]

    def put_partner_key(self, row: PartnerKey) -> None:
        """Keep a partner's key as it stands now."""
        put(self._connection, PartnerKey, row.model_dump())

    def restores(self, agency: str) -> list[PartnerRestore]:
        """The restore statements taken of a partner, oldest first."""
        query = select(*RESTORE).where(RESTORE.agency == agency)
        rows = self._connection.execute(query.order_by(RESTORE.accepted, RESTORE.number))
        return [PartnerRestore(**row._mapping) for row in rows]

    def add_restore(self, row: PartnerRestore) -> None:
        """Keep a restore statement that was taken."""
        self._connection.execute(insert(PartnerRestore), [row.model_dump()])
