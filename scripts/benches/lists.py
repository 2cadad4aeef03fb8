"""Hash lists on their way in and across: import, accept, delta, poll."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

from measure import Bar, Figure, Run, Scale, against, compare, timed
from tables import JSON, add_all, csv_and_executemany, executemany, floor, json_pipeline
from worlds import FLOOR_BYTES, FOLLOWER, HUB, Pair, batches, csv_file, drafts, fill, make_pair, table_rows

from factory import card_of
from gateway.adapters import read_batches
from gateway.audit import verify_receipt
from gateway.columns.drafts import DraftBatch
from gateway.crypto.checkpoint import VerifierKey
from gateway.interchange import START
from gateway.model import AdapterReport

ORM_ROWS = 5_000  # some 150 us each, however many there are
HASH_TABLE = "executemany into a table keyed by hash"


def bench_import(scale: Scale) -> Iterator[Figure]:
    """Ready drafts, as adapters hand them over, into an own set: told apart, summed, sealed, logged, durable."""
    count = scale.size(200_000, 4_000)
    entries = list(batches(count))
    rows = table_rows(list(drafts(count)))
    table = scale.folder / "import.db"
    sizes: list[float] = []

    def product() -> Run:
        with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
            pair = make_pair(Path(place), stack)
            before = pair.hub.database.stat().st_size
            run = timed(lambda: _import(pair, entries, count), count)
            sizes.append((pair.hub.database.stat().st_size - before) / count)
        return run

    baselines = {
        HASH_TABLE: lambda: executemany(table, rows),
        "SQLModel add_all": lambda: add_all(table, rows[: scale.size(ORM_ROWS, 500)]),
    }
    bars = {HASH_TABLE: Bar(1, at_least=5), "SQLModel add_all": Bar(1, at_least=50)}
    yield from compare("import", product, baselines, unit="entries/s", rounds=scale.rounds, bars=bars)
    yield from _import_file(scale, count)
    yield Figure("import.disk", min(sizes), "B/entry", bar=Bar(1, at_most=95))
    yield against(
        "import.disk.floor", min(sizes), "B/entry", "the entropy of its columns", FLOOR_BYTES, Bar(1, at_most=1.2)
    )


def _import(pair: Pair, entries: Iterable[DraftBatch], count: int) -> None:
    tally = pair.hub.exchange.ledger.import_entries(pair.set_name, entries, actor="bench", form="bench")
    assert tally.added == tally.rows == count


def _import_file(scale: Scale, count: int) -> Iterator[Figure]:
    """A CSV file into an own set, each cell of it checked, beside what a script would do with it."""
    raw, table = csv_file(drafts(count)), scale.folder / "file.db"

    def product() -> Run:
        with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
            pair, report = make_pair(Path(place), stack), AdapterReport("gateway_csv")
            return timed(lambda: _import(pair, read_batches(BytesIO(raw), report.format, report), count), count)

    baselines = {"csv and executemany, nothing checked": lambda: csv_and_executemany(table, raw)}
    yield from compare("import.file", product, baselines, unit="entries/s", rounds=scale.rounds)


def bench_accept(scale: Scale) -> Iterator[Figure]:
    """Pushed pages into an empty mirror: opened, signatures verified, decided, checked, sealed, logged, durable."""
    count = scale.size(200_000, 4_000)
    table = scale.folder / "accept.db"
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        pair = make_pair(Path(place), stack)
        fill(pair, count)
        pair.announce()
        kept = pair.follower.keep()
        pages = pair.serve(START)
        rows = table_rows(list(drafts(count)))
        log = VerifierKey.parse(card_of(pair.follower.exchange.node).log)

        def product() -> Run:
            follower = pair.follower.back_to(kept)
            receipts: list[bytes] = []
            run = timed(lambda: receipts.extend(follower.accept(HUB, BytesIO(page.body)).body for page in pages), count)
            for page, receipt in zip(pages, receipts, strict=True):
                verify_receipt(receipt, log, manifest_digest=page.manifest_digest)
            assert follower.mirrors.equality(pair.set_name) == "equal"
            return run

        baselines = {HASH_TABLE: lambda: executemany(table, rows, upsert=True)}
        bars = {HASH_TABLE: Bar(1, at_least=5)}
        yield from compare("accept", product, baselines, unit="entries/s", rounds=scale.rounds, bars=bars)


def bench_delta(scale: Scale) -> Iterator[Figure]:
    """A follower that is `d` changes behind: the hub serves, the follower applies; both decide, log and commit."""
    held = scale.size(100_000, 4_000)
    for changes in (1_000,) if scale.quick else (1_000, 10_000, 100_000):
        with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
            pair = make_pair(Path(place), stack)
            yield from _delta(scale, pair, held, changes)


def _delta(scale: Scale, pair: Pair, held: int, changes: int) -> Iterator[Figure]:
    name, table = f"delta-{changes}", scale.folder / "delta.db"
    fill(pair, held)
    pair.catch_up()
    cursor = pair.follower.exchange.mirrors.cursor(pair.set_name)
    fill(pair, changes, first=held)
    pair.announce()
    kept = pair.follower.keep()
    rows = table_rows(list(drafts(changes, first=held)))
    stages: dict[str, list[Run]] = {"serve": [], "apply": []}
    wire: list[int] = []
    json_wire: list[int] = []

    def product() -> Run:
        pair.follower.back_to(kept)
        pages = []
        serve = timed(lambda: pages.extend(pair.serve(cursor)), changes)
        words: list[str] = []
        apply = timed(lambda: words.append(pair.apply(pages)), changes)
        assert words == ["equal"]
        assert sum(page.head.changes for page in pages) == changes
        wire.append(sum(len(page.body) for page in pages))
        stages["serve"].append(serve)
        stages["apply"].append(apply)
        return Run(serve.seconds + apply.seconds, changes)

    def as_json() -> Run:
        run, sent = json_pipeline(table, rows)
        json_wire.append(sent)
        return run

    least, pipeline = "floor: pack, AEAD, fsync", f"{JSON}, zstd, AEAD, executemany upsert"
    large = changes >= 10_000  # what the targets speak of
    yield from compare(
        name,
        product,
        {least: lambda: floor(table, rows)},
        unit="us/change",
        rounds=scale.rounds,
        bars={least: Bar(3, at_most=6)} if large else {},
        slower=True,
    )
    yield from compare(
        f"{name}.json",
        product,
        {pipeline: as_json},
        unit="changes/s",
        rounds=scale.rounds,
        bars={pipeline: Bar(3, at_least=5)} if large else {},
    )
    for stage, runs in stages.items():
        yield Figure(f"{name}.{stage}", sorted(1e6 / run.rate for run in runs)[len(runs) // 2], "us/change")
    sent = wire[0] / changes
    yield Figure(f"{name}.wire", sent, "B/change", bar=Bar(3, at_most=84) if large else None)
    bar = Bar(3, at_most=1.06) if large else None
    yield against(f"{name}.wire.floor", sent, "B/change", "the entropy of its columns", FLOOR_BYTES, bar)
    yield against(f"{name}.wire.json", sent, "B/change", f"{JSON}, zstd, AEAD", json_wire[0] / changes)


def bench_poll(scale: Scale) -> Iterator[Figure]:
    """An unchanged feed: what the hub does to say so, beside sealing a new head."""
    polls = scale.size(50, 5)
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        pair = make_pair(Path(place), stack)
        fill(pair, scale.size(20_000, 2_000))
        pair.catch_up()
        hub, node = pair.hub.exchange, pair.hub.exchange.node
        held = pair.follower.exchange.held_head(HUB, pair.set_name)
        assert held is not None

        def unchanged() -> None:
            for _ in range(polls):
                assert hub.head_for(FOLLOWER, pair.set_name).etag == held[1]  # the door answers 304 without a body

        def anew() -> None:
            for _ in range(polls):
                with node.store.transaction() as tx:
                    tx.sets.drop_heads([FOLLOWER])
                assert hub.head_for(FOLLOWER, pair.set_name).head.count == held[0].count

        baselines = {"a newly sealed head": lambda: timed(anew, polls)}
        yield from compare("poll", lambda: timed(unchanged, polls), baselines, unit="polls/s", rounds=scale.rounds)
