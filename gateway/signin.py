"""Who uses the console: invitations, passkeys, sessions.

Rules:

1. People come by invitation: from the command line, or from an administrator who is signed in. An invitation is a link
   that works once, for a day. Whoever takes it up registers a passkey; there are no passwords.
2. Roles: an analyst works on cases, an administrator on partners, keys and policy, an auditor reads the log. The role
   of an administrator counts only as long as `standing` says that they are one, under the same name.
3. A session is a random cookie, kept as its SHA-256. It ends 15 minutes after its last use, 12 hours after its
   beginning, and at once when it, its passkey or its person is ended. What is guarded wants a proof not older than
   five minutes that it still is the same person (step-up).
4. A challenge says what it is for and whom, and until when; it carries a MAC, and is used once.
5. Every row carries a MAC under a key of the keystore, and people and passkeys count as the log has them: whoever
   writes the database signs nobody in, also by putting back what was there before.
6. Signing in, signing out, running out, and every refusal stand in the log. Strangers fill it with no more than a few
   refusals a minute.

That a passkey signs statements for an administrator is another matter (`passkeyacts`): signing in proves who looks, not
that four eyes agree.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from gateway.audit import EventKind
from gateway.crypto import passkeys
from gateway.crypto.passkeys import Assertion, Passkey, RelyingParty, from_base64url, to_base64url
from gateway.errors import (
    AuditBrokenError,
    ConfigError,
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    NotFoundError,
    UnauthenticatedError,
)
from gateway.keyadmin import check_administrator_name
from gateway.node import Node
from gateway.partners import length_prefixed
from gateway.proposals import SigningPasskey
from gateway.recording import RecordingBound
from gateway.standing import ConsoleWord, at_console, roster
from gateway.store import Transaction
from gateway.store.consoletables import ConsoleInvitation, ConsolePasskey, ConsolePerson, ConsoleSession

IDLE_SECONDS = 15 * 60
SESSION_SECONDS = 12 * 3600  # a long shift
STEP_UP_SECONDS = 5 * 60
INVITATION_SECONDS = 86_400
CHALLENGE_SECONDS = 180  # to find the key, and type a PIN
USED_SECONDS = 20  # how exactly the last use of a session is noted: not a write for every request
TOKEN_BYTES = 32
MAX_PASSKEYS = 8
MAX_SESSIONS = 16  # of one person
MAX_LABEL_CHARS = 64
MAX_AGENT_CHARS = 200
MAX_RECORDED_PER_ADDRESS = 5  # refusals a minute that the log keeps
MAX_RECORDED = 60
NO_SESSION = "nobody is signed in here"
_VERSION = b"console challenge 1"
_MAC_BYTES = 32


class Role(StrEnum):
    """What somebody may see and do."""

    ANALYST = "analyst"
    ADMINISTRATOR = "administrator"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in. `id` names the session to people; `form_token` proves that a form came from it."""

    id: str
    person: str
    roles: frozenset[Role]
    form_token: str
    key_id: str
    created: int
    used: int
    stepped_up: int
    peer: str
    agent: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that has just begun, and the cookie by which it is known."""

    cookie: str
    session: Session


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation as whoever opens it sees it."""

    person: str
    roles: frozenset[Role]
    by: str
    expires: int


@dataclass(frozen=True, slots=True)
class KnownPasskey:
    """A passkey of somebody. Times are Unix seconds."""

    key_id: str
    label: str
    added: int
    used: int


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """Somebody who may use the console; `passkeys` are theirs, `roles` those that count now."""

    name: str
    roles: frozenset[Role]
    added: int
    passkeys: tuple[KnownPasskey, ...]


class StepUpNeededError(DeniedError):
    """The person must prove again that it is they."""

    def __init__(self) -> None:
        super().__init__("this needs your passkey once more", remedy="confirm it, then try again")


class SignIn:
    """People, passkeys and sessions of one gateway's console."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._recording = RecordingBound(MAX_RECORDED_PER_ADDRESS, MAX_RECORDED)

    @property
    def party(self) -> RelyingParty:
        """The console's host name and origin. ConfigError without a console."""
        url = self._node.settings.console_url
        if not url:
            raise ConfigError("there is no console", place="console_url", remedy="say in the settings where it answers")
        return RelyingParty(urlsplit(url).hostname or "", url)

    # People

    def invite(self, name: str, roles: Collection[Role], *, by: str) -> str:
        """A token that lets somebody register a passkey once; from then on their roles are these.

        Args:
            by: the administrator who invites; the door has made sure that it is they.

        Raises:
            MalformedError: no lawful name, or no role.
            DeniedError: `by` is no administrator, or the role of an administrator is for somebody who is none.
            ConflictError: somebody of this name has a passkey here already.
        """
        check_administrator_name(name)
        if not roles:
            raise MalformedError("an invitation without a role")
        token = self._node.random.bytes(TOKEN_BYTES)
        now = self._node.clock()
        row = ConsoleInvitation(
            digest=hashlib.sha256(token).digest(),
            person=name,
            roles=" ".join(sorted(roles)),
            by=by,
            expires=now + INVITATION_SECONDS,
        )
        row.mac = self._mac("invitation", row.digest.hex(), row.person, row.roles, row.by, str(row.expires))
        with self._node.store.transaction() as tx:
            people = roster(tx, self._node).administrators
            if by not in people:
                raise DeniedError("only an administrator invites", remedy="`gateway admin list` names them")
            if Role.ADMINISTRATOR in roles and name not in people:
                raise DeniedError(
                    "the role of an administrator is for administrators, by the same name",
                    remedy=f"first `gateway admin add {name}`",
                )
            self._check_new(tx, name)
            tx.console.invite(row)
            self._changed(tx, by, name, "invited", roles=row.roles, expires=row.expires)
        return to_base64url(token)

    def invitation(self, token: str) -> Invitation:
        """What a token invites to. NotFoundError: it never did, has run out or was used."""
        with self._node.store.reading() as tx:
            row = self._invitation(tx, token)
        return Invitation(row.person, _roles(row.roles), row.by, row.expires)

    def people(self) -> list[KnownPerson]:
        """Everybody who may use the console."""
        with self._node.store.reading() as tx:
            return [
                KnownPerson(
                    row.name,
                    self._counting(tx, row),
                    row.added,
                    tuple(_known(one) for one in tx.console.passkeys(row.name) if self._fits_passkey(one)),
                )
                for row in tx.console.people()
                if row.roles and self._fits_person(row)
            ]

    def waiting(self) -> list[Invitation]:
        """Invitations that nobody has taken up yet."""
        now = self._node.clock()
        with self._node.store.reading() as tx:
            rows = [row for row in tx.console.invitations() if row.expires > now and self._fits_invitation(row)]
        return [Invitation(row.person, _roles(row.roles), row.by, row.expires) for row in rows]

    def end_person(self, name: str, *, by: str) -> None:
        """Somebody may use the console no more: sessions end with it, passkeys and what invites them are forgotten."""
        with self._node.store.transaction() as tx:
            if tx.console.uninvite(name):
                self._changed(tx, by, name, "uninvited")
                found = tx.console.person(name)
                if found is None or not found.roles:
                    return  # nobody had come in by that name
            row = self._person(tx, name)
            row.roles = ""
            self._put_person(tx, row)
            for passkey in tx.console.passkeys(name):
                tx.console.drop_passkey(passkey.credential)
            self._changed(tx, by, name, "ended")
            self._end_all(tx, tx.console.sessions(name), by, "the person may use the console no more")

    # Registering a passkey

    def begin_registration(self, token: str) -> dict[str, object]:
        """What the browser needs to make the passkey of an invitation."""
        with self._node.store.reading() as tx:
            person = self._invitation(tx, token).person
            known = [from_base64url(one.credential) for one in tx.console.passkeys(person)]
        return passkeys.creation_options(self.party, self._challenge("register", person), user=person, known=known)

    def accept(self, token: str, label: str, response: object, *, peer: str, agent: str) -> Begun:
        """Take up an invitation with the passkey that the browser made; the person is signed in from then on.

        Raises:
            NotFoundError: as `invitation`.
            MalformedError, VerificationError: what the browser sent is no passkey of this page.
            ConflictError: the passkey is registered already, or there are too many.
        """
        with self._node.store.reading() as tx:
            person = self._invitation(tx, token).person
        try:
            passkey = self._created(person, response)
            with self._node.store.transaction() as tx:
                invitation = self._invitation(tx, token)
                if not tx.console.take_up(invitation.digest):
                    raise NotFoundError("this invitation was used")
                row = self._taken_up(tx, invitation)
                self._keep_passkey(tx, row.name, label, passkey)
                return self._begin(tx, row, passkey.key_id, peer, agent)
        except GatewayError as error:
            self._refused(person, error, peer)
            raise

    def begin_passkey(self, session: Session) -> dict[str, object]:
        """What the browser needs to make a further passkey for whoever is signed in."""
        with self._node.store.reading() as tx:
            known = [from_base64url(one.credential) for one in tx.console.passkeys(session.person)]
        challenge = self._challenge("register", session.person)
        return passkeys.creation_options(self.party, challenge, user=session.person, known=known)

    def add_passkey(self, session: Session, label: str, response: object) -> None:
        """Register a further passkey. The session must be stepped up."""
        self.check_stepped_up(session)
        passkey = self._created(session.person, response)
        with self._node.store.transaction() as tx:
            self._person(tx, session.person)
            self._keep_passkey(tx, session.person, label, passkey)

    def drop_passkey(self, session: Session, key_id: str) -> None:
        """Forget a passkey of one's own, with the sessions that it began; the last one stays."""
        self.check_stepped_up(session)
        with self._node.store.transaction() as tx:
            own = tx.console.passkeys(session.person)
            gone = [one for one in own if _passkey(one).key_id == key_id]
            if not gone:
                raise NotFoundError("no such passkey")
            if len(own) == 1:
                raise ConflictError("this is the only passkey", remedy="register another one first")
            tx.console.drop_passkey(gone[0].credential)
            self._changed(tx, session.person, session.person, "passkey removed", key_id=key_id)
            begun = [one for one in tx.console.sessions(session.person) if one.key_id == key_id]
            self._end_all(tx, begun, session.person, "its passkey was removed")

    def signing_passkey(self, session: Session) -> SigningPasskey:
        """The passkey of this session, as administrators would add it to sign for its person."""
        with self._node.store.reading() as tx:
            for row in tx.console.passkeys(session.person):
                if self._fits_passkey(row) and _passkey(row).key_id == session.key_id:
                    return SigningPasskey(_passkey(row), RelyingParty(self.party.id, row.origin))
        raise NotFoundError("the passkey of this session is not there any more")

    # Signing in

    def begin(self) -> dict[str, object]:
        """What the browser needs to sign somebody in: any passkey of this console will do."""
        return passkeys.request_options(self.party, self._challenge("sign in", ""), allowed=[])

    def sign_in(self, response: object, *, peer: str, agent: str) -> Begun:
        """A session for whoever's passkey signed the challenge.

        Raises:
            UnauthenticatedError: nobody's did; the cause is for the log.
        """
        person = ""
        try:
            assertion = passkeys.parse_assertion(response)
            with self._node.store.reading() as tx:
                row = tx.console.passkey(to_base64url(assertion.credential))
            if row is None or not self._fits_passkey(row):
                raise NotFoundError("an unknown passkey")
            person = row.person
            with self._node.store.reading() as tx:
                if _passkey(row).key_id not in at_console(tx, self._node, person).key_ids:
                    raise NotFoundError("a passkey that was removed")
            self._verify("sign in", "", assertion, _passkey(row))
            with self._node.store.transaction() as tx:
                tx.console.use_passkey(row.credential, self._node.clock())
                return self._begin(tx, self._person(tx, row.person), _passkey(row).key_id, peer, agent)
        except AuditBrokenError:
            raise
        except GatewayError as error:
            self._refused(person, error, peer)
            raise UnauthenticatedError("this passkey signs nobody in here") from error

    def begin_step_up(self, session: Session) -> dict[str, object]:
        """What the browser needs to prove that it still is the same person."""
        allowed = [self._own_credential(session)]
        return passkeys.request_options(self.party, self._challenge("step up", session.person), allowed=allowed)

    def step_up(self, session: Session, response: object) -> None:
        """From now on, for a while, this session may do what is guarded.

        Raises:
            UnauthenticatedError: the passkey of the session did not sign the challenge.
        """
        try:
            assertion = passkeys.parse_assertion(response)
            with self._node.store.reading() as tx:
                row = tx.console.passkey(to_base64url(self._own_credential(session)))
            if row is None or not self._fits_passkey(row) or row.person != session.person:
                raise NotFoundError("an unknown passkey")
            self._verify("step up", session.person, assertion, _passkey(row))
        except GatewayError as error:
            self._refused(session.person, error, session.peer)
            raise UnauthenticatedError("this is not the passkey of this session") from error
        with self._node.store.transaction() as tx:
            held = tx.console.session(session.digest)
            if held is None:
                raise UnauthenticatedError(NO_SESSION)
            held.stepped_up = held.used = self._node.clock()
            self._put_session(tx, held)
            self._session_event(tx, held, "stepped up")

    def check_stepped_up(self, session: Session) -> None:
        """Returns where the session was stepped up lately. StepUpNeededError: it was not."""
        if not 0 <= self._node.clock() - session.stepped_up < STEP_UP_SECONDS:
            raise StepUpNeededError

    # Sessions

    def session(self, cookie: str, *, quiet: bool = False) -> Session:
        """The session of a cookie, whose use is noted unless `quiet`.

        Raises:
            UnauthenticatedError: there is none, or it has ended.
        """
        try:
            digest = hashlib.sha256(from_base64url(cookie)).digest()
        except MalformedError as error:
            raise UnauthenticatedError(NO_SESSION) from error
        now = self._node.clock()
        with self._node.store.reading() as tx:
            row = tx.console.session(digest)
            person = tx.console.person(row.person) if row else None
            roles = self._counting(tx, person) if person and self._fits_person(person) else frozenset()
            word = self._log_says(tx, row.person) if row else None
        if row is None or not hmac.compare_digest(row.mac, self._session_mac(row)) or not roles:
            raise UnauthenticatedError(NO_SESSION)
        if word is not None and row.key_id not in word.key_ids:
            raise UnauthenticatedError(NO_SESSION)  # its passkey was removed
        if not _lives(row, now):
            self._run_out()
            raise UnauthenticatedError(NO_SESSION)
        if not quiet and now - row.used >= USED_SECONDS:
            row.used = now
            with self._node.store.transaction() as tx:
                if tx.console.session(digest) is None:
                    raise UnauthenticatedError(NO_SESSION)  # it was ended meanwhile, and is not begun again
                self._put_session(tx, row)
        return self._shown(row, roles)

    def sessions(self, person: str | None = None) -> list[Session]:
        """The sessions of somebody, or of everybody, that have not ended."""
        self._run_out()
        now = self._node.clock()
        with self._node.store.reading() as tx:
            rows = [row for row in tx.console.sessions(person) if _lives(row, now)]
            people = {row.name: row for row in tx.console.people()}
            return [self._shown(row, self._counting(tx, people[row.person])) for row in rows if row.person in people]

    def end_session(self, identifier: str, *, by: str, person: str | None = None) -> None:
        """End a session by the name that people call it by.

        Args:
            person: where only a session of theirs may be ended.
        """
        with self._node.store.transaction() as tx:
            found = [row for row in tx.console.sessions(person) if row.id == identifier]
            if not found:
                raise NotFoundError("no such session")
            self._end_all(tx, found, by, "signed out" if found[0].person == by else "ended by an administrator")

    def sign_out(self, session: Session) -> None:
        """End this session."""
        self.end_session(session.id, by=session.person, person=session.person)

    # What it is made of

    def _begin(self, tx: Transaction, person: ConsolePerson, key_id: str, peer: str, agent: str) -> Begun:
        roles = self._counting(tx, person)
        if not roles:
            raise UnauthenticatedError("this person may not use the console")
        held = tx.console.sessions(person.name)
        self._end_all(tx, held[MAX_SESSIONS - 1 :], person.name, "too many sessions at once")
        token, now = self._node.random.bytes(TOKEN_BYTES), self._node.clock()
        row = ConsoleSession(
            digest=hashlib.sha256(token).digest(),
            id=self._node.random.bytes(8).hex(),
            person=person.name,
            key_id=key_id,
            created=now,
            used=now,
            stepped_up=now,
            peer=peer[:MAX_LABEL_CHARS],
            agent=_printable(agent, MAX_AGENT_CHARS),
        )
        self._put_session(tx, row)
        self._session_event(tx, row, "signed in")
        return Begun(to_base64url(token), self._shown(row, roles))

    def _shown(self, row: ConsoleSession, roles: frozenset[Role]) -> Session:
        form_token = self._mac("form", row.digest.hex()).hex()
        return Session(
            row.id, row.person, roles, form_token, row.key_id, row.created, row.used, row.stepped_up, row.peer,
            row.agent, row.digest,
        )  # fmt: skip

    def _run_out(self) -> None:
        now = self._node.clock()
        with self._node.store.transaction() as tx:
            ended = tx.console.purge(now - IDLE_SECONDS, now - SESSION_SECONDS, now)
            for row in ended:
                self._session_event(tx, row, "ended", reason="not used for too long, or open for too long")

    def _end_all(self, tx: Transaction, rows: list[ConsoleSession], by: str, reason: str) -> None:
        for row in rows:
            if tx.console.end_session(row.digest):
                self._session_event(tx, row, "ended", actor=by, reason=reason)

    def _taken_up(self, tx: Transaction, invitation: ConsoleInvitation) -> ConsolePerson:
        self._check_new(tx, invitation.person)
        row = tx.console.person(invitation.person)
        if row is not None and not self._fits_person(row):
            raise _broken(invitation.person)
        if row is None:
            row = ConsolePerson(name=invitation.person, roles="", added=self._node.clock())
        row.roles = invitation.roles
        self._put_person(tx, row)
        self._changed(tx, row.name, row.name, "joined", roles=row.roles)
        return row

    def _check_new(self, tx: Transaction, name: str) -> None:
        """Returns where nobody uses the console by this name: else one administrator could come in as another."""
        if tx.console.passkeys(name):
            raise ConflictError(
                "somebody of this name has a passkey here already",
                remedy="they register further ones themselves; who has lost theirs is ended first, then invited",
            )

    def _keep_passkey(self, tx: Transaction, person: str, label: str, passkey: Passkey) -> None:
        credential = to_base64url(passkey.credential)
        if tx.console.passkey(credential) is not None:
            raise ConflictError("this passkey is registered already")
        if len(tx.console.passkeys(person)) >= MAX_PASSKEYS:
            raise ConflictError(f"there are {MAX_PASSKEYS} passkeys", remedy="remove one first")
        row = ConsolePasskey(
            credential=credential,
            person=person,
            key=passkey.key,
            label=_printable(label, MAX_LABEL_CHARS) or "passkey",
            origin=self.party.origin,
            added=self._node.clock(),
        )
        row.mac = self._passkey_mac(row)
        tx.console.add_passkey(row)
        self._changed(tx, person, person, "passkey added", key_id=passkey.key_id)

    def _counting(self, tx: Transaction, person: ConsolePerson) -> frozenset[Role]:
        """The roles that count now.

        Raises:
            AuditBrokenError: the log has other ones for this person, or is broken, and they are no auditor.
        """
        roles = _roles(person.roles)
        word = self._log_says(tx, person.name)
        if word is None:
            if Role.AUDITOR not in roles:
                raise _broken(person.name)
            return frozenset({Role.AUDITOR})  # who must be able to see what is broken, and changes nothing
        if roles != _roles(word.roles):
            raise _broken(person.name)
        if Role.ADMINISTRATOR in roles and person.name not in roster(tx, self._node).administrators:
            roles -= {Role.ADMINISTRATOR}
        return roles

    def _log_says(self, tx: Transaction, name: str) -> ConsoleWord | None:
        """What the log says of somebody; None where the log itself is broken."""
        try:
            return at_console(tx, self._node, name)
        except AuditBrokenError:
            return None

    def _person(self, tx: Transaction, name: str) -> ConsolePerson:
        row = tx.console.person(name)
        if row is None or not row.roles:
            raise NotFoundError("nobody of this name may use the console")
        if not self._fits_person(row):
            raise _broken(name)
        return row

    def _invitation(self, tx: Transaction, token: str) -> ConsoleInvitation:
        gone = NotFoundError("this invitation was used, has run out, or never was", remedy="ask for another one")
        try:
            row = tx.console.invitation(hashlib.sha256(from_base64url(token)).digest())
        except MalformedError as error:
            raise gone from error
        if row is None or row.expires <= self._node.clock() or not self._fits_invitation(row):
            raise gone
        if row.by not in roster(tx, self._node).administrators:
            raise gone  # with the office of whoever invited ends what they invited to
        return row

    def _own_credential(self, session: Session) -> bytes:
        return self.signing_passkey(session).passkey.credential

    # Challenges

    def _challenge(self, use: str, person: str) -> bytes:
        """random 16 ‖ expires 8 ‖ MAC 32 over both, the use and the person."""
        head = self._node.random.bytes(16) + (self._node.clock() + CHALLENGE_SECONDS).to_bytes(8, "big")
        return head + self._challenge_mac(head, use, person)

    def _challenge_mac(self, head: bytes, use: str, person: str) -> bytes:
        return self._node.keystore.row_mac(_VERSION + length_prefixed(head.hex(), use, person))

    def _used_challenge(self, use: str, person: str, client_data: bytes) -> bytes:
        """The challenge that was signed, if it is one of ours for this use, still good, and used for the first time."""
        challenge = passkeys.challenge_in(client_data)
        head, mac = challenge[:24], challenge[24:]
        if len(mac) != _MAC_BYTES or not hmac.compare_digest(mac, self._challenge_mac(head, use, person)):
            raise UnauthenticatedError("a challenge that was not given for this")
        expires = int.from_bytes(head[16:], "big")
        if expires <= self._node.clock():
            raise UnauthenticatedError("the challenge has run out")
        with self._node.store.transaction() as tx:
            if not tx.tokens.remember(hashlib.sha256(challenge).digest(), expires):
                raise UnauthenticatedError("the challenge was used before")
        return challenge

    def _created(self, person: str, response: object) -> Passkey:
        challenge = self._used_challenge("register", person, passkeys.client_data_in(response))
        return passkeys.verify_creation(self.party, challenge, response)

    def _verify(self, use: str, person: str, assertion: Assertion, passkey: Passkey) -> None:
        challenge = self._used_challenge(use, person, assertion.client_data)
        passkeys.verify_assertion(self.party, challenge, assertion, passkey)

    # Rows

    def _mac(self, kind: str, *words: str) -> bytes:
        return self._node.keystore.row_mac(length_prefixed(f"console {kind} 1", *words))

    def _put_person(self, tx: Transaction, row: ConsolePerson) -> None:
        row.mac = self._person_mac(row)
        tx.console.put_person(row)

    def _put_session(self, tx: Transaction, row: ConsoleSession) -> None:
        row.mac = self._session_mac(row)
        tx.console.put_session(row)

    def _person_mac(self, row: ConsolePerson) -> bytes:
        return self._mac("person", row.name, row.roles, str(row.added))

    def _fits_person(self, row: ConsolePerson) -> bool:
        return hmac.compare_digest(row.mac, self._person_mac(row))

    def _passkey_mac(self, row: ConsolePasskey) -> bytes:
        return self._mac("passkey", row.credential, row.person, row.key.hex(), row.label, row.origin, str(row.added))

    def _fits_passkey(self, row: ConsolePasskey) -> bool:
        return hmac.compare_digest(row.mac, self._passkey_mac(row))

    def _session_mac(self, row: ConsoleSession) -> bytes:
        times = (str(row.created), str(row.used), str(row.stepped_up))
        return self._mac("session", row.digest.hex(), row.id, row.person, row.key_id, *times, row.peer, row.agent)

    def _fits_invitation(self, row: ConsoleInvitation) -> bool:
        mac = self._mac("invitation", row.digest.hex(), row.person, row.roles, row.by, str(row.expires))
        return hmac.compare_digest(row.mac, mac)

    # The log

    def _changed(self, tx: Transaction, by: str, person: str, deed: str, **more: object) -> None:
        details: dict[str, object] = {"person": person, "deed": deed, **more}
        tx.log.append([self._node.event(EventKind.CONSOLE_CHANGED, actor=by, subject=person, details=details)])

    def _session_event(
        self, tx: Transaction, row: ConsoleSession, deed: str, *, actor: str = "", reason: str = ""
    ) -> None:
        details: dict[str, object] = {"session": row.id, "deed": deed, "key_id": row.key_id}
        if reason:
            details["reason"] = reason
        who = actor or row.person
        tx.log.append([self._node.event(EventKind.CONSOLE_SESSION, actor=who, subject=row.person, details=details)])

    def _refused(self, person: str, error: GatewayError, peer: str) -> None:
        self.record_refusal(person, error.message, peer)

    def record_refusal(self, person: str, reason: str, peer: str) -> None:
        """Put a refusal into the log. `person`: whose passkey or session it was, "" where nobody's."""
        count = self._recording.count(peer, self._node.clock())
        if count is None:
            return
        details: dict[str, object] = {"person": person, "reason": reason, "count": count}
        event = self._node.event(
            EventKind.CONSOLE_REFUSED, actor=person or self._node.agency, subject=person, details=details
        )
        with self._node.store.transaction() as tx:
            tx.log.append([event])


def _lives(row: ConsoleSession, now: int) -> bool:
    return now - row.used < IDLE_SECONDS and now - row.created < SESSION_SECONDS


def _roles(text: str) -> frozenset[Role]:
    return frozenset(Role(word) for word in text.split())


def _passkey(row: ConsolePasskey) -> Passkey:
    return Passkey(from_base64url(row.credential), row.key)


def _known(row: ConsolePasskey) -> KnownPasskey:
    return KnownPasskey(_passkey(row).key_id, row.label, row.added, row.used)


def _printable(text: str, most: int) -> str:
    return "".join(char for char in text if char.isprintable()).strip()[:most]


def _broken(name: str) -> AuditBrokenError:
    error = AuditBrokenError("a row of the console was not written by this gateway", place=name)
    error.remedy = "stop the gateway, keep everything as it is, and run `gateway audit verify`"
    return error
