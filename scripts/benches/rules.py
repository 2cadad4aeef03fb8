"""Policy and audit: decisions and leaves beside the plainest code that could do them."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import engine
from measure import Bar, Figure, Run, Scale, compare, timed
from worlds import FOLLOWER, HUB, LABELS, SEED, make_pair

from factory import START_TIME, card_of
from gateway import audit, enumerating, policy
from gateway.audit import EventKind
from gateway.columns import Rows, counting, select_delta
from gateway.config import read_policies
from gateway.crypto import merkle
from gateway.crypto.checkpoint import VerifierKey
from gateway.model import ENTRY_GROUPS, FieldGroup, HandlingCode, Label, LabelWords, Restriction, Surface, VictimStatus
from gateway.policy import SCHEMA, Action, Grid, LabelInSet, PartnerRef, Question
from gateway.policy.deciding import label_attributes, partner_attributes

POLICIES = Path(__file__).parents[2] / "policies"


def _label(words: LabelWords) -> Label:
    assert words.handling is not None
    assert words.victim_status is not None
    status, evaluation = words.victim_status, words.evaluation
    return Label(HUB, HUB[:2], words.handling, "icse:1", status, evaluation, "XA Act, section 1")


def bench_policy(scale: Scale) -> Iterator[Figure]:
    """A hub's table of label and partner: filling it from Cedar, and applying it to every change of a list."""
    texts = read_policies(POLICIES, HUB[:2])
    today = datetime.fromtimestamp(START_TIME, UTC).date()
    partner = PartnerRef(FOLLOWER, FOLLOWER[:2])
    held = {number: LabelInSet(f"{HUB}/identified", _label(words)) for number, words in enumerate(LABELS, 1)}

    def fill() -> Run:
        rules = policy.load(texts, on=today)
        run = timed(lambda: rules.table(partner, Surface.SEALED, held), len(held) * len(ENTRY_GROUPS))
        assert all(
            FieldGroup.PERCEPTUAL_DIGESTS in one.groups for one in rules.table(partner, Surface.SEALED, held).values()
        )
        return run

    rules = policy.load(texts, on=today)
    requests = [
        policy.ShareRequest(partner, policy.Action.share(group), Surface.SEALED, one)
        for one in held.values()
        for group in ENTRY_GROUPS
    ]

    def one_by_one() -> Run:
        return timed(lambda: [rules.decide(request) for request in requests], len(requests))

    one_call = "decide, one request a call"
    yield from compare("policy.fill", fill, {one_call: one_by_one}, unit="decisions/s", rounds=scale.rounds)

    yield from _enumerated(policy.load(texts, on=today), scale)

    count = scale.size(1_000_000, 50_000)
    source = random.Random(SEED)
    numbers = [source.randrange(1, len(LABELS) + 1) for _ in range(count)]
    ids = counting(1, count)
    history = Rows.of(count, {"kind": [1] * count, "seq": ids, "entry_id": ids})
    labels = Rows.of(count, {"prev_label": numbers}).ints("prev_label")
    table = rules.table(partner, Surface.SEALED, held)

    def apply() -> Run:
        def run() -> None:
            rights = rules.table(partner, Surface.SEALED, held)
            visible = {number for number, one in rights.items() if FieldGroup.EXISTENCE in one.groups}
            assert select_delta(history, visible, labels, 0).send.all()

        return timed(run, count)

    shown = {number: FieldGroup.EXISTENCE in one.groups for number, one in table.items()}

    def decide(label: int) -> bool:
        return shown[label]

    def one_a_call() -> Run:
        return timed(lambda: [decide(number) for number in numbers], count)

    plain = "a Python function called for each change"
    [applied] = compare("policy.apply", apply, {plain: one_a_call}, unit="decisions/s", rounds=scale.rounds)
    yield applied
    yield Figure("policy.apply.rate", applied.value / 1e6, "M/s", bar=Bar(10, at_least=20))


def _enumerated(rules: policy.PolicySet, scale: Scale) -> Iterator[Figure]:
    """The whole policy: every party of every agreement, every label that the closed lists make, every field group."""
    words = itertools.product(
        ((HUB[:2], ()), ("XB", ("XC",))),
        HandlingCode,
        VictimStatus,
        ((), *((tag,) for tag in Restriction)),
        "AC",
        "134",
    )
    labels = tuple(
        LabelInSet(
            f"{HUB}/identified",
            Label(f"{owner}-NCVI", owner, code, "icse:1", status, source + level, "XA Act", tags, onward),
        )
        for (owner, onward), code, status, tags, source, level in words
    )
    countries = sorted(frozenset().union(*rules.agreements.values()))
    partners = tuple(
        PartnerRef(f"{country}-{unit}", country)
        for country in countries
        for unit in ("NCVI", "COAST", "BORDER", "ICAC")
    )
    asked = tuple(Question(Action.share(group)) for group in ENTRY_GROUPS)
    grid = Grid(partners, Surface.SEALED, labels if not scale.quick else labels[::40], asked)
    processes = len(os.sched_getaffinity(0))
    counted: set[int] = set()

    def ours() -> Run:
        def run() -> None:
            rows = enumerating.decide_all(rules, grid, processes=processes)
            counted.add(sum(decision.allowed for row in rows for decision in row))

        return timed(run, grid.cells)

    parents = {
        p: [{"type": "Agreement", "id": n} for n, of in rules.agreements.items() if p.jurisdiction in of]
        for p in partners
    }
    bare_partners = [
        {"uid": {"type": "Partner", "id": p.agency}, "attrs": partner_attributes(p), "parents": parents[p]}
        for p in partners
    ]
    bare_labels = [
        {"uid": {"type": "Label", "id": str(n)}, "attrs": label_attributes(held), "parents": []}
        for n, held in enumerate(grid.labels)
    ]
    texts = "\n".join(text for path, text in rules.texts.items() if path != SCHEMA), rules.texts[SCHEMA]

    def bare() -> Run:
        actions = [str(question.action) for question in asked]
        return timed(lambda: engine.decide(texts, bare_partners, actions, bare_labels, processes), grid.cells)

    plain = "is_authorized_batch, as many processes"
    bars = {plain: Bar(10, at_least=0.8)}
    yield from compare("policy.enumerate", ours, {plain: bare}, unit="decisions/s", rounds=scale.rounds, bars=bars)
    assert len(counted) == 1
    assert 0 < counted.pop() < grid.cells


def bench_audit(scale: Scale) -> Iterator[Figure]:
    """The log: leaves appended to the tree, its root, the walk over all of it; beside the hashes that it must take."""
    count = scale.size(100_000, 5_000)
    salt = bytes(32)
    event = audit.Event(EventKind.LOOK_UP, START_TIME, HUB, HUB, {"asked": 1, "answered": 1}).encode()
    entries = [audit.event_entry(event, salt) for _ in range(count)]

    def append() -> Run:
        nodes: dict[tuple[int, int], bytes] = {}

        def run() -> None:
            hashes = [merkle.leaf_hash(entry) for entry in entries]
            nodes.update({(a, b): c for a, b, c in merkle.append_nodes(0, hashes, lambda a, b: nodes[a, b])})

        found = timed(run, count)
        assert merkle.root(count, lambda a, b: nodes[a, b]) == _slow_root(entries)
        return found

    def raw() -> Run:
        """A hash of each entry, and one of 65 bytes for each node above."""
        node = bytes(65)

        def run() -> None:
            for entry in entries:
                hashlib.sha256(entry).digest()
                hashlib.sha256(node).digest()

        return timed(run, count)

    plain = "two hashlib.sha256 a leaf"
    yield from compare("audit.append", append, {plain: raw}, unit="leaves/s", rounds=scale.rounds)

    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        node = make_pair(Path(place), stack).hub.exchange.node
        stored = scale.size(20_000, 1_000)
        details = {"asked": 1, "answered": 1}
        events = [node.event(EventKind.LOOK_UP, actor=HUB, subject=HUB, details=details) for _ in range(1_000)]

        def write() -> Run:
            def run() -> None:
                with node.store.transaction() as tx:
                    tx.log.append(events)

            return timed(run, len(events))

        for _ in range(stored // len(events)):
            write()
        yield Figure("audit.write", write().rate, "events/s")
        key = VerifierKey.parse(card_of(node).log)

        def verify() -> Run:
            with node.store.reading() as tx:
                size = tx.log.size()
                reports: list[audit.LogReport] = []
                run = timed(
                    lambda: reports.append(
                        audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), key)
                    ),
                    size,
                )
            assert reports[0].size == size
            return run

        def hashed() -> Run:
            """What each event costs in hashes alone: its commitment, its leaf, a node."""
            raw_event, node_bytes = events[0].encode() + bytes(50), bytes(65)

            def run() -> None:
                for _ in range(stored):
                    hashlib.sha256(raw_event).digest()
                    hashlib.sha256(node_bytes).digest()
                    hashlib.sha256(node_bytes).digest()

            return timed(run, stored)

        yield from compare(
            "audit.verify", verify, {"three hashlib.sha256 a leaf": hashed}, unit="leaves/s", rounds=scale.rounds
        )


def _slow_root(entries: list[bytes]) -> bytes:
    """The root as RFC 9162 2.1.1 defines it, level by level."""
    row = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
    while len(row) > 1:
        pairs = itertools.zip_longest(row[::2], row[1::2])
        row = [left if right is None else hashlib.sha256(b"\x01" + left + right).digest() for left, right in pairs]
    return row[0]
