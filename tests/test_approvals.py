"""Four eyes: no single person completes a guarded act, whatever they try, and every try is on record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory import FakeClock, SeededRandom, make_node
from gateway.approvals import (
    DONE,
    EXPIRED,
    LIFETIME_SECONDS,
    OPEN,
    STATEMENT_TYPE,
    WITHDRAWN,
    Act,
    Approvals,
    Arguments,
    Change,
)
from gateway.audit import EventKind, parse_event
from gateway.crypto import canonical, dsse
from gateway.crypto.keys import SigningKey
from gateway.errors import ConflictError, DeniedError, GatewayError, MalformedError, NotFoundError, VerificationError
from gateway.keyadmin import add_administrator, approvals, bootstrap_administrator, remove_administrator
from gateway.keystore import PersonalKey
from gateway.model import require, text_member
from gateway.node import Node
from gateway.proposals import verified_signers
from gateway.store import Transaction
from gateway.store.tables import ApprovalRow

NAMES = ("one", "two", "three", "stranger")
ONE, TWO, THREE, STRANGER = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in NAMES)
TRIES = (EventKind.PROPOSAL_MADE, EventKind.PROPOSAL_SIGNED, EventKind.PROPOSAL_EXECUTED, EventKind.PROPOSAL_REFUSED)


def write_note(tx: Transaction, _node: Node, arguments: Arguments, proposal: str) -> None:
    """A guarded act of these tests: it writes one value; "impossible" cannot be done any more."""
    text = text_member(dict(arguments), "text")
    if text == "impossible":
        raise ConflictError("the moment has passed")
    tx.people.set_meta("note", text)
    tx.people.set_meta("note proposal", proposal)


def note_subject(arguments: Arguments) -> str:
    require(set(arguments) == {"text"}, "note: one text")
    return text_member(dict(arguments), "text")


def note_difference(tx: Transaction, _node: Node, arguments: Arguments) -> list[Change]:
    return [Change("note", tx.people.meta("note") or "", text_member(dict(arguments), "text"))]


ACTS = {"note": Act("write a note", note_subject, write_note, note_difference)}


@dataclass
class Desk:
    """A node with two administrators, and its approvals."""

    node: Node
    clock: FakeClock
    approvals: Approvals = field(init=False)

    def __post_init__(self) -> None:
        self.approvals = Approvals(self.node, ACTS)
        for key in (ONE, TWO):
            bootstrap_administrator(self.node, key.name, key.signing_key.public)

    def add(self, key: PersonalKey) -> None:
        self.do(add_administrator(key.name, key.signing_key.public))

    def do(self, act: tuple[str, Arguments]) -> None:
        """A real guarded act, by the first two."""
        desk = approvals(self.node)
        identifier = desk.propose(*act, by="one")
        for key in (ONE, TWO):
            desk.sign(identifier, key)

    def propose(self, text: str = "hello") -> str:
        return self.approvals.propose("note", {"text": text}, by="one")

    @property
    def note(self) -> str | None:
        with self.node.store.reading() as tx:
            return tx.people.meta("note")

    def tries(self) -> list[EventKind]:
        with self.node.store.reading() as tx:
            parsed = [parse_event(leaf.event_bytes) for leaf in tx.log.leaves() if leaf.event_bytes]
        return [event.kind for event in parsed if event.kind in TRIES]

    def reasons(self) -> list[object]:
        with self.node.store.reading() as tx:
            parsed = [parse_event(leaf.event_bytes) for leaf in tx.log.leaves() if leaf.event_bytes]
        return [event.details["reason"] for event in parsed if event.kind is EventKind.PROPOSAL_REFUSED]

    def change(self, statement: str, *values: object) -> None:
        with self.node.store.transaction() as tx:
            tx.connection.exec_driver_sql(statement, values)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    clock = FakeClock()
    return Desk(make_node(tmp_path, clock=clock, quorum=2), clock)


def test_the_second_signature_does_the_act(desk: Desk) -> None:
    identifier = desk.propose()
    first = desk.approvals.sign(identifier, ONE)
    assert (first.state, first.signers, desk.note) == (OPEN, ("one",), None)
    second = desk.approvals.sign(identifier, TWO)
    assert (second.state, set(second.signers), desk.note) == (DONE, {"one", "two"}, "hello")
    assert desk.tries() == [*TRIES[:2], EventKind.PROPOSAL_SIGNED, EventKind.PROPOSAL_EXECUTED]


def test_a_proposal_is_named_by_the_digest_of_its_statement(desk: Desk) -> None:
    identifier = desk.propose()
    now = desk.clock()
    statement = canonical.encode(
        {
            "proposal": "proposal 1",
            "act": "note",
            "agency": "XA-NCVI",
            "arguments": {"text": "hello"},
            "by": "one",
            "created": now,
            "expires": now + LIFETIME_SECONDS,
        }
    )
    assert identifier == hashlib.sha256(statement).hexdigest()


def test_one_administrator_signs_once(desk: Desk) -> None:
    identifier = desk.propose()
    desk.approvals.sign(identifier, ONE)
    with pytest.raises(DeniedError, match="signed already"):
        desk.approvals.sign(identifier, ONE)
    assert desk.note is None
    assert desk.reasons() == ["this administrator has signed already"]


@pytest.mark.parametrize(
    "key", [STRANGER, replace(STRANGER, name="two"), replace(ONE, name="two")], ids=["stranger", "forger", "two names"]
)
def test_a_key_that_is_not_the_administrators_signs_nothing(desk: Desk, key: PersonalKey) -> None:
    identifier = desk.propose()
    desk.approvals.sign(identifier, ONE)
    with pytest.raises(DeniedError, match="not an administrator's"):
        desk.approvals.sign(identifier, key)
    assert desk.note is None
    assert desk.tries()[-1] is EventKind.PROPOSAL_REFUSED


def test_a_done_proposal_takes_no_signature(desk: Desk) -> None:
    desk.add(THREE)
    identifier = desk.propose()
    for key in (ONE, TWO):
        desk.approvals.sign(identifier, key)
    with pytest.raises(ConflictError, match="closed"):
        desk.approvals.sign(identifier, THREE)


def test_a_done_proposal_that_was_opened_again_in_the_database_takes_no_signature(desk: Desk) -> None:
    desk.add(THREE)
    identifier = desk.propose()
    for key in (ONE, TWO):
        desk.approvals.sign(identifier, key)
    desk.change("UPDATE meta SET value = 'gone' WHERE key = 'note'")
    desk.change("UPDATE proposal SET state = 'open' WHERE id = ?", identifier)
    with pytest.raises(ConflictError, match="closed"):
        desk.approvals.sign(identifier, THREE)
    assert desk.note == "gone"


def test_a_proposal_expires_after_seven_days(desk: Desk) -> None:
    identifier = desk.propose()
    desk.approvals.sign(identifier, ONE)
    desk.clock.advance(LIFETIME_SECONDS)
    with pytest.raises(ConflictError, match="expired"):
        desk.approvals.sign(identifier, TWO)
    assert (desk.note, desk.approvals.get(identifier).state) == (None, EXPIRED)
    assert desk.approvals.all(only_open=True) == []
    # It is closed on record, once.
    assert desk.reasons() == ["expired", "this proposal has expired"]
    assert (desk.approvals.expire(), desk.reasons()[0]) == (0, "expired")
    # The act can be proposed again, and needs both signatures again.
    assert desk.approvals.sign(desk.propose(), TWO).state == OPEN


def test_the_same_act_waits_only_once(desk: Desk) -> None:
    identifier = desk.propose()
    desk.clock.advance(1)
    with pytest.raises(ConflictError) as caught:
        desk.propose()
    assert identifier[:12] in caught.value.remedy
    desk.propose("something else")
    assert len(desk.approvals.all(only_open=True)) == 2


def test_an_act_that_can_no_longer_be_done_keeps_no_signature(desk: Desk) -> None:
    identifier = desk.propose("impossible")
    desk.approvals.sign(identifier, ONE)
    with pytest.raises(ConflictError, match="the moment has passed"):
        desk.approvals.sign(identifier, TWO)
    after = desk.approvals.get(identifier)
    assert (after.state, after.signers) == (OPEN, ("one",))
    assert desk.reasons() == ["the moment has passed"]


def test_a_crash_before_the_commit_leaves_neither_signature_nor_act(desk: Desk) -> None:
    identifier = desk.propose()
    desk.approvals.sign(identifier, ONE)
    tries = desk.tries()

    def crash() -> None:
        raise RuntimeError("power cut")

    desk.node.store.before_commit = crash  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        desk.approvals.sign(identifier, TWO)
    del desk.node.store.before_commit
    assert (desk.note, desk.tries()) == (None, tries)
    assert desk.approvals.sign(identifier, TWO).state == DONE


@pytest.mark.parametrize("forged", ["noise", "own signature", "other statement"])
def test_a_signature_written_into_the_database_counts_for_nothing(desk: Desk, forged: str) -> None:
    identifier, other = desk.propose(), desk.propose("other")
    with desk.node.store.reading() as tx:
        statements = {row.id: row.statement.encode() for row in tx.people.proposals()}
    signatures = {
        "noise": b"{}",
        "own signature": dsse.sign(STATEMENT_TYPE, statements[identifier], ONE.signing_key),
        "other statement": dsse.sign(STATEMENT_TYPE, statements[other], TWO.signing_key),
    }
    with desk.node.store.transaction() as tx:
        tx.people.add_approval(
            ApprovalRow(proposal=identifier, administrator="two", signature=signatures[forged], at=desk.clock())
        )
    after = desk.approvals.sign(identifier, ONE)
    assert (after.state, after.signers, desk.note) == (OPEN, ("one",), None)


def test_one_key_under_two_names_is_one_vote() -> None:
    statement = b"{}"
    signature = dsse.sign(STATEMENT_TYPE, statement, ONE.signing_key)
    keys = dict.fromkeys(("one", "twin"), ONE.signing_key.public)
    assert list(verified_signers(statement, [("one", signature), ("twin", signature)], keys)) == ["one"]


def test_a_statement_changed_in_the_database_is_not_signed(desk: Desk) -> None:
    identifier = desk.propose()
    desk.approvals.sign(identifier, ONE)
    desk.change("UPDATE proposal SET statement = replace(statement, 'hello', 'other')")
    with pytest.raises(VerificationError, match="altered"):
        desk.approvals.sign(identifier, TWO)
    assert desk.note is None


def test_the_signature_of_an_administrator_who_left_no_longer_counts(desk: Desk) -> None:
    desk.add(THREE)
    identifier = desk.propose()
    desk.approvals.sign(identifier, THREE)
    desk.do(remove_administrator("three", "moved to another post"))
    assert desk.approvals.sign(identifier, TWO).signers == ("two",)
    assert desk.note is None
    with pytest.raises(DeniedError, match="not an administrator's"):
        desk.approvals.sign(identifier, THREE)
    assert desk.approvals.sign(identifier, ONE).state == DONE


def test_a_signature_for_one_gateway_says_nothing_at_another(desk: Desk, tmp_path: Path) -> None:
    other = Desk(make_node(tmp_path, "XB-NCVI", clock=desk.clock, quorum=2), desk.clock)
    here, there = desk.propose(), other.propose()
    assert here != there
    desk.approvals.sign(here, ONE)
    with desk.node.store.reading() as tx:
        signed = tx.people.approvals(here)[0]
    with other.node.store.transaction() as tx:
        tx.people.add_approval(ApprovalRow(**{**signed.model_dump(), "proposal": there}))
    assert other.approvals.get(there).signers == ()


def test_only_administrators_propose_and_only_once_there_are_enough(tmp_path: Path) -> None:
    clock = FakeClock()
    desk = Desk(make_node(tmp_path, clock=clock, quorum=3), clock)
    with pytest.raises(DeniedError, match="needs 3 administrators"):
        desk.propose()
    bootstrap_administrator(desk.node, "three", THREE.signing_key.public)
    with pytest.raises(DeniedError, match="only an administrator"):
        desk.approvals.propose("note", {"text": "hello"}, by="nobody")
    assert desk.tries() == [EventKind.PROPOSAL_REFUSED] * 2


@pytest.mark.parametrize(("act", "arguments"), [("burn", {}), ("note", {}), ("note", {"text": 7})])
def test_what_no_act_can_take_is_never_proposed(desk: Desk, act: str, arguments: Arguments) -> None:
    with pytest.raises(MalformedError):
        desk.approvals.propose(act, arguments, by="one")
    assert desk.approvals.all() == []


@pytest.mark.parametrize("identifier", ["", "0" * 7, "0" * 64, "%"])
def test_an_unknown_proposal_is_not_signed(desk: Desk, identifier: str) -> None:
    desk.propose()
    with pytest.raises(NotFoundError):
        desk.approvals.sign(identifier, ONE)
    assert desk.tries()[-1] is EventKind.PROPOSAL_REFUSED


def test_what_an_act_would_change_is_told_as_things_stand(desk: Desk) -> None:
    desk.change("INSERT INTO meta (key, value) VALUES ('note', 'before')")
    identifier = desk.propose("after")
    assert desk.approvals.difference(identifier) == [Change("note", "before", "after")]
    for key in (ONE, TWO):
        desk.approvals.sign(identifier, key)
    assert desk.approvals.difference(identifier) == []


def test_whoever_proposed_it_withdraws_it_and_nobody_else(desk: Desk) -> None:
    identifier = desk.propose()
    desk.approvals.sign(identifier, ONE)
    for key in (TWO, replace(TWO, name="one"), STRANGER):
        with pytest.raises(DeniedError, match="only whoever proposed"):
            desk.approvals.withdraw(identifier, key)
    assert desk.approvals.withdraw(identifier, ONE).state == WITHDRAWN
    with pytest.raises(ConflictError, match="closed"):
        desk.approvals.sign(identifier, TWO)
    assert desk.note is None
    assert [reason for reason in desk.reasons() if "withdrawn" in str(reason)] == ["withdrawn by its proposer"]
    assert desk.tries().count(EventKind.PROPOSAL_REFUSED) == 5


def test_a_proposal_written_into_the_database_never_waits_longer_than_one_may(desk: Desk) -> None:
    now = desk.clock()
    parts: dict[str, object] = {"act": "note", "agency": "XA-NCVI", "arguments": {"text": "hello"}, "by": "one"}
    statement = canonical.encode({"proposal": "proposal 1", **parts, "created": now, "expires": now + 10**9})
    identifier = hashlib.sha256(statement).hexdigest()
    desk.change(
        "INSERT INTO proposal (id, act, statement, state, created, expires) VALUES (?, 'note', ?, 'open', ?, ?)",
        identifier, statement.decode(), now, now + 10**9,
    )  # fmt: skip
    with pytest.raises(MalformedError, match="longer"):
        desk.approvals.sign(identifier, ONE)


Try = Callable[[Desk, list[str]], object]
LONE_TRIES: dict[str, Try] = {
    "propose": lambda desk, known: known.append(desk.propose(f"text {len(known)}")),
    "propose the same": lambda desk, _known: desk.propose("text 0"),
    "sign": lambda desk, known: desk.approvals.sign(known[-1], ONE),
    "sign the first": lambda desk, known: desk.approvals.sign(known[0], ONE),
    "sign as the other": lambda desk, known: desk.approvals.sign(known[-1], replace(ONE, name="two")),
    "sign with a fresh key": lambda desk, known: desk.approvals.sign(known[-1], replace(STRANGER, name="two")),
    "sign as a stranger": lambda desk, known: desk.approvals.sign(known[-1], STRANGER),
    "wait a day": lambda desk, _known: desk.clock.advance(86_400),
}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(sorted(LONE_TRIES)), min_size=4, max_size=14))
def test_one_person_never_completes_a_guarded_act(names: list[str]) -> None:
    with TemporaryDirectory() as folder:
        clock = FakeClock()
        desk = Desk(make_node(Path(folder), clock=clock, quorum=2), clock)
        known = [desk.propose("text 0")]
        for name in names:
            before = len(desk.tries())
            try:
                LONE_TRIES[name](desk, known)
            except GatewayError:
                assert desk.tries()[before:] == [EventKind.PROPOSAL_REFUSED]
            else:
                assert len(desk.tries()) == before + (name != "wait a day")
        assert desk.note is None
        assert EventKind.PROPOSAL_EXECUTED not in desk.tries()
        assert all(set(one.signers) <= {"one"} for one in desk.approvals.all())
        # With the second person it is done at once, and once: so it was the second person that was missing.
        last = desk.propose("at last")
        desk.approvals.sign(last, ONE)
        desk.approvals.sign(last, TWO)
        assert desk.note == "at last"
        desk.node.store.close()
