"""What an import makes of its rows: new, changed, unchanged, repeated, and sums that stay true."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory import FakeClock, SeededRandom, make_node, make_set, sha256
from gateway.columns.block import decode
from gateway.columns.rows import GROUP_CODES
from gateway.exchange import Exchange
from gateway.exchange.changes import Sums
from gateway.exchange.labels import digest_key
from gateway.exchange.shelf import CHANGES, block_id
from gateway.model import EntryDraft, HandlingCode
from partner_simulator import held_entries

SET = "XA-NCVI/identified"


@pytest.fixture
def xa(tmp_path: Path) -> Exchange:
    exchange = Exchange(make_node(tmp_path, clock=FakeClock(), random=SeededRandom(1)))
    make_set(exchange, "identified")
    return exchange


def take(exchange: Exchange, *drafts: EntryDraft) -> tuple[int, int, int, int]:
    """(added, updated, unchanged, repeated)"""
    tally = exchange.ledger.import_entries(SET, drafts, actor="tester", form="test")
    assert tally.rows == len(drafts)
    return tally.added, tally.updated, tally.unchanged, tally.repeated


def assert_sums_are_those_of_the_live_rows(exchange: Exchange) -> None:
    """What was kept with every change equals what the rows that are held give anew."""
    with exchange.node.store.reading() as tx:
        hash_set = tx.sets.get(SET)
        assert hash_set.id is not None
        kept = Sums(tx, hash_set.id, digest_key(exchange.node, hash_set))
        anew = Sums(tx, hash_set.id, kept.key)
        anew.drop()
        for row in tx.blocks.of_set(hash_set.id):
            with exchange.shelf.index(tx, hash_set.id) as index:
                live = index.live_rows(block_id(row))
            if row.kind == CHANGES and live.any():
                block = exchange.shelf.get(tx, row, GROUP_CODES.values())
                anew.add([(row.label, decode(block).take(live), block.parts)])
        assert kept.state() == anew.state()
        assert kept.entries() == anew.entries()


def digests(number: int, *names: str) -> dict[str, bytes]:
    raw = {"sha256": sha256(f"{number}"), "md5": sha256(f"md5 {number}")[:16], "pdq": sha256(f"pdq {number}")}
    return {name: raw[name] for name in names}


def test_the_last_row_of_an_entry_counts(xa: Exchange) -> None:
    one = EntryDraft(digests(1, "sha256"), series="Blue Door")
    assert take(xa, one, one._replace(series="Red Door")) == (1, 0, 0, 1)
    [held] = held_entries(xa, SET).values()
    assert held["series"] == "Red Door"


def test_rows_of_several_shapes_and_labels_are_told_apart(xa: Exchange) -> None:
    drafts = [
        EntryDraft(
            digests(n, *(("md5", "sha256"), ("sha256", "md5"), ("pdq",))[n % 3]), handling=list(HandlingCode)[n % 2]
        )
        for n in range(12)
    ]
    assert take(xa, *drafts) == (12, 0, 0, 0)
    assert take(xa, *reversed(drafts)) == (0, 0, 12, 0)
    assert take(xa, *(draft._replace(handling=HandlingCode.H2) for draft in drafts[:5])) == (0, 5, 0, 0)
    assert {one["version"] for one in held_entries(xa, SET).values()} == {1, 2}
    assert_sums_are_those_of_the_live_rows(xa)


def test_a_digest_in_two_columns_names_two_entries(xa: Exchange) -> None:
    value = sha256("both 32 bytes long")
    assert take(xa, EntryDraft({"sha256": value}), EntryDraft({"pdq": value})) == (2, 0, 0, 0)


def test_two_rows_that_mean_one_entry_change_it_once(xa: Exchange) -> None:
    """Known by sha256 and known by md5, the rows have different shapes and one meaning."""
    take(xa, EntryDraft(digests(1, "sha256", "md5")))
    [before] = held_entries(xa, SET)
    stronger = EntryDraft(digests(1, "sha256", "md5"), series="Blue Door")
    assert take(xa, stronger, EntryDraft(digests(1, "md5"), series="Red Door")) == (0, 1, 0, 1)
    [(after, held)] = held_entries(xa, SET).items()
    assert (after, held["series"], held["version"]) == (before, "Red Door", 2)
    assert_sums_are_those_of_the_live_rows(xa)


def test_a_row_is_unchanged_although_an_earlier_one_of_its_entry_differs(xa: Exchange) -> None:
    held = EntryDraft(digests(1, "sha256", "md5"))
    take(xa, held)
    assert take(xa, EntryDraft(digests(1, "md5"), series="Blue Door"), held) == (0, 0, 1, 1)


def test_an_entry_with_a_reference_is_known_by_nothing_else(xa: Exchange) -> None:
    take(xa, EntryDraft(digests(1, "sha256"), source_ref="A-1"))
    assert take(xa, EntryDraft(digests(1, "sha256"))) == (1, 0, 0, 0)
    assert take(xa, EntryDraft(digests(2, "sha256"), source_ref="A-1")) == (0, 1, 0, 0)
    assert_sums_are_those_of_the_live_rows(xa)


def test_an_entry_of_texts_alone_is_taken_once_a_batch(xa: Exchange) -> None:
    text = EntryDraft({"ssdeep": b"3:abc:def"})
    assert take(xa, text, text) == (1, 0, 0, 1)
