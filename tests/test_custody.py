"""The chain of custody: what is proved is told as proved, what is not as not, and what was tampered with as broken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from case_builders import CLUE, SUMMARY, case_record
from factory import FakeClock, befriend, make_node
from gateway.caserecord import CASE_GROUPS
from gateway.cases.custody import Custody, Step, Verdict, chain
from gateway.cases.custodypage import page
from gateway.crypto import canonical
from gateway.exchange import Exchange
from gateway.store import Transaction
from gateway.vidx import dump_case
from partner_simulator import Network
from test_referral import XA, XB, Table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    clock = FakeClock()
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in (XA, XB)]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    return Table(network, clock)


def referral_of(custody: Custody) -> Step:
    [step] = [one for one in custody.steps if one.deed.startswith("referral")]
    return step


def verdicts(step: Step) -> dict[str, Verdict]:
    return {one.what: one.verdict for one in step.checks}


def test_a_referral_is_proved_at_both_ends_by_what_the_other_signed(table: Table) -> None:
    sent, came = table.refer()
    table[XB].talk.accept(came)
    table.settle()
    here, there = chain(table[XA].node, sent), chain(table[XB].node, came)
    assert [one.deed for one in here.steps] == [
        "imported",
        "referral, sent",
        "answer received, came",
        "answer accepted, came",
    ]
    assert [one.deed for one in there.steps] == ["answer received, sent", "referral, came", "answer accepted, sent"]
    assert here.verdict is there.verdict is Verdict.VERIFIED
    assert verdicts(there.steps[-1]) == {"our log": "verified", "receipt": "not proved"}  # XA fetched that answer
    left, arrived = referral_of(here), referral_of(there)
    assert left.digest == arrived.digest
    assert verdicts(left) == {"our log": "verified", "receipt": "verified", "signature": "verified"}
    assert verdicts(arrived) == {"our log": "verified", "signature": "verified"}
    assert (left.who, left.partner, arrived.who) == (XA, XB, XA)


def test_what_is_on_its_way_is_not_proved_and_what_was_fetched_is_by_the_partners_word(table: Table) -> None:
    [taken] = table[XA].cases.take_in([case_record()], form="vidx")
    table[XA].referrals.refer(taken.case, XB)
    step = referral_of(chain(table[XA].node, taken.case))
    assert (step.verdict, verdicts(step)["receipt"], verdicts(step)["signature"]) == ("not proved",) * 3
    # XB fetches it: there is no receipt then, but the answer that XB signed says that it has the report.
    body = table[XA].mailbox_for(XB, 0)
    assert body is not None
    number = table[XB].take_mail(XA, body)
    assert table[XA].mailbox_for(XB, number) is None
    table.settle()
    step = referral_of(chain(table[XA].node, taken.case))
    assert (step.verdict, verdicts(step)["receipt"], verdicts(step)["signature"]) == (
        "verified",
        "not proved",
        "verified",
    )


def tamper_receipt(_: Exchange, tx: Transaction) -> None:
    rows = tx.connection.execute(text("SELECT number, receipt FROM mail_out WHERE kind = 'case_referral'")).all()
    for number, raw in rows:
        members = json.loads(bytes(raw))
        event = json.loads(members["event"])
        event["details"]["report_digest"] = "0" * 64
        members["event"] = json.dumps(event, separators=(",", ":"), sort_keys=True)
        forged = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
        asked = {"r": forged, "n": number}
        tx.connection.execute(text("UPDATE mail_out SET receipt = :r WHERE number = :n"), asked)


def swap_receipts(exchange: Exchange, tx: Transaction) -> None:
    """Another message's receipt, true in itself, stands in place of the one."""
    rows = tx.mail.sent_mail(XB)
    other = next(one for one in rows if one.kind == "note")
    asked = {"r": other.receipt}
    tx.connection.execute(text("UPDATE mail_out SET receipt = :r WHERE kind = 'case_referral'"), asked)


def tamper_event(_: Exchange, tx: Transaction) -> None:
    statement = "UPDATE audit_leaf SET event = replace(event, :before, :after) WHERE event LIKE :kind"
    values = {"before": '"version":1', "after": '"version":7', "kind": '%"kind":"case_sent"%'}
    tx.connection.execute(text(statement), values)


def tamper_message(_: Exchange, tx: Transaction) -> None:
    """The database tells of a message at a leaf that says something else."""
    tx.connection.execute(text("UPDATE case_message SET leaf = leaf - 1 WHERE kind = 'case_referral'"))


@pytest.mark.parametrize(
    "tamper", [tamper_receipt, swap_receipts, tamper_event, tamper_message], ids=lambda one: one.__name__
)
def test_what_was_tampered_with_is_shown_as_broken(
    table: Table, tamper: Callable[[Exchange, Transaction], None]
) -> None:
    table[XA].mailbox.write(XB, "note", {"text": "before"})
    sent, _ = table.refer()
    assert chain(table[XA].node, sent).verdict is Verdict.VERIFIED
    with table[XA].node.store.transaction() as tx:
        tamper(table[XA], tx)
    custody = chain(table[XA].node, sent)
    assert custody.verdict is Verdict.BROKEN
    assert "broken" in page(custody).decode()


def test_a_report_that_was_swapped_before_it_left_is_shown_as_broken(table: Table) -> None:
    """Our log says which report was referred; the partner's receipt and signature say which one came."""
    [taken] = table[XA].cases.take_in([case_record()], form="vidx")
    table[XA].referrals.refer(taken.case, XB)
    node = table[XA].node
    with node.store.transaction() as tx:
        [row] = tx.mail.sent_mail(XB)
        body = table[XA].mailbox.read(row)
        body["report"] = dump_case(case_record(summary="other words"), list(CASE_GROUPS)).decode()
        sealed = node.keystore.master_key.seal(canonical.encode(body), f"mail to {XB} {row.number}", node.random)
        tx.mail.reseal(row, sealed)
    table.settle()
    custody = chain(node, taken.case)
    assert custody.verdict is Verdict.BROKEN
    assert verdicts(referral_of(custody)) == {"our log": "verified", "receipt": "broken", "signature": "not proved"}


def test_a_case_that_is_erased_keeps_its_chain_and_loses_the_signed_words(table: Table) -> None:
    sent, came = table.refer()
    table[XA].referrals.recall(sent, XB, "it was sent by mistake")
    table.settle()
    table[XB].referrals.keep_house()
    there = chain(table[XB].node, came)
    step = referral_of(there)
    assert (step.verdict, verdicts(step)) == ("not proved", {"our log": "verified", "signature": "not proved"})
    assert there.reference == ""
    here = chain(table[XA].node, sent)
    assert [one.deed for one in here.steps][-2:] == ["recall, sent", "answer deleted, came"]
    assert here.steps[-1].verdict is Verdict.VERIFIED


def test_the_page_is_one_file_without_script_and_shows_nothing_of_the_content(table: Table) -> None:
    sent, _ = table.refer(reference='K<script>alert("1")</script>&')
    shown = page(chain(table[XA].node, sent)).decode()
    assert "&lt;script&gt;" in shown
    assert not re.search(r"<script|<img|<link|https?://|javascript:|@import|url\(", shown)
    assert "@media print" in shown
    assert "default-src 'none'" in shown
    assert CLUE not in shown
    assert SUMMARY not in shown
