"""Our own keys: the card that tells of them, rotation, the switch, what is due by itself, revocation, crashes between
keystore and database."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory import START_TIME, FakeClock, befriend, events, make_node, reopened
from gateway import keyacts, ownkeys
from gateway.audit import EventKind
from gateway.crypto import dsse, revocation, succession
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError
from gateway.interchange import KeyConfirmation, parse_card
from gateway.keylife import DAY_SECONDS, KeyPurpose, KeyState
from gateway.keyring import confirm
from gateway.node import Node
from gateway.store.tables import OwnKey


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Node:
    return make_node(tmp_path, "XA-NCVI", clock=clock)


@pytest.fixture
def xb(tmp_path: Path, clock: FakeClock, xa: Node) -> Node:
    node = make_node(tmp_path, "XB-NCVI", clock=clock)
    befriend(xa, node)
    return node


def keys(node: Node, purpose: KeyPurpose) -> list[OwnKey]:
    with node.store.reading() as tx:
        return tx.keys.own(purpose)


def states(node: Node, purpose: KeyPurpose) -> list[str]:
    return [row.state for row in keys(node, purpose)]


def rotated(node: Node, purpose: KeyPurpose) -> str:
    with node.store.transaction() as tx:
        return ownkeys.rotate(tx, node, purpose, reason="due")


def revoked(node: Node, key_id: str, since: int = START_TIME) -> None:
    with node.store.transaction() as tx:
        ownkeys.revoke(tx, node, key_id, since=since, reason="stolen")


def card(node: Node) -> dict[str, object]:
    parsed = parse_card(ownkeys.issued_card(node))
    return {"number": parsed.number, "signing": parsed.signing, "opening": parsed.opening, "tokens": parsed.tokens}


def seen_by(node: Node, partner: str) -> None:
    """The partner confirms all that the node says of its keys now."""
    parsed = parse_card(raw := ownkeys.issued_card(node))
    import hashlib

    newest = max(row.number for row in keys(node, KeyPurpose.SIGNING))
    confirm(node, partner, KeyConfirmation(hashlib.sha256(raw).hexdigest(), newest, 0))
    assert parsed.agency == node.agency


def test_founding_lists_one_active_key_for_each_purpose_on_record(xa: Node) -> None:
    ownkeys.issued_card(xa)
    for purpose in KeyPurpose:
        assert states(xa, purpose) == ["active"]
    recorded = [(one.details["purpose"], one.details["new_state"]) for one in events(xa, EventKind.KEY_CHANGED)]
    assert recorded == [("signing", "active"), ("token", "active"), ("decryption", "active")]


def test_the_card_stays_byte_for_byte_while_nothing_changes(xa: Node, clock: FakeClock) -> None:
    first = ownkeys.issued_card(xa)
    clock.advance(5 * DAY_SECONDS)
    assert ownkeys.issued_card(xa) == first
    assert ownkeys.issued_card(reopened(xa)) == first
    assert len(events(xa, EventKind.CARD_ISSUED)) == 1


def test_a_new_decryption_key_is_used_at_once_and_the_old_one_overlaps(xa: Node) -> None:
    before = card(xa)
    rotated(xa, KeyPurpose.DECRYPTION)
    after = card(xa)
    assert after["number"] == 2
    assert len(after["opening"]) == 2
    assert after["opening"][1:] == before["opening"]
    assert states(xa, KeyPurpose.DECRYPTION) == ["active", "active"]


def test_decryption_keys_rotate_and_are_destroyed_by_themselves(xa: Node, clock: FakeClock) -> None:
    ownkeys.maintain(xa)
    first = keys(xa, KeyPurpose.DECRYPTION)[0].key_id
    clock.advance(30 * DAY_SECONDS)
    assert ownkeys.maintain(xa) == ["rotate decryption"]
    assert ownkeys.maintain(xa) == []
    clock.advance(14 * DAY_SECONDS)
    assert ownkeys.maintain(xa) == ["deactivate decryption"]
    assert first in {key.public.key_id for key in ownkeys.opening_keys(xa)}  # what is on its way still opens
    assert first not in {key.key_id for key in parse_card(ownkeys.issued_card(xa)).opening}
    clock.advance(30 * DAY_SECONDS)
    assert sorted(ownkeys.maintain(xa)) == ["destroy decryption", "rotate decryption"]
    assert first not in {held.key_id for held in xa.keystore.held_opening_keys}
    assert states(xa, KeyPurpose.DECRYPTION)[0] == "destroyed"


def test_an_announced_signing_key_signs_nothing_until_everybody_confirmed_it(
    xa: Node, xb: Node, clock: FakeClock
) -> None:
    old = xa.keystore.signing_key.public
    new = rotated(xa, KeyPurpose.SIGNING)
    assert ownkeys.maintain(xa) == []
    assert card(xa)["signing"] == old
    with xa.store.reading() as tx:
        assert ownkeys.missing(tx, tx.keys.own_key(new)) == ["XB-NCVI"]
    seen_by(xa, "XB-NCVI")
    assert ownkeys.maintain(xa) == ["switch signing"]
    assert xa.keystore.signing_key.public.key_set_id == new
    assert states(xa, KeyPurpose.SIGNING) == ["deactivated", "active"]
    clock.advance(14 * DAY_SECONDS)
    assert "destroy signing" in ownkeys.maintain(xa)
    assert [one.key_id for one in xa.keystore.held_signing_keys] == [new]


def test_the_old_key_goes_on_until_two_override(xa: Node, xb: Node) -> None:
    new = rotated(xa, KeyPurpose.TOKEN)
    old = xa.keystore.token_key
    assert ownkeys.maintain(xa) == []
    assert xa.keystore.token_key.key_id == old.key_id
    with xa.store.transaction() as tx:
        ownkeys.switch(tx, xa, new, reason="XB is away for weeks", proposal="p")
    assert xa.keystore.token_key.key_id == new
    assert [jwk["x"] for jwk in parse_card(ownkeys.issued_card(xa)).tokens] == [xa.keystore.token_key.card_jwk()["x"]]


def test_a_partner_that_knows_only_the_old_token_key_is_called_with_it(xa: Node, xb: Node, clock: FakeClock) -> None:
    seen_by(xa, "XB-NCVI")
    old = xa.keystore.token_key.key_id
    new = rotated(xa, KeyPurpose.TOKEN)
    with xa.store.transaction() as tx:
        ownkeys.switch(tx, xa, new, reason="override")
    assert ownkeys.token_key_for(xa, "XB-NCVI").key_id == old
    assert ownkeys.token_key_for(xa, "XC-NCVI").key_id == new
    seen_by(xa, "XB-NCVI")
    assert ownkeys.token_key_for(xa, "XB-NCVI").key_id == new


@pytest.mark.parametrize("purpose", [KeyPurpose.SIGNING, KeyPurpose.TOKEN])
def test_one_successor_at_a_time(xa: Node, xb: Node, purpose: KeyPurpose) -> None:
    rotated(xa, purpose)
    with pytest.raises(ConflictError, match="announced already"):
        rotated(xa, purpose)


def test_only_what_waits_can_be_switched_to(xa: Node) -> None:
    ownkeys.maintain(xa)
    active = keys(xa, KeyPurpose.SIGNING)[0].key_id
    with pytest.raises(ConflictError), xa.store.transaction() as tx:
        ownkeys.switch(tx, xa, active, reason="again")
    with pytest.raises(NotFoundError), xa.store.transaction() as tx:
        ownkeys.switch(tx, xa, "00" * 32, reason="no such key")


def test_a_revoked_signing_key_says_so_itself_and_names_nobody(xa: Node, xb: Node) -> None:
    ownkeys.maintain(xa)
    old = xa.keystore.held_signing_key
    announced = rotated(xa, KeyPurpose.SIGNING)
    revoked(xa, old.key_id)
    new = xa.keystore.held_signing_key
    assert (new.number, states(xa, KeyPurpose.SIGNING)) == (3, ["compromised", "compromised", "active"])
    with xa.store.reading() as tx:
        kinds = [(row.kind, row.number) for row in tx.keys.statements()]
        last = tx.keys.statements()[-1].statement
    assert kinds == [("succession", 2), ("revocation", 1)]
    held = [revocation.HeldKey(1, old.key.public, speaks=True)]
    assert revocation.verify_revocation(last, agency="XA-NCVI", held=held)[0].since == START_TIME
    assert announced != new.key_id
    assert parse_card(ownkeys.issued_card(xa)).signing == new.key.public


def test_a_revoked_announced_key_leaves_the_one_in_use(xa: Node, xb: Node) -> None:
    announced = rotated(xa, KeyPurpose.SIGNING)
    revoked(xa, announced)
    assert states(xa, KeyPurpose.SIGNING) == ["active", "compromised"]
    again = rotated(xa, KeyPurpose.SIGNING)
    assert again != announced


@pytest.mark.parametrize("purpose", [KeyPurpose.TOKEN, KeyPurpose.DECRYPTION])
def test_a_revoked_key_is_replaced_at_once_and_leaves_the_card(xa: Node, purpose: KeyPurpose) -> None:
    before = card(xa)
    revoked(xa, keys(xa, purpose)[0].key_id)
    after = card(xa)
    member = "tokens" if purpose is KeyPurpose.TOKEN else "opening"
    assert not set(map(str, after[member])) & set(map(str, before[member]))
    assert states(xa, purpose) == ["compromised", "active"]
    compromised = keys(xa, purpose)[0].key_id
    assert compromised not in {key.public.key_id for key in ownkeys.opening_keys(xa)}


def test_compromise_is_not_dated_ahead_nor_said_twice(xa: Node, clock: FakeClock) -> None:
    ownkeys.maintain(xa)
    key_id = keys(xa, KeyPurpose.TOKEN)[0].key_id
    with pytest.raises(MalformedError):
        revoked(xa, key_id, clock() + 60)
    revoked(xa, key_id, clock())
    with pytest.raises(ConflictError):
        revoked(xa, key_id, clock())


def test_a_suspended_decryption_key_opens_nothing_until_it_is_reinstated(xa: Node) -> None:
    ownkeys.maintain(xa)
    key_id = keys(xa, KeyPurpose.DECRYPTION)[0].key_id
    ownkeys.suspend(xa, key_id, by="XA-NCVI", reason="a laptop is missing")
    assert key_id not in {key.public.key_id for key in ownkeys.opening_keys(xa)}
    assert len(parse_card(ownkeys.issued_card(xa)).opening) == 1
    with xa.store.transaction() as tx:
        ownkeys.reinstate(tx, xa, key_id, reason="found", proposal="p")
    assert key_id in {key.public.key_id for key in ownkeys.opening_keys(xa)}


def test_a_suspended_signing_key_stops_all_exchange(xa: Node, xb: Node) -> None:
    ownkeys.maintain(xa)
    ownkeys.suspend(xa, xa.keystore.held_signing_key.key_id, by="XA-NCVI", reason="odd traffic")
    with xa.store.reading() as tx:
        assert tx.people.is_paused("XB-NCVI")


def test_nobody_suspends_a_key_in_a_strangers_name(xa: Node) -> None:
    ownkeys.maintain(xa)
    key_id = keys(xa, KeyPurpose.DECRYPTION)[0].key_id
    with pytest.raises(DeniedError, match="no such administrator"):
        keyacts.suspend(xa, key_id, by="mallory", reason="odd")
    assert states(xa, KeyPurpose.DECRYPTION) == ["active"]
    keyacts.suspend(xa, key_id, by="", reason="a laptop is missing")
    assert states(xa, KeyPurpose.DECRYPTION) == ["suspended", "active"]


def test_a_crash_between_keystore_and_database_leaves_no_key_that_anybody_was_told_of(xa: Node, xb: Node) -> None:
    ownkeys.maintain(xa)
    used = xa.keystore.held_signing_key.key_id
    # Cut off after the keystore was written: the announced key, then one that was even switched to.
    orphan = xa.keystore.add_signing_key(now=xa.clock(), random=xa.random)
    xa.keystore.activate_signing_key(orphan.key_id)
    token = xa.keystore.add_token_key(now=xa.clock(), random=xa.random)
    opening = xa.keystore.add_opening_key(now=xa.clock(), random=xa.random)
    assert ownkeys.issued_card(reopened(xa))
    assert xa.keystore.held_signing_key.key_id == used
    assert [one.key_id for one in xa.keystore.held_signing_keys] == [used]
    assert token.key_id not in {one.key_id for one in xa.keystore.held_token_keys}
    assert states(xa, KeyPurpose.DECRYPTION) == ["active", "active"]
    assert opening.key.public in parse_card(ownkeys.issued_card(xa)).opening


def test_a_key_whose_private_half_is_gone_is_recorded_as_destroyed(xa: Node) -> None:
    ownkeys.maintain(xa)
    rotated(xa, KeyPurpose.DECRYPTION)
    old = keys(xa, KeyPurpose.DECRYPTION)[0].key_id
    xa.keystore.drop_opening_key(old)
    ownkeys.maintain(xa)
    assert states(xa, KeyPurpose.DECRYPTION) == ["destroyed", "active"]


def test_statements_are_signed_as_what_they_are(xa: Node, xb: Node) -> None:
    old = xa.keystore.signing_key.public
    rotated(xa, KeyPurpose.SIGNING)
    with xa.store.reading() as tx:
        [statement] = tx.keys.statements()
    assert dsse.parse(statement.statement).payload_type == succession.PAYLOAD_TYPE
    said = succession.verify_succession(statement.statement, agency="XA-NCVI", held=old, held_number=1)
    assert said.number == 2


def test_what_must_be_looked_at_again_is_summed_up_by_partner(xa: Node, xb: Node) -> None:
    ownkeys.maintain(xa)
    revoked(xa, xa.keystore.held_signing_key.key_id)
    row = keys(xa, KeyPurpose.SIGNING)[0]
    found = ownkeys.affected(xa, row)
    assert [(one.kind, one.count) for one in found] == [("card_issued", 2)]
    assert KeyState(row.state) is KeyState.COMPROMISED
