"""Since when, and until when, labels were shown to a partner's stock clients: how changes of policy get a time.

A stock client asks for windows of time, and of an entry it keeps what came last. So whatever changes what it may hold
must have a time: a change of an entry, and a change of policy as well. What a partner was shown of a set at a surface
is kept as **spans** of each label. A label that comes into view is published anew at that time, one that goes out of
view is taken back at that time, and one of which other field groups are shown is published anew.

    times  Unix seconds at which it is published: the second after the one in which it happened, so that who asked for
           everything up to *now* has missed nothing that happened later in the same second
    seqs   where the set stood when the partner first and last asked with the label in view: what was in the set in
           between may have been given, and nothing else

A label that is met for the first time keeps the times of its entries: who asked before did so before they came. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from gateway.crypto import canonical
from gateway.errors import MalformedError
from gateway.model import FieldGroup

MAX_SPANS = 16  # of one label; of older ones the two oldest count as one, which at worst takes back what never came
MAX_SPANS_BYTES = 4 << 20  # of 4,096 labels


@dataclass(frozen=True, slots=True)
class Span:
    """A label in view. `from_at` 0: since it began; `until_at` 0: still."""

    groups: frozenset[FieldGroup]
    from_at: int
    from_seq: int
    until_at: int = 0
    until_seq: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the label is in view now."""
        return not self.until_at


@dataclass(frozen=True, slots=True)
class Shown:
    """What a partner was shown of one set at one surface, up to when it last asked.

    `seq`: where the set stood then; `judged`: the highest label that there was.
    """

    seq: int
    judged: int = 0
    spans: Mapping[int, tuple[Span, ...]] = field(default_factory=dict)

    def open(self, label: int) -> Span | None:
        """The span of a label that is in view now."""
        last = self.last(label)
        return last if last is not None and last.is_open else None

    def last(self, label: int) -> Span | None:
        """The newest span of a label, None where it never was in view."""
        return self.spans[label][-1] if label in self.spans else None

    def brought_up(self, view: Mapping[int, frozenset[FieldGroup]], labels: int, *, seq: int, now: int) -> Shown:
        """The same at the next time that it asks.

        Args:
            view: the groups shown of each label that is in view now.
            labels: the highest label that there is.
            seq: where the set stands.
            now: in Unix seconds.
        """
        spans = dict(self.spans)
        for label in range(1, labels + 1):
            groups, before = view.get(label, frozenset()), self.open(label)
            if before is not None and before.groups == groups:
                continue
            known = spans.get(label, ())
            if before is not None:
                known = (*known[:-1], replace(before, until_at=now + 1, until_seq=self.seq))
            if groups:
                # Nothing under it was given before this moment; but what came under a new one has its own time.
                known = (*known, Span(groups, 0 if label > self.judged else now + 1, seq))
            if known:
                spans[label] = _bounded(known)
        return Shown(seq, max(labels, self.judged), spans)

    def dump(self) -> str:
        """Its spans as canonical JSON text."""
        rows: list[object] = [
            [label, [[sorted(s.groups), s.from_at, s.from_seq, s.until_at, s.until_seq] for s in spans]]
            for label, spans in sorted(self.spans.items())
        ]
        return canonical.encode({"spans": rows}).decode()

    @classmethod
    def parse(cls, seq: int, judged: int, text: str) -> Shown:
        """What `dump` wrote (in our own store)."""
        return cls(seq, judged, _parsed(text))


@lru_cache(maxsize=1_024)  # every request meets those of all sets, and they hardly ever change
def _parsed(text: str) -> Mapping[int, tuple[Span, ...]]:
    value: Any = canonical.parse_canonical(text.encode(), max_bytes=MAX_SPANS_BYTES)
    try:
        return {
            label: tuple(Span(frozenset(map(FieldGroup, groups)), *numbers) for groups, *numbers in rows)
            for label, rows in value["spans"]
        }
    except (TypeError, ValueError, KeyError) as error:
        raise MalformedError("spans: not as they were written") from error


def _bounded(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    if len(spans) <= MAX_SPANS:
        return spans
    first, second, *rest = spans
    return (replace(second, from_at=first.from_at, from_seq=first.from_seq), *rest)
