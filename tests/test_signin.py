"""Who uses the console: invitations, passkeys, sessions; and whoever would come in without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import SQLModel

from authenticator import ORIGIN, Authenticator, challenge_in
from console_browser import personal
from factory import FakeClock, events, make_node
from gateway.approvals import DONE, Approvals
from gateway.audit import EventKind
from gateway.crypto import passkeys
from gateway.errors import (
    AuditBrokenError,
    ConflictError,
    DeniedError,
    GatewayError,
    NotFoundError,
    UnauthenticatedError,
)
from gateway.keyadmin import add_administrator, approvals, bootstrap_administrator, remove_administrator, set_quorum
from gateway.node import Node
from gateway.passkeyacts import add_passkey, remove_passkey
from gateway.signin import (
    CHALLENGE_SECONDS,
    IDLE_SECONDS,
    INVITATION_SECONDS,
    MAX_SESSIONS,
    SESSION_SECONDS,
    STEP_UP_SECONDS,
    Begun,
    Role,
    SignIn,
)
from gateway.standing import roster
from gateway.store.consoletables import ConsolePasskey


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock) -> Node:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, quorum=2, console_url=ORIGIN)
    for name in ("alice", "bob"):
        bootstrap_administrator(node, name, personal(name).signing_key.public)
    return node


@pytest.fixture
def signin(node: Node) -> SignIn:
    return SignIn(node)


def join(signin: SignIn, name: str, *roles: Role) -> tuple[Authenticator, Begun]:
    token = signin.invite(name, roles or (Role.ANALYST,), by="alice")
    return accept(signin, token, name)


def accept(signin: SignIn, token: str, name: str) -> tuple[Authenticator, Begun]:
    key = Authenticator(name)
    made = key.create(challenge_in(signin.begin_registration(token)))
    return key, signin.accept(token, "my key", made, peer="127.0.0.1", agent="a browser")


def enter(signin: SignIn, key: Authenticator) -> Begun:
    signed = key.get(challenge_in(signin.begin()))
    return signin.sign_in(signed, peer="127.0.0.1", agent="a browser")


def refusals(node: Node) -> list[str]:
    return [str(event.details["reason"]) for event in events(node, EventKind.CONSOLE_REFUSED)]


def test_an_invitation_leads_to_a_session_and_works_once(signin: SignIn, node: Node) -> None:
    token = signin.invite("dora", [Role.ANALYST], by="alice")
    assert signin.invitation(token).roles == {Role.ANALYST}
    _, begun = accept(signin, token, "dora")
    assert signin.session(begun.cookie).person == "dora"
    with pytest.raises(NotFoundError):
        signin.invitation(token)
    deeds = [event.details["deed"] for event in events(node, EventKind.CONSOLE_CHANGED)]
    assert deeds == ["invited", "joined", "passkey added"]
    assert [event.details["deed"] for event in events(node, EventKind.CONSOLE_SESSION)] == ["signed in"]


def test_an_invitation_runs_out_after_a_day(signin: SignIn, clock: FakeClock) -> None:
    token = signin.invite("dora", [Role.ANALYST], by="alice")
    clock.advance(INVITATION_SECONDS)
    with pytest.raises(NotFoundError):
        signin.begin_registration(token)


def test_only_administrators_invite_and_only_administrators_come_as_such(signin: SignIn) -> None:
    with pytest.raises(DeniedError):
        signin.invite("dora", [Role.ANALYST], by="dora")
    with pytest.raises(DeniedError):
        signin.invite("dora", [Role.ADMINISTRATOR], by="alice")


def test_the_session_of_a_cookie_ends_when_it_is_not_used(signin: SignIn, clock: FakeClock, node: Node) -> None:
    _, begun = join(signin, "dora")
    clock.advance(IDLE_SECONDS - 1)
    assert signin.session(begun.cookie)
    clock.advance(IDLE_SECONDS)
    with pytest.raises(UnauthenticatedError):
        signin.session(begun.cookie)
    assert events(node, EventKind.CONSOLE_SESSION)[-1].details["deed"] == "ended"


def test_a_page_that_asks_by_itself_keeps_no_session_alive(signin: SignIn, clock: FakeClock) -> None:
    _, begun = join(signin, "dora")
    for _ in range(10):
        clock.advance(IDLE_SECONDS // 10 + 1)
        try:
            signin.session(begun.cookie, quiet=True)
        except UnauthenticatedError:
            break
    with pytest.raises(UnauthenticatedError):
        signin.session(begun.cookie)


def test_a_session_ends_after_a_shift_however_busy_it_is(signin: SignIn, clock: FakeClock) -> None:
    _, begun = join(signin, "dora")
    for _ in range(SESSION_SECONDS // (IDLE_SECONDS - 60)):
        clock.advance(IDLE_SECONDS - 60)
        signin.session(begun.cookie)
    clock.advance(IDLE_SECONDS - 60)
    with pytest.raises(UnauthenticatedError):
        signin.session(begun.cookie)


def test_a_passkey_signs_in_and_an_unknown_one_does_not(signin: SignIn, node: Node) -> None:
    key, _ = join(signin, "dora")
    assert signin.session(enter(signin, key).cookie).person == "dora"
    with pytest.raises(UnauthenticatedError):
        enter(signin, Authenticator("a stranger's"))
    stranger = Authenticator("a thief's")
    stranger.credential = key.credential
    with pytest.raises(UnauthenticatedError):
        enter(signin, stranger)
    assert refusals(node) == ["an unknown passkey", "passkey: the signature does not verify"]


def test_a_challenge_is_for_one_use_one_person_and_one_time(signin: SignIn, clock: FakeClock) -> None:
    key, begun = join(signin, "dora")
    _, other = join(signin, "emil")
    session = begun.session
    signed = key.get(challenge_in(signin.begin()))
    signin.sign_in(signed, peer="", agent="")
    with pytest.raises(UnauthenticatedError):  # once
        signin.sign_in(signed, peer="", agent="")
    with pytest.raises(UnauthenticatedError):  # for signing in, not for stepping up
        signin.step_up(session, key.get(challenge_in(signin.begin())))
    with pytest.raises(UnauthenticatedError):  # for this person
        signin.step_up(session, key.get(challenge_in(signin.begin_step_up(other.session))))
    late = key.get(challenge_in(signin.begin()))
    clock.advance(CHALLENGE_SECONDS)
    with pytest.raises(UnauthenticatedError):  # for a while
        signin.sign_in(late, peer="", agent="")
    with pytest.raises(UnauthenticatedError):  # and one of ours
        signin.sign_in(key.get(passkeys.to_base64url(bytes(56))), peer="", agent="")


def test_stepping_up_lasts_five_minutes(signin: SignIn, clock: FakeClock) -> None:
    key, begun = join(signin, "dora")
    clock.advance(STEP_UP_SECONDS)
    with pytest.raises(DeniedError):
        signin.check_stepped_up(signin.session(begun.cookie))
    signin.step_up(begun.session, key.get(challenge_in(signin.begin_step_up(begun.session))))
    signin.check_stepped_up(signin.session(begun.cookie))
    clock.advance(-10)
    session = signin.session(begun.cookie)
    with pytest.raises(DeniedError):  # a clock that was put back makes no proof younger
        signin.check_stepped_up(session)


def test_another_persons_passkey_steps_nobody_up(signin: SignIn) -> None:
    _, dora = join(signin, "dora")
    key, _ = join(signin, "emil")
    with pytest.raises(UnauthenticatedError):
        signin.step_up(dora.session, key.get(challenge_in(signin.begin_step_up(dora.session))))


def test_ending_a_person_ends_sessions_and_passkeys_at_once(signin: SignIn) -> None:
    key, begun = join(signin, "dora")
    signin.end_person("dora", by="alice")
    with pytest.raises(UnauthenticatedError):
        signin.session(begun.cookie)
    with pytest.raises(UnauthenticatedError):
        enter(signin, key)


def test_removing_a_passkey_ends_its_sessions_and_the_last_one_stays(signin: SignIn) -> None:
    _, begun = join(signin, "dora")
    second = Authenticator("second")
    made = second.create(challenge_in(signin.begin_passkey(begun.session)))
    signin.add_passkey(begun.session, "second", made)
    by_second = enter(signin, second)
    signin.drop_passkey(begun.session, by_second.session.key_id)
    with pytest.raises(UnauthenticatedError):
        signin.session(by_second.cookie)
    with pytest.raises(ConflictError):
        signin.drop_passkey(begun.session, begun.session.key_id)


def test_somebody_ends_their_own_sessions_and_nobody_elses(signin: SignIn) -> None:
    key, first = join(signin, "dora")
    _, emil = join(signin, "emil")
    second = enter(signin, key)
    signin.end_session(first.session.id, by="dora", person="dora")
    with pytest.raises(UnauthenticatedError):
        signin.session(first.cookie)
    with pytest.raises(NotFoundError):
        signin.end_session(emil.session.id, by="dora", person="dora")
    assert [one.id for one in signin.sessions("dora")] == [second.session.id]


def test_more_sessions_than_one_person_may_have_end_the_oldest(signin: SignIn, clock: FakeClock) -> None:
    key, first = join(signin, "dora")
    for _ in range(MAX_SESSIONS):
        clock.advance(1)
        enter(signin, key)
    assert len(signin.sessions("dora")) == MAX_SESSIONS
    with pytest.raises(UnauthenticatedError):
        signin.session(first.cookie)


def test_the_role_of_an_administrator_ends_with_the_office(signin: SignIn, node: Node) -> None:
    _, begun = join(signin, "bob", Role.ADMINISTRATOR, Role.AUDITOR)
    desk = approvals(node)
    carol = personal("carol")
    for act in (add_administrator("carol", carol.signing_key.public), remove_administrator("bob", "moved")):
        identifier = desk.propose(*act, by="alice")
        for name in ("alice", "bob"):
            desk.sign(identifier, personal(name))
    assert signin.session(begun.cookie).roles == {Role.AUDITOR}


def test_nobody_is_invited_under_the_name_of_somebody_who_is_here(signin: SignIn, node: Node) -> None:
    """Else an administrator could act in another one's name."""
    before = signin.invite("bob", [Role.ADMINISTRATOR], by="alice")
    accept(signin, before, "bob")
    with pytest.raises(ConflictError):
        signin.invite("bob", [Role.ADMINISTRATOR], by="alice")
    signin.end_person("bob", by="alice")
    token = signin.invite("bob", [Role.AUDITOR], by="alice")
    with node.store.transaction() as tx:  # an older row of theirs put back, as whoever writes the database can
        tx.console.add_passkey(ConsolePasskey(credential="AA", person="bob", key=b"", label="", origin="", added=0))
    with pytest.raises(ConflictError):
        accept(signin, token, "another key of bob's")


def test_an_invitation_ends_with_the_access_that_it_gives(signin: SignIn) -> None:
    token = signin.invite("dora", [Role.ANALYST], by="alice")
    signin.end_person("dora", by="alice")
    assert signin.waiting() == []
    with pytest.raises(NotFoundError):
        accept(signin, token, "dora")
    with pytest.raises(NotFoundError):
        signin.end_person("dora", by="alice")


def test_an_invitation_ends_with_the_office_of_whoever_made_it(signin: SignIn, node: Node) -> None:
    token = signin.invite("dora", [Role.ANALYST], by="bob")
    desk = approvals(node)
    for act in (
        add_administrator("carol", personal("carol").signing_key.public),
        remove_administrator("bob", "rogue"),
    ):
        identifier = desk.propose(*act, by="alice")
        for name in ("alice", "bob" if act[0] == "administrator_add" else "carol"):
            desk.sign(identifier, personal(name))
    with pytest.raises(NotFoundError):
        signin.invitation(token)
    with pytest.raises(NotFoundError):
        accept(signin, token, "dora")


FORGERIES = {
    "a person": "UPDATE console_person SET roles = 'administrator analyst auditor'",
    "a passkey of another": "UPDATE console_passkey SET person = 'bob'",
    "a session of another": "UPDATE console_session SET person = 'bob'",
    "a session that is young again": "UPDATE console_session SET stepped_up = stepped_up + 1000",
    "an invitation": "UPDATE console_invitation SET roles = 'analyst auditor'",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_whoever_writes_the_database_gets_nowhere(signin: SignIn, node: Node, forgery: str) -> None:
    key, begun = join(signin, "dora")
    join(signin, "bob", Role.ADMINISTRATOR)
    token = signin.invite("emil", [Role.ANALYST], by="alice")
    with node.store.transaction() as tx:
        tx.connection.exec_driver_sql(FORGERIES[forgery])
    ways = {
        "an invitation": lambda: signin.invitation(token),
        "a passkey of another": lambda: enter(signin, key),
    }
    way = ways.get(forgery, lambda: signin.session(begun.cookie))
    with pytest.raises((UnauthenticatedError, NotFoundError, AuditBrokenError)):
        way()


@pytest.mark.parametrize("end", ["the person", "the passkey"])
def test_what_was_ended_does_not_come_back_with_its_old_rows(signin: SignIn, node: Node, end: str) -> None:
    key, begun = join(signin, "dora")
    tables = ("console_person", "console_passkey", "console_session")
    with node.store.reading() as tx:
        old = {name: tx.connection.exec_driver_sql(f"SELECT * FROM {name}").mappings().all() for name in tables}
    if end == "the person":
        signin.end_person("dora", by="alice")
    else:
        other = Authenticator("another")
        made = other.create(challenge_in(signin.begin_passkey(begun.session)))
        signin.add_passkey(begun.session, "another", made)
        signin.drop_passkey(begun.session, begun.session.key_id)
    with node.store.transaction() as tx:
        for name in reversed(tables):
            tx.connection.exec_driver_sql(f"DELETE FROM {name}")
        for name, rows in old.items():
            tx.connection.execute(SQLModel.metadata.tables[name].insert(), [dict(row) for row in rows])
    with pytest.raises((UnauthenticatedError, AuditBrokenError)):
        signin.session(begun.cookie)
    with pytest.raises((UnauthenticatedError, AuditBrokenError)):
        enter(signin, key)


def test_who_is_here_as_an_auditor_still_sees_a_log_that_is_broken(signin: SignIn, node: Node) -> None:
    _, otto = join(signin, "otto", Role.AUDITOR, Role.ANALYST)
    key, dora = join(signin, "dora")
    with node.store.transaction() as tx:
        tx.connection.exec_driver_sql("DELETE FROM meta WHERE key = 'standing'")
        tx.connection.exec_driver_sql("UPDATE audit_leaf SET event = replace(event, 'dora', 'emil')")
    assert signin.session(otto.cookie).roles == {Role.AUDITOR}  # and no more than that
    with pytest.raises(AuditBrokenError):
        signin.session(dora.cookie)
    with pytest.raises(AuditBrokenError):  # nobody comes in meanwhile
        enter(signin, key)


# Passkeys that sign proposals


def signing(signin: SignIn, node: Node, name: str) -> Authenticator:
    key, begun = join(signin, name, Role.ADMINISTRATOR)
    desk = approvals(node)
    identifier = desk.propose(*add_passkey(name, signin.signing_passkey(begun.session)), by=name)
    for one in ("alice", "bob"):
        desk.sign(identifier, personal(one))
    return key


def sign(desk: Approvals, identifier: str, name: str, key: Authenticator) -> str:
    challenge = passkeys.to_base64url(desk.challenge(identifier))
    return desk.sign_with_passkey(identifier, name, passkeys.parse_assertion(key.get(challenge))).state


def test_two_passkeys_that_were_added_do_a_guarded_act(signin: SignIn, node: Node) -> None:
    alice, bob = signing(signin, node, "alice"), signing(signin, node, "bob")
    desk = approvals(node)
    carol = personal("carol")
    identifier = desk.propose(*add_administrator("carol", carol.signing_key.public), by="alice")
    sign(desk, identifier, "alice", alice)
    assert sign(desk, identifier, "bob", bob) == DONE
    with node.store.reading() as tx:
        assert "carol" in roster(tx, node).administrators  # proved anew from the log, by these signatures


def test_a_passkey_that_only_signs_in_signs_no_proposal(signin: SignIn, node: Node) -> None:
    key, _ = join(signin, "alice", Role.ADMINISTRATOR)
    desk = approvals(node)
    identifier = desk.propose(*set_quorum(3), by="alice")
    with pytest.raises(DeniedError):
        sign(desk, identifier, "alice", key)


def test_a_passkey_signs_for_its_own_administrator_and_one_statement(signin: SignIn, node: Node) -> None:
    key = signing(signin, node, "alice")
    desk = approvals(node)
    one = desk.propose(*remove_administrator("bob", "moved"), by="alice")
    other = desk.propose(*add_administrator("carol", personal("carol").signing_key.public), by="alice")
    with pytest.raises(DeniedError):
        sign(desk, one, "bob", key)
    for_other = passkeys.to_base64url(desk.challenge(other))
    with pytest.raises(DeniedError):
        desk.sign_with_passkey(one, "alice", passkeys.parse_assertion(key.get(for_other)))
    sign(desk, one, "alice", key)
    with pytest.raises(DeniedError):  # once, whichever key
        sign(desk, one, "alice", key)
    with pytest.raises(DeniedError):
        desk.sign(one, personal("alice"))


def test_a_passkey_that_was_removed_signs_no_more_and_what_it_did_stands(signin: SignIn, node: Node) -> None:
    key = signing(signin, node, "alice")
    desk = approvals(node)
    added = desk.propose(*add_administrator("carol", personal("carol").signing_key.public), by="alice")
    sign(desk, added, "alice", key)
    desk.sign(added, personal("bob"))
    with node.store.reading() as tx:
        [held] = roster(tx, node).passkeys["alice"]
    gone = desk.propose(*remove_passkey("alice", held.passkey.key_id, "lost"), by="bob")
    desk.sign(gone, personal("bob"))
    desk.sign(gone, personal("carol"))
    later = desk.propose(*remove_administrator("bob", "moved"), by="alice")
    with pytest.raises(DeniedError):
        sign(desk, later, "alice", key)
    with node.store.reading() as tx:
        assert set(roster(tx, node).administrators) == {"alice", "bob", "carol"}
    again = desk.propose(*add_passkey("bob", held), by="bob")
    desk.sign(again, personal("bob"))
    with pytest.raises(ConflictError):  # one passkey is never another's
        desk.sign(again, personal("carol"))


def test_a_passkey_written_into_the_database_signs_nothing(signin: SignIn, node: Node) -> None:
    key = signing(signin, node, "alice")
    desk = approvals(node)
    identifier = desk.propose(*add_administrator("carol", personal("carol").signing_key.public), by="alice")
    sign(desk, identifier, "alice", key)
    thief = Authenticator("a thief's")
    challenge = passkeys.to_base64url(desk.challenge(identifier))
    forged = passkeys.dump_signature(passkeys.parse_assertion(thief.get(challenge)))
    with node.store.transaction() as tx:
        rows = tx.people.approvals(identifier)
        tx.people.add_approval(replace_row(rows[0], administrator="bob", signature=forged))
    assert desk.get(identifier).signers == ("alice",)


def replace_row(row: object, **changes: object) -> object:
    return type(row)(**{**row.model_dump(), **changes})  # type: ignore[attr-defined]


def test_a_passkey_of_another_console_signs_nothing_here(signin: SignIn, node: Node) -> None:
    elsewhere = SignIn(replace(node, settings=replace(node.settings, console_url="http://localhost:9000")))
    with pytest.raises(GatewayError):
        join(elsewhere, "dora")  # the browser is on this console's page
