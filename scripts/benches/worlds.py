"""Synthetic entries in the reference shape, and gateways in a folder to measure with.

Reference shape: sha256 + md5 + pdq with a quality, evenly over 50 labels. All digests are of made-up strings.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factory import FakeClock, befriend, make_node, make_set
from gateway.columns.drafts import DraftBatch, DraftRows
from gateway.columns.rows import Rows
from gateway.crypto.keys import SYSTEM_RANDOM
from gateway.exchange import Exchange, SealedPage
from gateway.interchange import Cursor
from gateway.model import EntryDraft, HandlingCode, LabelWords, VictimStatus

HUB, FOLLOWER = "XA-NCVI", "XB-NCVI"
LABELS = tuple(
    LabelWords(handling, victim_status=status, evaluation=evaluation)
    for handling, status, evaluation in itertools.product(
        (HandlingCode.H0, HandlingCode.H1),  # the codes under which XB gets every digest from XA
        tuple(VictimStatus)[1:6],
        ("A1", "A2", "B1", "B2", "C3"),
    )
)
DIGEST_BYTES = 32 + 16 + 32
QUALITIES = 21  # 80 … 100
# What no encoding can go below: three random digests, which label, which quality.
FLOOR_BYTES = DIGEST_BYTES + (math.log2(len(LABELS)) + math.log2(QUALITIES)) / 8
SEED = 20261118
CLOCK = FakeClock()  # it stands: nothing expires while we measure


BATCH = 8_192  # drafts at a time, as adapters hand them over


def batches(count: int, *, first: int = 0) -> Iterator[DraftBatch]:
    """Entries `first` … `first` + `count` - 1 by the column; the same numbers are the same entries in every run."""
    source = np.random.default_rng((SEED, first))
    for start in range(first, first + count, BATCH):
        n = min(BATCH, first + count - start)
        raw = np.frombuffer(b"".join(map(digests, range(start, start + n))), np.uint8).reshape(n, DIGEST_BYTES)
        columns = {
            "sha256": raw[:, :32],
            "md5": raw[:, 32:48],
            "pdq": raw[:, 48:],
            "pdq_quality": source.integers(80, 80 + QUALITIES, n).astype(np.uint64),
        }
        words = source.integers(0, len(LABELS), n)
        yield DraftBatch((DraftRows(Rows.of(n, columns), np.arange(n), words),), LABELS)


def drafts(count: int, *, first: int = 0) -> Iterator[EntryDraft]:
    """The same entries as objects."""
    return itertools.chain.from_iterable(batch.drafts() for batch in batches(count, first=first))


def csv_file(entries: Iterable[EntryDraft]) -> bytes:
    """Entries as a file of our own format (contracts/hash-csv-1.md), digests first."""
    lines = ["sha256,md5,pdq,pdq_quality,handling,victim_status,evaluation"]
    for one in entries:
        hexed = ",".join(one.digests[name].hex() for name in ("sha256", "md5", "pdq"))
        lines.append(f"{hexed},{one.pdq_quality},{one.handling},{one.victim_status},{one.evaluation}")
    return "\n".join(lines).encode()


def digests(number: int) -> bytes:
    """80 bytes out of one made-up string, which stand for the digests of one file."""
    return hashlib.shake_128(b"made-up file %d" % number).digest(DIGEST_BYTES)


Row = tuple[bytes, bytes, bytes, int, int]
SCHEMA = (
    "CREATE TABLE h(sha256 BLOB PRIMARY KEY, md5 BLOB, pdq BLOB, label INT, quality INT) WITHOUT ROWID",
    "CREATE TABLE label(number INTEGER PRIMARY KEY, handling TEXT, status TEXT, evaluation TEXT)",
)


def table_rows(entries: list[EntryDraft]) -> list[Row]:
    """The same entries as rows of a plain table, sorted by key as its best case wants them."""
    numbers = {label: number for number, label in enumerate(LABELS)}
    rows = [
        (
            one.digests["sha256"],
            one.digests["md5"],
            one.digests["pdq"],
            numbers[one.words],
            one.pdq_quality,
        )
        for one in entries
    ]
    return sorted(rows)


@dataclass(slots=True)
class Gateway:
    """One gateway whose state can be kept and taken back, so that every round starts alike."""

    exchange: Exchange

    @property
    def database(self) -> Path:
        """Its database file."""
        return self.exchange.node.settings.folder / "gateway.db"

    def close(self) -> None:
        """Close its database."""
        self.exchange.node.store.close()

    def keep(self) -> Path:
        """Keep the present state."""
        kept = self.database.with_suffix(".kept")
        self.exchange.node.store.close()
        shutil.copy(self.database, kept)
        self.reopen()
        return kept

    def back_to(self, kept: Path) -> Exchange:
        """The state that was kept, in a process that has been running for a while: policy loaded, index resident."""
        self.exchange.node.store.close()
        shutil.copy(kept, self.database)
        self.reopen()
        return self.exchange

    def reopen(self) -> None:
        """Follow the file anew: the index as it is there, policy and statements as they were."""
        self.exchange = Exchange(self.exchange.node)
        with self.exchange.node.store.reading() as tx:
            for hash_set in tx.sets.all():
                with self.exchange.shelf.index(tx, hash_set.id or 0):
                    pass


@dataclass(slots=True)
class Pair:
    """A hub and its follower."""

    hub: Gateway
    follower: Gateway
    set_name: str

    def announce(self) -> None:
        """The follower takes the hub's feed head."""
        self.follower.exchange.take_head(HUB, self.hub.exchange.head_for(FOLLOWER, self.set_name).body)

    def serve(self, cursor: Cursor) -> list[SealedPage]:
        """Every page from a cursor to the hub's present state."""
        pages = []
        while (page := self.hub.exchange.page_for(FOLLOWER, self.set_name, cursor)) is not None:
            pages.append(page)
            cursor = page.head.end
        return pages

    def apply(self, pages: list[SealedPage]) -> str:
        """Take pages in; the word of the last one on equality."""
        word = "unknown"
        for page in pages:
            word = self.follower.exchange.take_page(HUB, page.body).equality
        return word

    def catch_up(self) -> None:
        """Bring the follower to where the hub is, page by page, so that no more than one page is held."""
        self.announce()
        cursor, word = self.follower.exchange.mirrors.cursor(self.set_name), "unknown"
        while (page := self.hub.exchange.page_for(FOLLOWER, self.set_name, cursor)) is not None:
            word = self.follower.exchange.take_page(HUB, page.body).equality
            cursor = page.head.end
        assert word == "equal"


def make_pair(folder: Path, stack: ExitStack, **settings: object) -> Pair:
    """A hub with an empty set, and a follower that has never asked. Both close with `stack`."""
    nodes = [
        make_node(folder, agency, clock=CLOCK, random=SYSTEM_RANDOM, page_changes=65_536, **settings)
        for agency in (HUB, FOLLOWER)
    ]
    befriend(*nodes)
    hub, follower = (Gateway(Exchange(node)) for node in nodes)
    for one in (hub, follower):
        stack.callback(one.close)
    return Pair(hub, follower, make_set(hub.exchange, "identified"))


def fill(pair: Pair, count: int, *, first: int = 0) -> None:
    """Import entries into the hub's set."""
    pair.hub.exchange.ledger.import_entries(pair.set_name, batches(count, first=first), actor="bench", form="bench")
