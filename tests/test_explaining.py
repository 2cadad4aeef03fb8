"""Why an entry went, or did not: said of real gateways between which it went, or did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from factory import FakeClock, befriend, card_of, drafts, enrol, make_node, make_set, set_state, sha256
from gateway import audit
from gateway.errors import MalformedError, NotFoundError
from gateway.exchange import Exchange
from gateway.exchange.explaining import Story
from gateway.exchange.lookup import format_entry
from gateway.model import EntryDraft, HandlingCode, Restriction
from partner_simulator import Network, held_entries

SET = "XA-NCVI/identified"


@pytest.fixture
def network(tmp_path: Path) -> Network:
    clock = FakeClock()
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI", "XC-NCVI")]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    return network


@pytest.fixture
def xa(network: Network) -> Exchange:
    exchange = network.members["XA-NCVI"]
    make_set(exchange, "identified", drafts(5))
    add(exchange, "secret", handling=HandlingCode.H3, restrictions=(Restriction.EMBARGO,))
    return exchange


def add(exchange: Exchange, word: str, **words: Any) -> None:
    draft = EntryDraft({"sha256": sha256(word)}, source_ref=f"case-{word}/1", **words)
    exchange.ledger.import_entries(SET, [draft], actor="tester", form="test")


def told(exchange: Exchange, named: str, partner: str = "XB-NCVI") -> Story:
    [story] = exchange.storyteller.explain(named, partner)
    return story


def digest(word: str) -> str:
    return sha256(word).hex()


def kind_of(exchange: Exchange, leaf: int) -> str:
    with exchange.node.store.reading() as tx:
        [row] = tx.log.leaves(leaf, leaf + 1)
    assert row.event_bytes is not None
    return str(audit.parse_event(row.event_bytes).kind)


async def test_what_went_is_told_with_its_page_its_rule_and_what_it_went_without(
    network: Network, xa: Exchange
) -> None:
    add(xa, "open", handling=HandlingCode.H2)
    await network.sync("XC-NCVI", "XA-NCVI").pull()
    await network.sync("XC-NCVI", "XA-NCVI").pull()  # so that it confirms
    story = told(xa, digest("open"), "XC-NCVI")
    assert (story.holds, story.sent) == (False, ())
    assert "XC-NCVI does not receive entry" in story.sentence
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    [sent] = told(xa, digest("open")).sent
    assert kind_of(xa, sent) == "page_served"
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    story = told(xa, digest("open"))
    assert (story.holds, story.allowed, story.sent) == (True, True, (sent,))
    assert story.sentence.startswith(
        f"XB-NCVI holds entry {story.entry} of {SET} (leaf {sent}), because it is permitted"
    )
    assert "xa-xb-share-list" in story.rules
    assert "without perceptual digests (no rule)" in story.sentence
    assert story.receipt is not None
    assert kind_of(xa, story.receipt) == "share_decided"


async def test_what_policy_forbids_is_told_with_the_rule_that_forbids_it(network: Network, xa: Exchange) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    story = told(xa, digest("secret"))
    assert (story.allowed, story.holds, story.sent) == (False, False, ())
    assert "does not receive" in story.sentence
    assert "is forbidden [fed-embargo:" in story.sentence
    assert story.rules == ("fed-embargo",)


def test_what_is_allowed_and_was_never_asked_for_says_so(xa: Exchange) -> None:
    add(xa, "open", handling=HandlingCode.H1)
    story = told(xa, digest("open"))
    assert (story.allowed, story.holds, story.stands, story.receipt) == (True, False, None, None)
    assert "has not received" in story.sentence
    assert "has never asked for this set" in story.sentence


async def test_what_came_after_the_partners_cursor_says_where_the_partner_stands(
    network: Network, xa: Exchange
) -> None:
    for _ in range(2):
        await network.sync("XB-NCVI", "XA-NCVI").pull()
    add(xa, "late", handling=HandlingCode.H1)
    story = told(xa, digest("late"))
    assert f"stands at {story.stands}, and the entry came with {story.seq}" in story.sentence
    assert story.sent == ()


async def test_what_went_and_is_now_forbidden_is_told_as_to_be_deleted(network: Network, xa: Exchange) -> None:
    add(xa, "open", handling=HandlingCode.H1)
    for _ in range(2):
        await network.sync("XB-NCVI", "XA-NCVI").pull()
    texts = xa.node.policies.texts
    xa.node.policies.texts = {k: v for k, v in texts.items() if k != "XA/agreement-xb.cedar"}
    xa.node.policies._loaded = None
    story = told(xa, digest("open"))
    assert (story.allowed, story.holds) == (False, True)
    assert "still holds, and will be told to delete," in story.sentence
    assert "no rule permits it" in story.sentence


async def test_what_was_withdrawn_is_told_as_withdrawn(network: Network, xa: Exchange) -> None:
    add(xa, "open", handling=HandlingCode.H1)
    for _ in range(2):
        await network.sync("XB-NCVI", "XA-NCVI").pull()
    entry = told(xa, digest("open")).entry
    [number] = [one for one in held_entries(xa, SET) if format_entry(one) == entry]
    xa.ledger.withdraw(SET, [number], actor="tester", reason="wrong")
    with pytest.raises(NotFoundError, match="was withdrawn"):
        told(xa, f"{SET}/{entry}")


def test_a_partner_that_may_not_exchange_is_the_reason(network: Network, xa: Exchange, tmp_path: Path) -> None:
    add(xa, "open", handling=HandlingCode.H1)
    set_state(xa.node, "XB-NCVI", "suspended")
    assert "this partner is suspended" in told(xa, digest("open")).sentence
    assert "no partner of this gateway" in told(xa, digest("open"), "XB-COAST").sentence
    stranger = make_node(tmp_path, "XB-PORT", clock=FakeClock())
    enrol(xa.node, card_of(stranger))
    with xa.node.store.transaction() as tx:
        tx.people.pause("XB-PORT", "tester", 1)
    assert "paused" in told(xa, digest("open"), "XB-PORT").sentence
    stranger.store.close()


async def test_what_came_from_a_hub_is_told_as_taken_or_refused(network: Network, xa: Exchange) -> None:
    add(xa, "good", handling=HandlingCode.H1, evaluation="A1")
    add(xa, "doubtful", handling=HandlingCode.H1, evaluation="E5")
    xb = network.members["XB-NCVI"]
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    story = told(xb, digest("good"), "XA-NCVI")
    assert "is held here, because it is permitted" in story.sentence
    assert kind_of(xb, story.receipt or 0) == "share_decided"
    entry = told(xa, digest("doubtful")).entry
    story = told(xb, f"{SET}/{entry}", "XA-NCVI")
    assert "was refused when it came, because no rule permits it" in story.sentence
    story = told(xb, digest("good"), "XC-NCVI")
    assert (story.allowed, story.holds) == (False, False)
    assert "XC-NCVI does not receive entry" in story.sentence


def test_an_entry_is_named_by_id_digest_or_reference_with_or_without_its_set(xa: Exchange) -> None:
    add(xa, "open")
    entry = told(xa, digest("open")).entry
    for named in (digest("open").upper(), "case-open/1", entry):
        for prefix in ("", "identified/", f"{SET}/"):
            assert told(xa, prefix + named).entry == entry
    for named in (digest("nothing"), "case-nothing", "0009-000000000009", "identified/", "other/case-open/1"):
        with pytest.raises(NotFoundError):
            xa.storyteller.explain(named, "XB-NCVI")
    with pytest.raises(NotFoundError):
        xa.storyteller.explain("case-open/1", "XB-NCVI", set_name="XA-NCVI/other")


def test_what_was_asked_for_is_never_repeated(xa: Exchange) -> None:
    add(xa, "open", series="Blue Door", victim_ref="V-1")
    for named in (digest("open"), "case-open/1"):
        said = repr(told(xa, named))
        assert not any(word in said for word in (digest("open"), "case-open", "Blue Door", "V-1"))
    for named in (digest("nothing"), "case-nothing"):
        with pytest.raises(NotFoundError) as caught:
            xa.storyteller.explain(named, "XB-NCVI")
        assert named not in str(caught.value)


def test_a_partner_that_is_no_agency_is_refused(xa: Exchange) -> None:
    add(xa, "open")
    with pytest.raises(MalformedError):
        xa.storyteller.explain("case-open/1", "nobody")
