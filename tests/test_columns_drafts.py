"""gateway/columns/drafts.py."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columns_builders import octets
from gateway.columns.drafts import MAX_DRAFTS, DraftBatch, in_batches
from gateway.errors import MalformedError
from gateway.model import STRONGEST_FIRST, EntryDraft, HandlingCode, Restriction, VictimStatus

few = st.integers(1, 3)
texts = st.sampled_from(["", "", "Nordlicht", "Brückenhaus"])
some_digests = st.lists(st.sampled_from(["md5", "sha1", "sha256", "pdq"]), max_size=3, unique=True)


@st.composite
def some_drafts(draw: st.DrawFn) -> list[EntryDraft]:
    """Drafts of a few shapes that often speak of the same few entries."""
    made = []
    for _ in range(draw(st.integers(0, 9))):
        digests = {name: octets(name, draw(few)) for name in draw(some_digests)}
        if not digests or draw(st.booleans()):
            digests["ssdeep"] = b"3:abc:%d" % draw(few)
        made.append(
            EntryDraft(
                digests,
                source_ref=draw(st.sampled_from(["", "", "A-1", "A-2"])),
                media_type=draw(texts),
                category=draw(st.sampled_from(["", "xa:1"])),
                series=draw(texts),
                victim_ref=draw(texts),
                victim_status=draw(st.sampled_from([None, VictimStatus.LEAD])),
                evaluation=draw(st.sampled_from(["", "A1"])),
                handling=draw(st.sampled_from([None, HandlingCode.H0])),
                restrictions=draw(st.sampled_from([(), (Restriction.EMBARGO,)])),
                pdq_quality=draw(st.integers(0, 2)),
                seen=draw(st.integers(0, 2)),
            )
        )
    return made


def known_by(draft: EntryDraft) -> object:
    """By what an entry is known again, for one draft."""
    if draft.source_ref:
        return draft.source_ref
    strongest = next((name for name in STRONGEST_FIRST if name in draft.digests), None)
    return (strongest, draft.digests[strongest]) if strongest else tuple(sorted(draft.digests.items()))


@given(some_drafts())
@settings(max_examples=100, deadline=None)
def test_drafts_come_back_out_of_a_batch(drafts: list[EntryDraft]) -> None:
    batch = DraftBatch.of(drafts)
    assert batch.drafts() == drafts
    assert batch.n == len(drafts)
    assert len({group.rows.shape for group in batch.groups}) == len(batch.groups)
    assert {batch.words[number] for number in batch.words_used()} == {draft.words for draft in drafts}


@given(st.lists(some_drafts(), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_batches_are_joined_in_their_order(parts: list[list[EntryDraft]]) -> None:
    joined = DraftBatch.joined([DraftBatch.of(drafts) for drafts in parts])
    assert joined.drafts() == [*itertools.chain.from_iterable(parts)]
    assert len(set(joined.words)) == len(joined.words)


@given(some_drafts())
@settings(max_examples=200, deadline=None)
def test_of_drafts_that_speak_of_one_entry_the_last_stays(drafts: list[EntryDraft]) -> None:
    last = {known_by(draft): place for place, draft in enumerate(drafts)}
    assert DraftBatch.of(drafts).last_of_each().drafts() == [drafts[place] for place in sorted(last.values())]


def test_digests_that_begin_alike_are_told_apart() -> None:
    """Eight octets stand for a digest while equal ones are looked for; a file may have been made to fool that."""
    alike = [EntryDraft({"md5": bytes(8) + b"%08d" % (number % 5)}, seen=number) for number in range(10)]
    assert DraftBatch.of(alike).last_of_each().drafts() == alike[5:]


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=9), st.integers(1, 7))
@settings(max_examples=100)
def test_a_stream_becomes_batches_of_one_length(pieces: list[tuple[int, bool]], most: int) -> None:
    count = itertools.count()
    stream: list[EntryDraft | DraftBatch] = []
    drafts: list[EntryDraft] = []
    for size, by_column in pieces:
        names = ("md5", "sha1")
        some = [EntryDraft({names[n % 2]: octets(names[n % 2], n)}) for n in itertools.islice(count, size)]
        stream += [DraftBatch.of(some)] if by_column else some
        drafts += some
    batches = list(in_batches(stream, most=most))
    assert [draft for batch in batches for draft in batch.drafts()] == drafts
    assert [batch.n for batch in batches[:-1]] == [most] * (len(batches) - 1)
    assert all(0 < batch.n <= most for batch in batches)


def test_a_batch_holds_what_one_commit_takes() -> None:
    many = (EntryDraft({"md5": octets("md5", number % 7)}) for number in range(MAX_DRAFTS + 3))
    assert [batch.n for batch in in_batches(many)] == [MAX_DRAFTS, 3]


def test_a_digest_of_another_width_is_refused() -> None:
    with pytest.raises(MalformedError):
        DraftBatch.of([EntryDraft({"md5": b"short"})])
