"""Drills: what goes wrong with keys in a bad year, under traffic. No message lost, none taken under a revoked key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import pytest

from factory import CHEAP, PASSPHRASE, START_TIME, FakeClock, SeededRandom, drafts, events, make_node, make_set
from gateway import keyacts, keyring, ownkeys
from gateway.approvals import DONE, Arguments
from gateway.audit import EventKind, verify_receipt
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import ConflictError, GatewayError
from gateway.exchange import Exchange
from gateway.interchange import parse_card
from gateway.keyadmin import add_partner, approvals, bootstrap_administrator, lift_test, pause, resume
from gateway.keylife import DAY_SECONDS, KeyPurpose, KeyState
from gateway.keystore import PersonalKey, create_personal
from gateway.logcheck import verify_own_log
from gateway.node import Node
from gateway.ownkeys import issued_card
from partner_simulator import Network, held_entries

TWO = ("XA-NCVI", "XB-NCVI")
THREE = (*TWO, "XC-NCVI")


@dataclass
class Year:
    """Agencies with two administrators each, and what was listed so far."""

    folder: Path
    agencies: tuple[str, ...] = TWO
    clock: FakeClock = field(default_factory=FakeClock)
    network: Network = field(default_factory=Network)
    people: dict[str, tuple[PersonalKey, PersonalKey]] = field(default_factory=dict)
    listed: int = 0

    def __post_init__(self) -> None:
        for agency in self.agencies:
            self.found(agency)
        for here, there in permutations(self.agencies, 2):
            self.enrol(here, there)
        for agency in self.agencies:
            make_set(self.network.members[agency], "found", onward=("XA", "XB", "XC"))

    def found(self, agency: str, *, seed: str = "", folder: Path | None = None) -> Node:
        node = make_node(
            folder or self.folder, agency, clock=self.clock, random=SeededRandom(f"{agency} {seed}"), quorum=2
        )
        pair = []
        for name in ("alice", "bob"):
            path = node.settings.folder / f"{name}.json"
            pair.append(
                create_personal(path, name, PASSPHRASE, random=SeededRandom(f"{agency}{name}{seed}"), cost=CHEAP)
            )
            bootstrap_administrator(node, name, pair[-1].signing_key.public)
        self.people[agency] = (pair[0], pair[1])
        self.network.join(node)
        return node

    def __getitem__(self, agency: str) -> Exchange:
        return self.network.members[agency]

    def do(self, agency: str, act: tuple[str, Arguments]) -> None:
        """A guarded act with both signatures; one alone does nothing."""
        desk = approvals(self[agency].node)
        one, two = self.people[agency]
        identifier = desk.propose(*act, by=one.name)
        assert desk.sign(identifier, one).state != DONE
        assert desk.sign(identifier, two).state == DONE

    def traffic(self, *agencies: str) -> None:
        """Everybody lists something, everybody (or those named) syncs with everybody, as far as it goes."""
        for agency in self.agencies:
            new = drafts(3, first=self.listed)
            self[agency].ledger.import_entries(f"{agency}/found", new, actor="tester", form="test")
        self.listed += 3
        for here in agencies or self.agencies:
            ownkeys.maintain(self[here].node)
            for there in self.agencies:
                if here != there:
                    self.attempt(here, there)
        self.clock.advance(3600)

    def attempt(self, here: str, there: str) -> GatewayError | None:
        try:
            asyncio.run(self.network.sync(here, there).sync())
        except GatewayError as error:
            return error
        return None

    def check(self) -> None:
        """Every mirror holds every entry, both ends agree, every log verifies."""
        for _ in range(2):
            self.traffic()
        for hub in self.agencies:
            for mirror in self.agencies:
                if hub != mirror:
                    assert len(held_entries(self[mirror], f"{hub}/found")) == self.listed, (hub, mirror)
                    assert self[mirror].mirrors.equality(f"{hub}/found") == "equal"
        for agency in self.agencies:
            verify_own_log(self[agency].node)

    def key(self, agency: str, purpose: KeyPurpose) -> str:
        with self[agency].node.store.reading() as tx:
            return next(row.key_id for row in tx.keys.own(purpose) if row.state == KeyState.ACTIVE)

    def state(self, here: str, there: str) -> str:
        with self[here].node.store.reading() as tx:
            return tx.people.partner(there).state

    def enrol(self, here: str, there: str) -> None:
        """Two administrators compare the fingerprint, enrol the partner's present card, and let real data move."""
        self.do(here, add_partner(issued_card(self[there].node)))
        with self[here].node.store.reading() as tx:
            under_test = tx.people.partner(there).test
        if under_test:
            self.do(here, lift_test(there))


@pytest.fixture
def year(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Year]:
    made = Year(tmp_path, getattr(request, "param", TWO))
    yield made
    for exchange in made.network.members.values():
        exchange.node.store.close()


@pytest.mark.parametrize("purpose", list(KeyPurpose))
def test_rotated_under_traffic(year: Year, purpose: KeyPurpose) -> None:
    year.traffic()
    old = year.key("XA-NCVI", purpose)
    year.do("XA-NCVI", keyacts.rotate(purpose, "due"))
    for _ in range(3):
        year.traffic()
    if purpose is not KeyPurpose.DECRYPTION:
        assert year.key("XA-NCVI", purpose) != old
        assert ownkeys.issued_card(year["XA-NCVI"].node)
    year.check()


@pytest.mark.parametrize("year", [THREE], indirect=True)
def test_rotated_ten_times_while_a_partner_was_away(year: Year) -> None:
    year.traffic()
    year.network.offline.add("XC-NCVI")
    for _ in range(10):
        year.do("XA-NCVI", keyacts.rotate(KeyPurpose.SIGNING, "drill"))
        year.traffic("XA-NCVI", "XB-NCVI")
        with year["XA-NCVI"].node.store.reading() as tx:
            [waiting] = [row for row in tx.keys.own(KeyPurpose.SIGNING) if row.state == KeyState.PRE_ACTIVE]
            assert ownkeys.missing(tx, waiting) == ["XC-NCVI"]
        year.do("XA-NCVI", keyacts.switch(waiting.key_id, "XC is away"))
        year.clock.advance(6 * DAY_SECONDS)
    year.network.offline.clear()
    year.check()
    with year["XC-NCVI"].node.store.reading() as tx:
        assert tx.keys.of_partner("XA-NCVI")[0].number == 11


def test_stolen_signing_key(year: Year) -> None:
    year.traffic()
    stolen = year["XA-NCVI"].node.keystore.signing_key
    name, xb = "XA-NCVI/found", year["XB-NCVI"]
    report = asyncio.run(year.network.sync("XA-NCVI", "XB-NCVI").push(make_set(year["XA-NCVI"], "pushed", drafts(2))))
    year.do("XA-NCVI", keyacts.revoke(stolen.public.key_set_id, year.clock() - 1800, "laptop stolen"))
    # 1. The partner hears of it at the next contact and believes nothing more, whoever signs it.
    year.traffic()
    assert year.state("XB-NCVI", "XA-NCVI") == keyring.REVOKED
    before = len(held_entries(xb, name))
    year.traffic()
    assert len(held_entries(xb, name)) == before
    assert [one.details["kind"] for one in events(xb.node, EventKind.ALARM_RAISED)] == ["partner_key_revoked"]
    assert keyring.affected(xb.node, "XA-NCVI", START_TIME)
    # 2. Enrolled anew by two, nothing is lost, and what was receipted before still verifies.
    year.enrol("XB-NCVI", "XA-NCVI")
    year.check()
    log = VerifierKey.parse(parse_card(issued_card(xb.node)).log)
    for receipt in report.receipts.values():
        assert verify_receipt(receipt, log).event.kind is EventKind.PUSH_RECEIVED


@pytest.mark.parametrize("purpose", [KeyPurpose.TOKEN, KeyPurpose.DECRYPTION])
def test_stolen_token_or_decryption_key(year: Year, purpose: KeyPurpose) -> None:
    year.traffic()
    lost = year.key("XB-NCVI", purpose)
    year.do("XB-NCVI", keyacts.revoke(lost, year.clock() - 60, "stolen"))
    card = parse_card(issued_card(year["XB-NCVI"].node))
    assert lost not in {key.key_id for key in card.opening}
    year.check()


@pytest.mark.parametrize("year", [THREE], indirect=True)
def test_partner_rings_before_its_gateway_says_so(year: Year) -> None:
    year.traffic()
    year.do("XC-NCVI", keyacts.revoke_partner_key("XB-NCVI", year.clock(), "they rang"))
    year.traffic()
    held = len(held_entries(year["XC-NCVI"], "XB-NCVI/found"))
    assert held < year.listed
    assert year.attempt("XC-NCVI", "XB-NCVI") is not None
    year.do("XB-NCVI", keyacts.revoke(year.key("XB-NCVI", KeyPurpose.SIGNING), year.clock(), "stolen"))
    year.traffic()
    for here in ("XA-NCVI", "XC-NCVI"):
        year.enrol(here, "XB-NCVI")
    year.check()


def test_a_revoked_key_cannot_be_enrolled_again(year: Year) -> None:
    year.traffic()
    old = issued_card(year["XA-NCVI"].node)
    year.do("XA-NCVI", keyacts.revoke(year.key("XA-NCVI", KeyPurpose.SIGNING), year.clock(), "stolen"))
    year.traffic()
    with pytest.raises(ConflictError, match="replaced or compromised"):
        year.do("XB-NCVI", add_partner(old))


@pytest.mark.parametrize("year", [THREE], indirect=True)
def test_total_loss_and_enrolment_anew_by_fingerprint(year: Year, tmp_path: Path) -> None:
    year.traffic()
    year["XA-NCVI"].node.store.close()
    (tmp_path / "elsewhere").mkdir()
    new = year.found("XA-NCVI", seed="after the fire", folder=tmp_path / "elsewhere")
    for there in ("XB-NCVI", "XC-NCVI"):
        year.enrol("XA-NCVI", there)
    make_set(year["XA-NCVI"], "found-anew", drafts(4))
    # 1. What the new gateway says is nobody's word.
    assert year.attempt("XB-NCVI", "XA-NCVI") is not None
    # 2. Two people on each side compare the fingerprint and enrol the new keys.
    year.do("XC-NCVI", keyacts.revoke_partner_key("XA-NCVI", year.clock(), "everything burned"))
    for here in ("XB-NCVI", "XC-NCVI"):
        year.enrol(here, "XA-NCVI")
        asyncio.run(year.network.sync(here, "XA-NCVI").pull("XA-NCVI/found-anew"))
        assert len(held_entries(year[here], "XA-NCVI/found-anew")) == 4
    # 3. The keys of before stay dead.
    for here, old in (("XB-NCVI", "deactivated"), ("XC-NCVI", "compromised")):
        with year[here].node.store.reading() as tx:
            assert sorted(row.state for row in tx.keys.of_partner("XA-NCVI")) == sorted(["active", old])
    assert issued_card(new)


def test_suspended_and_found_again(year: Year) -> None:
    year.traffic()
    lost = year.key("XA-NCVI", KeyPurpose.SIGNING)
    ownkeys.suspend(year["XA-NCVI"].node, lost, by="alice", reason="a laptop is missing")
    year.traffic()
    held = len(held_entries(year["XB-NCVI"], "XA-NCVI/found"))
    year.traffic()
    assert len(held_entries(year["XB-NCVI"], "XA-NCVI/found")) == held
    year.do("XA-NCVI", keyacts.reinstate(lost, "it lay in the car"))
    year.do("XA-NCVI", resume())
    year.check()


def test_brake_and_lift_test_stay_with_two(year: Year) -> None:
    pause(year["XA-NCVI"].node, "XB-NCVI", by="alice")
    year.traffic()
    year.do("XA-NCVI", resume("XB-NCVI"))
    with pytest.raises(ConflictError, match="not under test"):
        year.do("XA-NCVI", lift_test("XB-NCVI"))
    year.check()
