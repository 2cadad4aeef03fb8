"""Who may use the console, and who is signed in."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from gateway.store.consoletables import ConsoleInvitation, ConsolePasskey, ConsolePerson, ConsoleSession
from gateway.store.tables import columns
from gateway.store.upserts import put

INVITATION = columns(ConsoleInvitation)
PASSKEY = columns(ConsolePasskey)
PERSON = columns(ConsolePerson)
SESSION = columns(ConsoleSession)


class Console:
    """People, their passkeys, invitations and sessions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put_person(self, row: ConsolePerson) -> None:
        """Add somebody, or change their roles."""
        put(self._connection, ConsolePerson, row.model_dump())

    def person(self, name: str) -> ConsolePerson | None:
        """Somebody by name."""
        row = self._connection.execute(select(*PERSON).where(PERSON.name == name)).one_or_none()
        return None if row is None else ConsolePerson(**row._mapping)

    def people(self) -> list[ConsolePerson]:
        """Everybody, by name."""
        rows = self._connection.execute(select(*PERSON).order_by(PERSON.name))
        return [ConsolePerson(**row._mapping) for row in rows]

    def add_passkey(self, row: ConsolePasskey) -> None:
        """Keep a new passkey."""
        self._connection.execute(insert(ConsolePasskey), [row.model_dump()])

    def passkeys(self, person: str) -> list[ConsolePasskey]:
        """The passkeys of somebody, oldest first."""
        query = select(*PASSKEY).where(PASSKEY.person == person).order_by(PASSKEY.added, PASSKEY.credential)
        return [ConsolePasskey(**row._mapping) for row in self._connection.execute(query)]

    def passkey(self, credential: str) -> ConsolePasskey | None:
        """A passkey by its credential."""
        row = self._connection.execute(select(*PASSKEY).where(PASSKEY.credential == credential)).one_or_none()
        return None if row is None else ConsolePasskey(**row._mapping)

    def use_passkey(self, credential: str, now: int) -> None:
        """Note when a passkey was last used."""
        self._connection.execute(update(ConsolePasskey).where(PASSKEY.credential == credential).values(used=now))

    def drop_passkey(self, credential: str) -> None:
        """Forget a passkey."""
        self._connection.execute(delete(ConsolePasskey).where(PASSKEY.credential == credential))

    def invite(self, row: ConsoleInvitation) -> None:
        """Keep an invitation, in place of an earlier one for the same person."""
        self._connection.execute(delete(ConsoleInvitation).where(INVITATION.person == row.person))
        self._connection.execute(insert(ConsoleInvitation), [row.model_dump()])

    def invitation(self, digest: bytes) -> ConsoleInvitation | None:
        """The invitation of a token."""
        row = self._connection.execute(select(*INVITATION).where(INVITATION.digest == digest)).one_or_none()
        return None if row is None else ConsoleInvitation(**row._mapping)

    def invitations(self) -> list[ConsoleInvitation]:
        """Those that wait, by name."""
        rows = self._connection.execute(select(*INVITATION).order_by(INVITATION.person))
        return [ConsoleInvitation(**row._mapping) for row in rows]

    def uninvite(self, person: str) -> bool:
        """Forget what invites somebody; False where nothing did."""
        return self._connection.execute(delete(ConsoleInvitation).where(INVITATION.person == person)).rowcount > 0

    def take_up(self, digest: bytes) -> bool:
        """Use up an invitation; False when somebody else has."""
        found = self._connection.execute(delete(ConsoleInvitation).where(INVITATION.digest == digest))
        return found.rowcount == 1

    def put_session(self, row: ConsoleSession) -> None:
        """Begin a session, or note its use."""
        put(self._connection, ConsoleSession, row.model_dump())

    def session(self, digest: bytes) -> ConsoleSession | None:
        """The session of a cookie."""
        row = self._connection.execute(select(*SESSION).where(SESSION.digest == digest)).one_or_none()
        return None if row is None else ConsoleSession(**row._mapping)

    def sessions(self, person: str | None = None) -> list[ConsoleSession]:
        """The sessions of somebody or of everybody, the latest used first."""
        query = select(*SESSION).order_by(SESSION.used.desc(), SESSION.id)
        if person is not None:
            query = query.where(SESSION.person == person)
        return [ConsoleSession(**row._mapping) for row in self._connection.execute(query)]

    def end_session(self, digest: bytes) -> bool:
        """End a session; False when it has ended."""
        return self._connection.execute(delete(ConsoleSession).where(SESSION.digest == digest)).rowcount == 1

    def purge(self, idle_before: int, created_before: int, now: int) -> list[ConsoleSession]:
        """Remove sessions that have run out, which are returned, and invitations that have."""
        over = (SESSION.used <= idle_before) | (SESSION.created <= created_before)
        ended = [ConsoleSession(**row._mapping) for row in self._connection.execute(select(*SESSION).where(over))]
        self._connection.execute(delete(ConsoleSession).where(over))
        self._connection.execute(delete(ConsoleInvitation).where(INVITATION.expires <= now))
        return ended
