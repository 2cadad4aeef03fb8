"""Push, pull, policy on both sides, withdrawal, receipts: two and three gateways in one process."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from factory import FakeClock, befriend, drafts, make_node, make_set, set_state, sha256
from gateway import audit
from gateway.crypto import envelope
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import (
    ConflictError,
    DeniedError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    StaleCursorError,
    VerificationError,
)
from gateway.exchange import CURSOR_MEDIA_TYPE, RECEIPT_MEDIA_TYPE, Exchange, neveragain
from gateway.exchange.lookup import format_entry
from gateway.interchange import START, Cursor, FeedHead, PageHead, dump_page
from gateway.model import HandlingCode, Restriction, VictimStatus
from gateway.node import log_origin
from partner_simulator import Network, Rogue, held_entries, refused

SET = "XA-NCVI/identified"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Network:
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI", "XC-NCVI")]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    return network


@pytest.fixture
def xa(network: Network) -> Exchange:
    exchange = network.members["XA-NCVI"]
    make_set(exchange, "identified", drafts(40, series="Blue Door"))
    return exchange


@pytest.fixture
def xb(network: Network, xa: Exchange) -> Exchange:
    return network.members["XB-NCVI"]


def entries(exchange: Exchange) -> set[int]:
    return set(held_entries(exchange, SET))


def log_of(exchange: Exchange) -> audit.LogReport:
    node = exchange.node
    with node.store.reading() as tx:
        key = node.keystore.log_key(log_origin(node.agency)).verifier
        return audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), key)


def kinds(exchange: Exchange) -> list[str]:
    with exchange.node.store.reading() as tx:
        rows = list(tx.log.leaves())
    return [str(audit.parse_event(row.event_bytes).kind) for row in rows if row.event_bytes]


async def test_pull_brings_the_whole_set_and_both_sides_are_equal(network: Network, xa: Exchange, xb: Exchange) -> None:
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.changes, report.equality, report.lag) == (40, "equal", 0)
    assert entries(xb) == entries(xa)
    assert log_of(xa).blocks > 0
    assert log_of(xb).blocks > 0


async def test_push_is_answered_by_a_receipt_that_verifies(network: Network, xa: Exchange, xb: Exchange) -> None:
    report = await network.sync("XA-NCVI", "XB-NCVI").push(SET)
    assert entries(xb) == entries(xa)
    [(message_id, receipt)] = report.receipts.items()
    key = VerifierKey.parse(xa.card_of("XB-NCVI").log)
    proof = audit.verify_receipt(receipt, key)
    assert (proof.message_id, proof.sender) == (message_id, "XA-NCVI")
    assert "receipt_stored" in kinds(xa)


async def test_a_second_pull_without_news_asks_once_and_gets_no_body(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull_set(SET)
    network.requests.clear()
    head = xb.held_head("XA-NCVI", SET)
    assert head is not None
    assert xa.head_for("XB-NCVI", SET).etag == head[1]
    await network.sync("XB-NCVI", "XA-NCVI").pull_set(SET)
    assert network.requests == ["XB-NCVI XA-NCVI head"]


async def test_the_head_is_signed_anew_at_half_life_and_refused_after_its_end(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    first = xa.head_for("XB-NCVI", SET)
    clock.advance(11 * 3600)
    assert xa.head_for("XB-NCVI", SET).etag == first.etag
    clock.advance(3600)
    assert xa.head_for("XB-NCVI", SET).etag != first.etag
    clock.advance(13 * 3600)
    assert isinstance(refused(lambda: xb.take_head("XA-NCVI", first.body)), VerificationError)


async def test_no_byte_of_a_withheld_group_is_in_the_page(network: Network, xa: Exchange, clock: FakeClock) -> None:
    secrets = [sha256(f"perceptual {number}") for number in range(50)]
    listed = [
        draft._replace(digests={**draft.digests, "pdq": secret}, victim_ref=f"VICTIM-REF-{number}")
        for number, (draft, secret) in enumerate(zip(drafts(50, first=100, series="Open"), secrets, strict=True))
    ]
    xa.ledger.import_entries(SET, listed, actor="tester", form="test")
    xc = network.members["XC-NCVI"]
    head = xc.take_head("XA-NCVI", xa.head_for("XC-NCVI", SET).body)
    page = xa.page_for("XC-NCVI", SET, START)
    assert page is not None
    opened = envelope.open_envelope(
        BytesIO(page.body),
        xc.node.keystore.opening_keys,
        lambda _sender: (xa.node.keystore.signing_key.public,),
        now=clock(),
        audiences={envelope.view_audience(head.cursor.view)},
    )
    raw = opened.read_payload(1 << 24)
    assert all(draft.digests["sha256"] in raw for draft in listed)
    assert not any(secret in raw for secret in secrets)
    assert b"VICTIM-REF" not in raw
    assert b"ref-1" not in raw
    xc.take_page("XA-NCVI", page.body)
    held = held_entries(xc, SET)
    assert len(held) == 90
    assert not any({"pdq", "victim_ref", "source_ref"} & one.keys() for one in held.values())


async def test_an_embargoed_entry_is_never_shared_and_leaves_where_it_was(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    embargo = (Restriction.EMBARGO,)
    xa.ledger.import_entries(SET, drafts(3, series="Blue Door", restrictions=embargo), actor="tester", form="test")
    xa.ledger.import_entries(SET, drafts(2, first=200, restrictions=embargo), actor="tester", form="test")
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert report.equality == "equal"
    assert len(entries(xa)) == 42
    assert len(entries(xb)) == 37


async def test_a_superseded_version_is_never_served_to_a_newcomer(network: Network, xa: Exchange, xb: Exchange) -> None:
    xa.ledger.import_entries(SET, drafts(40, restrictions=(Restriction.EMBARGO,)), actor="tester", form="test")
    xa.ledger.import_entries(SET, drafts(1, first=300), actor="tester", form="test")
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.changes, len(entries(xb))) == (1, 1)


async def test_a_withdrawal_follows_what_was_sent_and_is_acknowledged(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    first = sorted(entries(xa))[0]
    xa.ledger.withdraw(SET, [first], actor="tester", reason="listed wrongly")
    await network.sync("XB-NCVI", "XA-NCVI").sync()
    assert first not in entries(xb)
    with xa.node.store.reading() as tx:
        [message] = [row for row in tx.mail.incoming("XB-NCVI") if row.kind == "withdrawal_answer"]
    assert xa.mailbox.read(message)["outcome"] == "applied"
    assert xa.mailbox.read(message)["entries"] == 1


async def test_an_entry_asserted_and_withdrawn_between_two_pulls_is_not_mentioned(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    xa.ledger.import_entries(SET, drafts(1, first=500), actor="tester", form="test")
    new = max(entries(xa))
    xa.ledger.withdraw(SET, [new], actor="tester", reason="listed wrongly")
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.changes, report.equality) == (0, "equal")


async def test_what_the_receiver_refuses_is_counted_but_not_kept(network: Network, xa: Exchange, xb: Exchange) -> None:
    xa.ledger.import_entries(SET, drafts(4, first=600, evaluation="F6"), actor="tester", form="test")
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.refused, report.equality) == (4, "equal")
    assert len(entries(xb)) == 40
    assert "rows_refused" in kinds(xb)
    # The originator learns better: the same entries come with a better evaluation and are taken.
    xa.ledger.import_entries(SET, drafts(4, first=600, evaluation="B2"), actor="tester", form="test")
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.refused, report.equality, len(entries(xb))) == (0, "equal", 44)


async def test_a_tightened_policy_recalls_and_a_widened_one_fills_up(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    xa.ledger.import_entries(SET, drafts(7, first=700, handling=HandlingCode.H2), actor="tester", form="test")
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert len(entries(xb)) == 47
    texts = dict(xa.node.policies.texts)
    name = "XA/agreement-xb.cedar"
    narrow = texts[name].replace('[Handling::"H0", Handling::"H1", Handling::"H2"]', '[Handling::"H0", Handling::"H1"]')
    assert narrow != texts[name]
    switch_policy(xa, {**texts, name: narrow})
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (len(entries(xb)), report.equality) == (40, "equal")
    switch_policy(xa, texts)
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (len(entries(xb)), report.equality) == (47, "equal")


def switch_policy(exchange: Exchange, texts: dict[str, str]) -> None:
    exchange.node.policies.texts = texts
    exchange.node.policies._loaded = None


@pytest.mark.parametrize("page_changes", [1, 7])
async def test_small_pages_bring_the_same_as_one(tmp_path: Path, clock: FakeClock, page_changes: int) -> None:
    nodes = [
        make_node(tmp_path, "XA-NCVI", clock=clock, page_changes=page_changes),
        make_node(tmp_path, "XB-NCVI", clock=clock),
    ]
    befriend(*nodes)
    network = Network()
    xa, xb = (network.join(node) for node in nodes)
    make_set(xa, "identified", drafts(10))
    for number in range(4):
        code = (HandlingCode.H2, HandlingCode.H1)[number % 2]
        xa.ledger.import_entries(SET, drafts(6, first=8 + 5 * number, handling=code), actor="tester", form="test")
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.equality, entries(xb)) == ("equal", entries(xa))
    assert report.pages > 3
    texts = dict(xa.node.policies.texts)
    name = "XA/agreement-xb.cedar"
    switch_policy(xa, {**texts, name: texts[name].replace(', Handling::"H2"]', "]")})
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    switch_policy(xa, texts)
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.equality, entries(xb)) == ("equal", entries(xa))


# Hubs, owners, callers


async def test_a_set_is_never_served_to_its_owner_nor_a_mirror_to_anyone(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert xb.sets_for("XA-NCVI") == []
    assert xb.sets_for("XC-NCVI") == []
    for partner in ("XA-NCVI", "XC-NCVI"):
        with pytest.raises(NotFoundError):
            xb.head_for(partner, SET)
    with pytest.raises(DeniedError):
        xb.ledger.import_entries(SET, drafts(1, first=900), actor="tester", form="test")


async def test_only_its_owner_speaks_for_a_set(network: Network, xa: Exchange, xb: Exchange, clock: FakeClock) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    head = FeedHead.parse(xa.head_for("XB-NCVI", SET).head.dump())
    rogue = Rogue(network.members["XC-NCVI"], network.members["XC-NCVI"].card_of("XB-NCVI"), clock)
    for forged in (head, replace(head, hub="XC-NCVI")):
        error = refused(lambda forged=forged: xb.accept("XC-NCVI", BytesIO(rogue.head(forged))))
        assert isinstance(error, DeniedError)
    assert kinds(xb)[-2:] == ["message_refused"] * 2


async def test_an_envelope_of_another_sender_is_refused_from_any_caller(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    body = xa.head_for("XB-NCVI", SET).body
    assert isinstance(refused(lambda: xb.accept("XC-NCVI", BytesIO(body))), VerificationError)
    assert xb.accept("XA-NCVI", BytesIO(body)).media_type == CURSOR_MEDIA_TYPE


async def test_removed_suspended_and_paused_partners_get_nothing(network: Network, xa: Exchange, xb: Exchange) -> None:
    for state in ("suspended", "removed", "pending"):
        set_state(xa.node, "XB-NCVI", state)
        with pytest.raises(NotFoundError):
            xa.head_for("XB-NCVI", SET)
    set_state(xa.node, "XB-NCVI", "active")
    with xa.node.store.transaction() as tx:
        tx.people.pause("*", "tester", 1)
    with pytest.raises(OverloadedError):
        xa.head_for("XB-NCVI", SET)


async def test_the_same_message_gets_the_same_receipt_and_no_second_effect(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    xb.accept("XA-NCVI", BytesIO(xa.head_for("XB-NCVI", SET).body))
    page = xa.page_to_push("XB-NCVI", SET, START)
    assert page is not None
    first = xb.accept("XA-NCVI", BytesIO(page.body))
    size = log_of(xb).size
    assert first.media_type == RECEIPT_MEDIA_TYPE
    assert [xb.accept("XA-NCVI", BytesIO(page.body)) for _ in range(3)] == [first] * 3
    assert log_of(xb).size == size


async def test_a_used_message_id_with_other_content_is_a_conflict(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    xb.accept("XA-NCVI", BytesIO(xa.head_for("XB-NCVI", SET).body))
    page = xa.page_to_push("XB-NCVI", SET, START)
    assert page is not None
    xb.accept("XA-NCVI", BytesIO(page.body))
    rogue = Rogue(xa, xa.card_of("XB-NCVI"), clock)
    forged = rogue.page(b"something else", message_id=page.message_id)
    assert type(refused(lambda: xb.accept("XA-NCVI", BytesIO(forged)))) is ConflictError


async def test_a_page_that_does_not_start_at_the_cursor_is_stale_and_says_where_we_are(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    page = xa.page_to_push("XB-NCVI", SET, START)
    assert page is not None
    error = refused(lambda: xb.accept("XA-NCVI", BytesIO(page.body)))
    assert isinstance(error, StaleCursorError)
    assert error.cursor == xb.mirrors.cursor(SET).to_json()


@pytest.mark.once
async def test_any_flipped_byte_of_a_page_is_refused_and_changes_nothing(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    xb.accept("XA-NCVI", BytesIO(xa.head_for("XB-NCVI", SET).body))
    page = xa.page_to_push("XB-NCVI", SET, START)
    assert page is not None
    for at in range(0, len(page.body), 97):
        damaged = page.body[:at] + bytes([page.body[at] ^ 0x20]) + page.body[at + 1 :]
        error = refused(lambda damaged=damaged: xb.accept("XA-NCVI", BytesIO(damaged)))
        assert isinstance(error, MalformedError | VerificationError)
    assert entries(xb) == set()
    assert kinds(xb).count("message_refused") == len(range(0, len(page.body), 97))
    xb.accept("XA-NCVI", BytesIO(page.body))
    assert len(entries(xb)) == 40


# A hub that lies


async def test_a_head_that_goes_back_is_refused(network: Network, xa: Exchange, xb: Exchange, clock: FakeClock) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    head = FeedHead.parse(xa.head_for("XB-NCVI", SET).head.dump())
    rogue = Rogue(xa, xa.card_of("XB-NCVI"), clock)
    back = replace(head.cursor, seq=head.cursor.seq - 1)
    lies = {
        "seq": rogue.head(head, cursor=back),
        "epoch": rogue.head(head, cursor=replace(head.cursor, epoch=0)),
        "issued": rogue.head(head, issued=head.issued - 1),
        "key": rogue.head(head, key="00" * 32),
        "partner": rogue.head(head, partner="XC-NCVI"),
        "expired": rogue.head(head, expires=clock() - 301),
        "future": rogue.head(head, issued=clock() + 301, expires=clock() + 900),
    }
    for what, body in lies.items():
        error = refused(lambda body=body: xb.accept("XA-NCVI", BytesIO(body)))
        assert isinstance(error, VerificationError), what


async def test_a_page_that_does_not_fit_its_head_is_refused(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    sealed = xa.head_for("XB-NCVI", SET)
    xb.accept("XA-NCVI", BytesIO(sealed.body))
    rogue = Rogue(xa, xa.card_of("XB-NCVI"), clock)
    cursor = sealed.head.cursor
    page = PageHead(
        hub="XA-NCVI", set_name=SET, start=START, end=Cursor(1, cursor.view, 40), target=cursor.view, reset=False,
        left=(), labels=(), blocks=0, changes=0,
    )  # fmt: skip
    lies = {
        "beyond the head": replace(page, end=Cursor(1, cursor.view, 41)),
        "another target": replace(page, target="ab" * 32),
        "another epoch": replace(page, end=Cursor(2, cursor.view, 40)),
        "another set": replace(page, set_name="XA-NCVI/unknown"),
        "another hub": replace(page, hub="XC-NCVI"),
        "fewer blocks": replace(page, blocks=1),
        "another count": replace(page, changes=5),
    }
    for what, head in lies.items():
        raw = BytesIO()
        dump_page(head, [], raw)
        error = refused(lambda raw=raw: xb.accept("XA-NCVI", BytesIO(rogue.page(raw.getvalue()))))
        assert isinstance(error, MalformedError | ConflictError | DeniedError | NotFoundError), what
    assert xb.mirrors.cursor(SET) == START


async def test_a_page_of_lies_shows_as_a_different_state(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    sealed = xa.head_for("XB-NCVI", SET)
    xb.accept("XA-NCVI", BytesIO(sealed.body))
    rogue = Rogue(xa, xa.card_of("XB-NCVI"), clock)
    page = PageHead(
        hub="XA-NCVI", set_name=SET, start=START, end=sealed.head.cursor, target=sealed.head.cursor.view, reset=False,
        left=(), labels=(), blocks=0, changes=0,
    )  # fmt: skip
    raw = BytesIO()
    dump_page(page, [], raw)
    xb.accept("XA-NCVI", BytesIO(rogue.page(raw.getvalue())))
    assert xb.mirrors.equality(SET) == "different"


async def test_an_endless_feed_is_cut_off(
    network: Network, xa: Exchange, xb: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.MAX_PAGES", 20)
    xb.mailbox.write("XA-NCVI", "note", {"subject": "greetings"})
    monkeypatch.setattr(xb.mailbox, "sealed_after", lambda card, after: xb.mailbox.seal(card, [mail(xb)]).body)
    with pytest.raises(Exception, match="never ends"):
        await network.sync("XA-NCVI", "XB-NCVI").exchange_mail()


def mail(exchange: Exchange) -> object:
    with exchange.node.store.reading() as tx:
        return tx.mail.sent_mail()[0]


# Mailbox, look-up, whereabouts


async def test_mail_goes_both_ways_once_and_in_order(network: Network, xa: Exchange, xb: Exchange) -> None:
    for number in range(3):
        xa.mailbox.write("XB-NCVI", "note", {"subject": f"to XB {number}"})
        xb.mailbox.write("XA-NCVI", "note", {"subject": f"to XA {number}"})
    await network.sync("XA-NCVI", "XB-NCVI").exchange_mail()
    await network.sync("XA-NCVI", "XB-NCVI").exchange_mail()
    for here, there in ((xa, "XB-NCVI"), (xb, "XA-NCVI")):
        with here.node.store.reading() as tx:
            bodies = [here.mailbox.read(row)["subject"] for row in tx.mail.incoming(there)]
        assert bodies == [f"to {here.node.agency[:2]} {n}" for n in (2, 1, 0)]
    assert xa.mailbox.waiting("XB-NCVI") == []


async def test_look_up_answers_from_every_set_and_is_logged(network: Network, xa: Exchange, xb: Exchange) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    known, unknown = drafts(1)[0].digests["sha256"].hex(), "00" * 31 + "01"
    [hit] = xb.lookup.find([unknown, known.upper()], actor="tester")
    assert (hit.query, hit.set_name, hit.series, hit.hub) == (1, SET, "Blue Door", "XA-NCVI")
    assert kinds(xb)[-1] == "look_up"
    with pytest.raises(MalformedError):
        xb.lookup.find(["abc"], actor="tester")


async def test_where_says_who_holds_an_entry_after_push_and_pull(network: Network, xa: Exchange, xb: Exchange) -> None:
    entry = format_entry(min(entries(xa)))
    assert xa.lookup.where(SET, entry).holders == ()
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    await network.sync("XA-NCVI", "XC-NCVI").push(SET)
    assert [(one.partner, one.holds) for one in xa.lookup.where(SET, entry).holders] == [
        ("XB-NCVI", True),
        ("XC-NCVI", True),
    ]


# Imports


def test_importing_twice_changes_nothing_and_a_changed_row_is_a_new_version(xa: Exchange) -> None:
    again = xa.ledger.import_entries(SET, drafts(40, series="Blue Door"), actor="tester", form="test")
    assert (again.unchanged, again.added, again.updated) == (40, 0, 0)
    changed = xa.ledger.import_entries(
        SET, drafts(2, series="Red Door", victim_status=VictimStatus.IDENTIFIED), actor="tester", form="test"
    )
    assert (changed.updated, changed.added) == (2, 0)
    held = held_entries(xa, SET)
    assert sorted(one["version"] for one in held.values()) == [1] * 38 + [2] * 2


def test_an_entry_without_reference_is_known_by_its_strongest_digest(xa: Exchange) -> None:
    nameless = [draft._replace(source_ref="") for draft in drafts(5, first=50)]
    assert xa.ledger.import_entries(SET, nameless, actor="tester", form="test").added == 5
    assert xa.ledger.import_entries(SET, nameless, actor="tester", form="test").unchanged == 5
    doubled = xa.ledger.import_entries(SET, [*nameless, *nameless], actor="tester", form="test")
    assert (doubled.repeated, doubled.unchanged) == (5, 5)


def test_a_withdrawn_entry_that_is_reinstated_and_listed_again_gets_a_new_id(xa: Exchange) -> None:
    before = entries(xa)
    xa.ledger.withdraw(SET, sorted(before)[:1], actor="tester", reason="listed wrongly")
    again = xa.ledger.import_entries(SET, drafts(40, series="Blue Door"), actor="tester", form="test")
    assert (again.refused, again.unchanged) == (1, 39)
    with xa.node.store.transaction() as tx:
        neveragain.lift(xa.node, tx, [1], details={"deed": "reinstated"})
    xa.ledger.import_entries(SET, drafts(40, series="Blue Door"), actor="tester", form="test")
    after = entries(xa)
    assert len(after) == 40
    assert len(after - before) == 1


def test_the_index_is_rebuilt_after_a_restart(network: Network, xa: Exchange) -> None:
    before = held_entries(xa, SET)
    again = network.join(xa.node)
    assert held_entries(again, SET) == before


@pytest.mark.parametrize("meanwhile", ["another view", "a day later"])
async def test_a_page_whose_answer_was_lost_gets_its_receipt_however_late(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock, meanwhile: str
) -> None:
    xb.accept("XA-NCVI", BytesIO(xa.head_for("XB-NCVI", SET).body))
    page = xa.page_to_push("XB-NCVI", SET, START)
    assert page is not None
    lost = xb.accept("XA-NCVI", BytesIO(page.body))
    if meanwhile == "another view":
        xa.ledger.import_entries(SET, drafts(1, first=900, evaluation="A1"), actor="tester", form="test")
        await network.sync("XB-NCVI", "XA-NCVI").pull()
    else:
        clock.advance(2 * 86_400)
    report = await network.sync("XA-NCVI", "XB-NCVI").push(SET)
    assert report.receipts[page.message_id] == lost.body
    assert log_of(xb).size > 0


async def test_what_our_own_policy_now_takes_or_no_longer_takes_is_fetched_anew(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    xa.ledger.import_entries(SET, drafts(4, first=600, evaluation="F6"), actor="tester", form="test")
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert len(entries(xb)) == 40
    texts = dict(xb.node.policies.texts)
    name = "XB/agreement-xa.cedar"
    nothing = {path: text for path, text in texts.items() if path != name}
    switch_policy(xb, nothing)
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.equality, report.refused, entries(xb)) == ("equal", 44, set())
    switch_policy(xb, texts)
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.equality, report.refused, len(entries(xb))) == ("equal", 4, 40)
    # A push finds it out as well as a pull.
    switch_policy(xb, nothing)
    await network.sync("XA-NCVI", "XB-NCVI").push(SET)
    assert entries(xb) == set()
    switch_policy(xb, texts)
    await network.sync("XA-NCVI", "XB-NCVI").push(SET)
    assert len(entries(xb)) == 40


# What may no longer be held goes back


def without(exchange: Exchange, name: str) -> dict[str, str]:
    return {path: text for path, text in exchange.node.policies.texts.items() if path != name}


async def test_a_partner_that_may_see_nothing_any_more_gives_everything_back_and_forgets_the_way(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    texts = dict(xa.node.policies.texts)
    switch_policy(xa, without(xa, "XA/agreement-xb.cedar"))
    # Who holds nothing learns nothing: the set does not exist. Who holds something is asked for it.
    with pytest.raises(NotFoundError):
        xa.head_for("XC-NCVI", "XA-NCVI/other")
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.equality, entries(xb)) == ("equal", set())
    assert xa.sets_for("XB-NCVI") == []
    with pytest.raises(NotFoundError):
        xa.head_for("XB-NCVI", SET)
    # It may come back.
    switch_policy(xa, texts)
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert (report.equality, entries(xb)) == ("equal", entries(xa))


@pytest.mark.parametrize("ends", [True, False])
async def test_what_was_pushed_is_taken_back_from_a_partner_that_never_asks(
    network: Network, xa: Exchange, xb: Exchange, *, ends: bool
) -> None:
    xa.ledger.import_entries(SET, drafts(7, first=700, handling=HandlingCode.H2), actor="tester", form="test")
    await network.sync("XA-NCVI", "XB-NCVI").push(SET)
    name = "XA/agreement-xb.cedar"
    narrow = {**xa.node.policies.texts, name: xa.node.policies.texts[name].replace(', Handling::"H2"]', "]")}
    switch_policy(xa, without(xa, name) if ends else narrow)
    await network.sync("XA-NCVI", "XB-NCVI").sync()
    assert len(entries(xb)) == (0 if ends else 40)
    before = len(network.requests)
    assert xa.to_recall("XB-NCVI") == []
    assert len(network.requests) == before


async def test_a_page_on_its_way_goes_no_further_when_policy_narrows(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    xb.accept("XA-NCVI", BytesIO(xa.head_for("XB-NCVI", SET).body))
    page = xa.page_to_push("XB-NCVI", SET, START)
    assert page is not None
    switch_policy(xa, without(xa, "XA/agreement-xb.cedar"))
    assert xa.waiting_pages("XB-NCVI") == []
    with xa.node.store.reading() as tx:
        sent = tx.mail.sent(page.message_id)
    assert sent is not None
    assert (sent.state, sent.sealed) == ("dead", b"")
    await network.sync("XA-NCVI", "XB-NCVI").sync()
    assert entries(xb) == set()
