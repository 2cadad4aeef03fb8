"""Windows of time: whoever follows them holds what policy shows now, however it asks and whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from factory import (
    LEGAL_BASIS,
    FakeClock,
    SeededRandom,
    befriend,
    card_of,
    enrol,
    events,
    make_node,
    make_set,
    reopened,
)
from gateway.audit import EventKind
from gateway.crypto.keys import SigningKey
from gateway.errors import MalformedError, OverloadedError
from gateway.exchange import Exchange, windows
from gateway.exchange.erasing import erase
from gateway.exchange.labels import SetDefaults
from gateway.exchange.lookup import parse_entry
from gateway.exchange.spans import MAX_SPANS, Shown, Span
from gateway.exchange.windows import Item, Window, WindowPage
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import EntryDraft, FieldGroup, HandlingCode, Restriction, Surface
from gateway.policy import LabelInSet, PartnerRef

SURFACE = "hashsharing"
DEFAULTS = SetDefaults(LEGAL_BASIS, category="icse:1", handling=HandlingCode.H1, evaluation="B2")
EXISTENCE = frozenset({FieldGroup.EXISTENCE})
BOTH = EXISTENCE | {FieldGroup.CRYPTOGRAPHIC_DIGESTS}
# What XA's agreements say in turn: (partner's agreement, words of before, words from now on).
XB_LIST = '[Handling::"H0", Handling::"H1", Handling::"H2"].contains(resource.handling)'
AGREEMENTS = {
    "XA/agreement-xb.cedar": (
        (XB_LIST, 'resource.handling == Handling::"H0"'),
        ('Action::"share_cryptographic_digests",', ""),
        (XB_LIST, 'resource.handling == Handling::"H1"'),
    ),
    "XA/agreement-xc.cedar": (('[Handling::"H0", Handling::"H1"]', '[Handling::"H0"]'),),
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Exchange:
    node = make_node(tmp_path, "XA-NCVI", clock=clock)
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock), make_node(tmp_path, "XC-NCVI", clock=clock))
    return Exchange(node)


def sha1(number: int) -> bytes:
    return hashlib.sha1(f"made-up {number}".encode()).digest()


@dataclass
class Follower:
    """A client that keeps what came last of each entry."""

    xa: Exchange
    partner: str
    since: int = 0
    held: dict[tuple[int, int], bytes] = field(default_factory=dict)
    met: set[tuple[int, int]] = field(default_factory=set)

    def pages(self, after: int, until: int) -> Iterator[WindowPage]:
        window, following = Window(after, until), ""
        while True:
            kept: list[WindowPage] = []
            self.xa.windows.page(self.partner, SURFACE, window, following, lambda page, kept=kept: _keep(kept, page))
            yield kept[0]
            if kept[0].following is None:
                return
            window, following = kept[0].following
            window = replace(window, place=windows.Place())  # a caller brings the text alone

    def take(self, page: WindowPage) -> None:
        for item in page.items:
            key = item.set_id, item.entry_id
            assert page.window.after < item.at <= page.window.until
            self.met.add(key)
            if item.deleted:
                self.held.pop(key, None)
            else:
                self.held[key] = item.digests.get("sha1", b"")

    def follow(self, source: random.Random | None = None) -> list[Item]:
        """From where it was to now, in one window or in several."""
        now = self.xa.node.clock()
        cuts = sorted({now, *(source.choices(range(self.since, now + 1), k=2) if source and self.since else ())})
        found = []
        for until in cuts:
            for page in self.pages(self.since, until):
                self.take(page)
                found += page.items
            self.since = until
        return found


def _keep(kept: list[WindowPage], page: WindowPage) -> bytes:
    kept.append(page)
    return b"a page"


class World:
    """XA with two sets that change at random, and what its partners may see of them, worked out entry by entry."""

    def __init__(self, xa: Exchange, seed: int) -> None:
        self.xa, self.source = xa, random.Random(seed)
        self.drafts: dict[str, dict[int, EntryDraft]] = {}
        self.ids: dict[tuple[str, int], tuple[int, int]] = {}
        self.texts = dict(xa.node.policies.texts)
        self.ever: dict[str, set[tuple[int, int]]] = {"XB-NCVI": set(), "XC-NCVI": set()}
        self.next = 0
        self.is_noticed = seed % 2 == 0
        for name in ("XA-NCVI/one", "XA-NCVI/two"):
            xa.ledger.create_set(name, "victim_identification", DEFAULTS, "tester")
            self.drafts[name] = {}

    def visible(self, partner: str) -> dict[tuple[int, int], bytes]:
        """What a partner may see now: sha1 by entry, b"" where that is withheld."""
        ref, policy, found = PartnerRef(partner, partner[:2]), self.xa.node.policy, {}
        for name, drafts in self.drafts.items():
            labels = {n: LabelInSet(name, DEFAULTS.label(self.xa.node, one.words)) for n, one in drafts.items()}
            rights = policy.table(ref, Surface.TLS_ONLY, labels)
            for number, right in rights.items():
                if FieldGroup.EXISTENCE in right.groups:
                    is_shown = FieldGroup.CRYPTOGRAPHIC_DIGESTS in right.groups
                    found[self.ids[name, number]] = drafts[number].digests["sha1"] if is_shown else b""
        return found

    def note(self) -> None:
        for partner, known in self.ever.items():
            known.update(self.visible(partner))

    def step(self) -> None:
        """Something happens."""
        name = self.source.choice(list(self.drafts))
        drafts = self.drafts[name]
        match self.source.randrange(8):
            case 0 | 1:
                self.import_entries(name, [self.next + n for n in range(self.source.randrange(1, 6))])
                self.next += 6
            case 2 | 3 if drafts:
                self.import_entries(name, self.source.sample(list(drafts), k=min(3, len(drafts))))
            case 4 if drafts:
                gone = self.source.sample(list(drafts), k=min(2, len(drafts)))
                ids = [self.ids[name, number][1] for number in gone]
                self.xa.ledger.withdraw(name, ids, actor="tester", reason="wrong")
                for number in gone:
                    del drafts[number]
            case 5:
                self.decide()
            case 6:
                self.xa.compacting.compact(name)
            case _:
                self.xa.node.clock.advance(self.source.randrange(3))  # type: ignore[attr-defined]
        self.note()

    def decide(self) -> None:
        """Another policy is in force."""
        texts = dict(self.texts)
        for path, changes in AGREEMENTS.items():
            for old, new in self.source.sample(changes, k=self.source.randrange(2)):
                assert old in texts[path]
                texts[path] = texts[path].replace(old, new)
        self.xa.node.policies.take_up(texts, self.xa.node.today)
        for partner in self.ever if self.is_noticed else ():
            self.xa.windows.categories(partner, SURFACE)

    def import_entries(self, name: str, numbers: list[int]) -> None:
        drafts = {number: self.draft(number) for number in numbers}
        self.xa.ledger.import_entries(name, drafts.values(), actor="tester", form="test")
        self.drafts[name].update(drafts)
        for hit in self.xa.lookup.find([sha1(number).hex() for number in numbers], actor="tester"):
            set_id = 1 if name.endswith("one") else 2
            if hit.set_name == name:
                self.ids[name, numbers[hit.query]] = set_id, parse_entry(hit.entry)

    def draft(self, number: int) -> EntryDraft:
        return EntryDraft(
            {"sha1": sha1(number)},
            source_ref=f"ref-{number}",
            category=self.source.choice(["icse:1", "icse:2"]),
            handling=self.source.choice([HandlingCode.H0, HandlingCode.H1, HandlingCode.H2]),
            restrictions=self.source.choice([(), (), (Restriction.EMBARGO,)]),
            series=self.source.choice(["", "a series"]),
        )


@pytest.mark.parametrize("seed", range(10))
def test_whoever_follows_holds_what_policy_shows_and_never_met_anything_else(
    xa: Exchange, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(windows, "PAGE_ITEMS", 3)
    world = World(xa, seed)
    often, seldom, other = Follower(xa, "XB-NCVI"), Follower(xa, "XB-NCVI"), Follower(xa, "XC-NCVI")
    for step in range(60):
        world.step()
        if world.source.random() < 0.4:
            often.follow(world.source)
        if world.source.random() < 0.2:
            other.follow(world.source)
        if step == 30:
            seldom.follow()
        if world.source.random() < 0.1:  # something happens while a page is on its way
            for page in often.pages(often.since, clock()):
                often.take(page)
                world.step()
                if page.following is None:
                    often.since = page.window.until
    for _ in range(2):  # a change of policy is noticed when somebody asks
        for follower in (often, seldom, other):
            follower.follow(world.source)
        clock.advance(2)
    for follower in (often, seldom, other):
        follower.follow(world.source)
        assert follower.held == world.visible(follower.partner)
    fresh = Follower(xa, "XB-NCVI")
    fresh.follow()
    assert fresh.held == world.visible("XB-NCVI")
    for follower in (often, seldom, other, fresh):
        # Of a label that was hidden for a while without anybody asking, deletions may be told that nobody needs.
        assert not world.is_noticed or follower.met <= world.ever[follower.partner]


def test_nothing_is_added_to_a_window_that_was_asked(xa: Exchange, clock: FakeClock) -> None:
    world, client = World(xa, 0), Follower(xa, "XB-NCVI")
    world.draft = lambda number: EntryDraft({"sha1": sha1(number)}, source_ref=str(number))  # type: ignore[method-assign]
    world.import_entries("XA-NCVI/one", [1])
    assert client.follow() == [], "what happens in this second is published in the next one"
    world.import_entries("XA-NCVI/one", [2])
    clock.advance(1)
    assert len(client.follow()) == 2
    with pytest.raises(MalformedError, match="in the future"):
        list(client.pages(0, clock() + 1))


def test_a_window_of_another_process_goes_on(xa: Exchange, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "PAGE_ITEMS", 3)
    world = World(xa, 0)
    world.import_entries("XA-NCVI/one", list(range(40)))
    clock.advance(2)
    client = Follower(xa, "XB-NCVI")
    pages = client.pages(0, clock())
    client.take(next(pages))
    client.xa = Exchange(reopened(xa.node))
    for page in pages:
        client.take(page)
    assert client.held == world.visible("XB-NCVI")


def test_a_page_that_policy_has_overtaken_does_not_leave(xa: Exchange, clock: FakeClock) -> None:
    world = World(xa, 0)
    world.import_entries("XA-NCVI/one", list(range(9)))
    clock.advance(2)

    def meanwhile(_page: WindowPage) -> bytes:
        texts = dict(xa.node.policies.texts)
        path, (old, new) = "XA/agreement-xb.cedar", AGREEMENTS["XA/agreement-xb.cedar"][0]
        xa.node.policies.take_up({**texts, path: texts[path].replace(old, new)}, xa.node.today)
        return b"too much"

    with pytest.raises(OverloadedError):
        xa.windows.page("XB-NCVI", SURFACE, Window(0, clock()), "", meanwhile)
    assert events(xa.node, EventKind.SURFACE_PAGE_SERVED) == []


# Spans


def shown(views: list[Mapping[int, frozenset[FieldGroup]]]) -> Shown:
    """What is known after asking once under each view, ten seconds and ten changes apart."""
    found = Shown(0)
    for at, view in enumerate(views, 1):
        found = found.brought_up(view, 2, seq=10 * at, now=1_000 + 10 * at)
    return found


def test_a_label_is_in_view_since_it_began_until_it_goes_and_from_when_it_comes_back() -> None:
    assert shown([{1: BOTH}]).spans == {1: (Span(BOTH, 0, 10),)}
    assert shown([{1: BOTH}, {}]).spans == {1: (Span(BOTH, 0, 10, 1_021, 10),)}
    back = shown([{1: BOTH}, {}, {1: BOTH}])
    assert back.spans[1] == (Span(BOTH, 0, 10, 1_021, 10), Span(BOTH, 1_031, 30))
    assert back.open(1) == Span(BOTH, 1_031, 30)
    assert shown([{1: BOTH}, {1: EXISTENCE}]).open(1) == Span(EXISTENCE, 1_021, 20)


def test_a_label_that_was_judged_and_hidden_is_published_when_it_comes_into_view() -> None:
    assert shown([{}, {2: BOTH}]).open(2) == Span(BOTH, 1_021, 20)


def test_spans_are_read_as_they_were_written() -> None:
    one = shown([{1: BOTH, 2: EXISTENCE}, {2: EXISTENCE}, {1: BOTH}])
    assert Shown.parse(one.seq, one.judged, one.dump()) == one
    with pytest.raises(MalformedError):
        Shown.parse(1, 1, '{"spans":[[1,[[["no such group"],0,0,0,0]]]]}')


def test_of_very_many_changes_the_oldest_count_as_one() -> None:
    many = shown([{1: BOTH}, {}] * 40)
    assert len(many.spans[1]) == MAX_SPANS
    assert many.spans[1][0].from_seq == 10
    assert many.spans[1][-1].until_seq == 790


# What else happens to a set


def test_what_is_erased_by_order_is_taken_back(tmp_path: Path, clock: FakeClock) -> None:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, quorum=2)
    enrol(node, card_of(make_node(tmp_path, "XB-NCVI", clock=clock)))
    xa = Exchange(node)
    keys = [PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two")]
    for key in keys:
        bootstrap_administrator(node, key.name, key.signing_key.public)
    digests = {n: {"sha1": sha1(n), "sha256": hashlib.sha256(sha1(n)).digest()} for n in range(4)}
    make_set(xa, "found", [EntryDraft(one, source_ref=str(n)) for n, one in digests.items()])
    clock.advance(2)
    client = Follower(xa, "XB-NCVI")
    client.follow()
    assert len(client.held) == 4
    desk = approvals(node)
    identifier = desk.propose(*erase(node, [digests[1]["sha256"].hex()], "an order of a court"), by="one")
    for key in keys:
        desk.sign(identifier, key)
    clock.advance(2)
    assert [item.deleted for item in client.follow()] == [True]
    assert set(client.held.values()) == {sha1(0), sha1(2), sha1(3)}
    fresh = Follower(xa, "XB-NCVI")
    fresh.follow()
    assert fresh.held == client.held


def test_under_a_new_epoch_entries_keep_their_times_and_withdrawals_are_still_told(
    xa: Exchange, clock: FakeClock
) -> None:
    name = make_set(xa, "found", [EntryDraft({"sha1": sha1(n)}, source_ref=str(n)) for n in range(6)])
    clock.advance(2)
    client = Follower(xa, "XB-NCVI")
    items = {item.entry_id: item for item in client.follow()}
    gone = [entry for entry, item in items.items() if item.digests["sha1"] in (sha1(1), sha1(4))]
    xa.ledger.withdraw(name, gone, actor="tester", reason="wrong")
    clock.advance(2)
    with xa.node.store.transaction() as tx:
        tx.sets.begin_epochs()
    with pytest.raises(OverloadedError):
        client.follow()
    xa.epochs.carry()
    assert {(item.entry_id, item.deleted) for item in client.follow()} == {(entry, True) for entry in gone}
    again = {item.entry_id: item for page in client.pages(0, clock()) for item in page.items if not item.deleted}
    assert again == {entry: item for entry, item in items.items() if entry not in gone}
