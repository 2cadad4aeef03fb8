"""An enrolled partner, or somebody at the database, turns against us: each try is refused, and nothing changes."""

from __future__ import annotations

import threading
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import text

from factory import FakeClock, SeededRandom, befriend, drafts, make_node, make_set
from gateway.columns.block import Block, encode_block
from gateway.columns.rows import Rows, constant, counting
from gateway.errors import (
    AuditBrokenError,
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    OverloadedError,
    StaleCursorError,
    VerificationError,
)
from gateway.exchange import Exchange
from gateway.exchange.drafting import Drafter
from gateway.interchange import NO_VIEW, START, Cursor, FeedHead, PageHead, PageLabel, dump_page, parse_page
from gateway.logcheck import verify_own_log
from gateway.model import HandlingCode, Restriction
from gateway.node import POLICY_META
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
    make_set(exchange, "identified", drafts(12, series="Blue Door"))
    return exchange


@pytest.fixture
def xb(network: Network, xa: Exchange) -> Exchange:
    return network.members["XB-NCVI"]


@pytest.fixture
def rogue(xa: Exchange, clock: FakeClock) -> Rogue:
    return Rogue(xa, xa.card_of("XB-NCVI"), clock)


def raw_page(head: PageHead, blocks: list[Block] | None = None) -> bytes:
    sink = BytesIO()
    dump_page(head, blocks or [], sink)
    return sink.getvalue()


def many_rows(count: int, first: int = 1) -> Block:
    rows = Rows.of(
        count,
        {
            "kind": constant(1, count),
            "seq": counting(first, count),
            "entry_id": counting((1 << 48) + first, count),
            "version": constant(1, count),
        },
    )
    return encode_block(
        set_name=SET, epoch=1, label=1, label_digest=bytes(range(32)), rows=rows, salt=lambda: bytes(16)
    )


def label_of(xa: Exchange, **changed: object) -> PageLabel:
    head = xa.head_for("XB-NCVI", SET).head
    page = xa.page_for("XB-NCVI", SET, START)
    assert page is not None
    attributes = {**page.head.labels[0].attributes, **changed}
    assert head.cursor.seq
    return replace(page.head.labels[0], digest=bytes(range(32)).hex(), attributes=attributes)


def test_a_small_page_that_stands_for_very_many_rows_is_refused_before_it_is_unpacked(
    xa: Exchange, xb: Exchange, rogue: Rogue
) -> None:
    head = FeedHead.parse(xa.head_for("XB-NCVI", SET).head.dump())
    far = replace(head, cursor=replace(head.cursor, seq=1 << 24))
    xb.accept("XA-NCVI", BytesIO(rogue.head(far)))
    page = PageHead(
        hub="XA-NCVI", set_name=SET, start=START, end=far.cursor, target=far.cursor.view, reset=False, left=(),
        labels=(label_of(xa),), blocks=3, changes=3 * 65_536,
    )  # fmt: skip
    blocks = [many_rows(65_536, 1 + 65_536 * n) for n in range(3)]
    for lie in (page, replace(page, changes=10)):
        error = refused(lambda lie=lie: xb.accept("XA-NCVI", BytesIO(rogue.page(raw_page(lie, blocks)))))
        assert isinstance(error, MalformedError)
    assert held_entries(xb, SET) == {}


async def test_a_label_that_was_judged_cannot_be_rewritten(
    network: Network, xa: Exchange, xb: Exchange, rogue: Rogue
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    cursor = xb.mirrors.cursor(SET)
    page = PageHead(
        hub="XA-NCVI", set_name=SET, start=cursor, end=cursor, target=cursor.view, reset=False, left=(),
        labels=(label_of(xa, evaluation="A1"),), blocks=0, changes=0,
    )  # fmt: skip
    error = refused(lambda: xb.accept("XA-NCVI", BytesIO(rogue.page(raw_page(page)))))
    assert isinstance(error, MalformedError)
    assert "without leaving" in error.message


def test_a_set_speaks_of_its_owners_entries_only(xa: Exchange, xb: Exchange, rogue: Rogue) -> None:
    sealed = xa.head_for("XB-NCVI", SET)
    xb.accept("XA-NCVI", BytesIO(sealed.body))
    label = label_of(xa, originator="XC-NCVI", jurisdiction="XC")
    page = PageHead(
        hub="XA-NCVI", set_name=SET, start=START, end=sealed.head.cursor, target=sealed.head.cursor.view, reset=False,
        left=(), labels=(label,), blocks=0, changes=0,
    )  # fmt: skip
    assert isinstance(refused(lambda: xb.accept("XA-NCVI", BytesIO(rogue.page(raw_page(page))))), MalformedError)


def test_the_same_page_from_three_threads_has_one_effect_and_one_receipt(xa: Exchange, xb: Exchange) -> None:
    xb.accept("XA-NCVI", BytesIO(xa.head_for("XB-NCVI", SET).body))
    page = xa.page_to_push("XB-NCVI", SET, START)
    assert page is not None
    answers: list[bytes | GatewayError] = []

    def post() -> None:
        try:
            answers.append(xb.accept("XA-NCVI", BytesIO(page.body)).body)
        except GatewayError as error:
            answers.append(error)

    threads = [threading.Thread(target=post) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert isinstance(answers[0], bytes)
    assert len(held_entries(xb, SET)) == 12


async def test_a_receipt_that_came_first_is_not_overwritten(network: Network, xa: Exchange, xb: Exchange) -> None:
    report = await network.sync("XA-NCVI", "XB-NCVI").push(SET)
    [message_id] = report.receipts
    xa.give_up(message_id, "a late failure of another process")
    with xa.node.store.reading() as tx:
        sent = tx.mail.sent(message_id)
    assert sent is not None
    assert (sent.state, sent.receipt) == ("received", report.receipts[message_id])


async def test_a_receipt_for_anothers_mail_proves_nothing(network: Network, xa: Exchange, xb: Exchange) -> None:
    xc = network.members["XC-NCVI"]
    xc.mailbox.write("XB-NCVI", "note", {"subject": "from XC"})
    xa.mailbox.write("XB-NCVI", "note", {"subject": "from XA"})
    theirs = xc.mailbox.seal(xc.card_of("XB-NCVI"), xc.mailbox.waiting("XB-NCVI"))
    receipt = xb.accept("XC-NCVI", BytesIO(theirs.body)).body
    ours = xa.mailbox.seal(xa.card_of("XB-NCVI"), xa.mailbox.waiting("XB-NCVI"))
    assert isinstance(refused(lambda: xa.confirm_mail("XB-NCVI", 1, ours, receipt)), VerificationError)
    assert len(xa.mailbox.waiting("XB-NCVI")) == 1


async def test_naming_anothers_view_tells_nothing(network: Network, xa: Exchange, xb: Exchange) -> None:
    xa.ledger.import_entries(SET, drafts(3, first=50, handling=HandlingCode.H2), actor="tester", form="test")
    await network.sync("XC-NCVI", "XA-NCVI").pull()
    xa.head_for("XB-NCVI", SET)
    others = network.members["XC-NCVI"].mirrors.cursor(SET)
    unknown = replace(others, view="ab" * 32)
    answers = [xa.page_for("XB-NCVI", SET, cursor) for cursor in (others, unknown)]
    assert [(page.head.reset, page.head.left) for page in answers if page] == [(True, ())] * 2


def test_what_is_paused_or_suspended_meanwhile_does_not_leave(
    xa: Exchange, xb: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    xa.head_for("XB-NCVI", SET)
    gather = xa.server._drafter.page

    def paused_while_gathering(*arguments: object) -> object:
        found = gather(*arguments)  # type: ignore[arg-type]
        network_pause.append(True)
        return found

    network_pause: list[bool] = []
    monkeypatch.setattr(Drafter, "page", lambda _self, *arguments: paused_while_gathering(*arguments))
    seal = xa.server._seal

    def seal_then_pause(*arguments: object) -> object:
        with xa.node.store.transaction() as tx:
            tx.people.pause("XB-NCVI", "duty-officer", 1)
        return seal(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(type(xa.server), "_seal", lambda _self, *arguments: seal_then_pause(*arguments))
    assert isinstance(refused(lambda: xa.page_for("XB-NCVI", SET, START)), OverloadedError)
    assert network_pause


def test_a_process_that_decides_by_an_old_policy_exchanges_nothing(xa: Exchange, xb: Exchange) -> None:
    with xa.node.store.transaction() as tx:
        tx.people.set_meta(POLICY_META, "another digest")
    assert isinstance(refused(lambda: xa.head_for("XB-NCVI", SET)), OverloadedError)


def test_an_embargo_cannot_be_lifted_in_the_database(xa: Exchange, xb: Exchange) -> None:
    embargo = (Restriction.EMBARGO,)
    xa.ledger.import_entries(SET, drafts(3, first=70, restrictions=embargo), actor="tester", form="test")
    with xa.node.store.transaction() as tx:
        change = "UPDATE label SET attributes = replace(attributes, '\"embargo\"', '')"
        assert tx.connection.execute(text(change)).rowcount
    assert isinstance(refused(lambda: xa.head_for("XB-NCVI", SET)), AuditBrokenError)


def test_large_values_make_more_pages_and_not_one_that_nobody_takes(tmp_path: Path, clock: FakeClock) -> None:
    nodes = [make_node(tmp_path, a, clock=clock, random=SeededRandom(f"{a} wide")) for a in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    xa, xb = (network.join(node) for node in nodes)
    make_set(xa, "identified")
    noise = SeededRandom("noise")
    wide = [
        draft._replace(digests={**draft.digests, "ssdeep": noise.bytes(2000).hex().encode()}) for draft in drafts(9000)
    ]
    xa.ledger.import_entries(SET, wide, actor="tester", form="test")
    cursor, pages = START, 0
    head = xa.head_for("XB-NCVI", SET)
    xb.take_head("XA-NCVI", head.body)
    while cursor != head.head.cursor:
        page = xa.page_for("XB-NCVI", SET, cursor)
        assert page is not None
        assert len(page.body) < 32 << 20
        xb.take_page("XA-NCVI", page.body)
        cursor, pages = page.head.end, pages + 1
    assert xb.mirrors.equality(SET) == "equal"
    assert len(held_entries(xb, SET)) == 9000


async def test_one_part_that_fails_keeps_no_other_waiting(
    network: Network, xa: Exchange, xb: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(xb, "own", drafts(2, first=90))
    page = None
    xb.accept("XA-NCVI", BytesIO(xa.head_for("XB-NCVI", SET).body))
    page = xa.page_to_push("XB-NCVI", SET, START)
    assert page is not None
    monkeypatch.setattr(xb, "accept", lambda *_: (_ for _ in ()).throw(OverloadedError("busy")))
    with pytest.raises(OverloadedError):
        await network.sync("XA-NCVI", "XB-NCVI").sync()
    assert len(held_entries(xa, "XB-NCVI/own")) == 2
    for _ in range(60):
        with pytest.raises(OverloadedError):  # what was taken is to be acknowledged, and mail is never given up
            await network.sync("XA-NCVI", "XB-NCVI").sync()
    assert xa.waiting_pages("XB-NCVI") == []
    assert xa.mailbox.waiting("XB-NCVI")


def test_rows_that_belong_to_no_leaf_are_found_by_the_check_in_short_reads(xa: Exchange) -> None:
    assert verify_own_log(xa.node).size > 0
    with xa.node.store.transaction() as tx:
        tx.connection.execute(text("INSERT INTO audit_node (level, idx, hash) VALUES (40, 7, x'00')"))
    with pytest.raises(AuditBrokenError):
        verify_own_log(xa.node)


def test_a_page_of_our_own_reads_back_as_it_was_made(xa: Exchange) -> None:
    head = PageHead(
        hub="XA-NCVI", set_name=SET, start=Cursor(0, NO_VIEW, 0), end=Cursor(1, "ab" * 32, 5), target="ab" * 32,
        reset=False, left=(3,), labels=(label_of(xa),), blocks=1, changes=7,
    )  # fmt: skip
    block = many_rows(7)
    parsed, blocks = parse_page(BytesIO(raw_page(head, [block])))
    assert (parsed, list(blocks)) == (head, [block])
    for at in range(len(raw_page(head, [block]))):
        with pytest.raises((MalformedError, VerificationError, ConflictError, DeniedError, StaleCursorError)):
            list(parse_page(BytesIO(raw_page(head, [block])[:at]))[1])
