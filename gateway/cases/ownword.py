"""Our own word on a child, told to a partner that looks a digest up: what we assert, and that it was told.

An entry says what its label says; what we have asserted of it since stands beside it (`assertions`). A partner that
looks it up is to hear the newer word, under the same rights. Whoever was told so is told again when we take it back, so
each is noted as those are who had a notice.

The database is asked the same questions whatever there is: answers to look-ups must not tell by their work (look-up 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gateway.audit import Event, EventKind
from gateway.cases import lines
from gateway.cases.subjects import MARK_BYTES, Marks
from gateway.columns.rows import Rows
from gateway.model import CRYPTOGRAPHIC
from gateway.node import Node
from gateway.policy import LabelRights
from gateway.statuses import RANK, Assertion, join
from gateway.store import Transaction
from gateway.store.tables import StatusTold

NO_MARK = bytes(MARK_BYTES)  # is asked for where there is nothing to ask for


class OwnWord:
    """What this gateway's agency asserts."""

    def __init__(self, node: Node, marks: Marks) -> None:
        self._node = node
        self._marks = marks

    def of_digests(self, tx: Transaction, digests: Sequence[tuple[str, bytes]]) -> dict[int, Assertion]:
        """The highest of what we assert of each digest, by its place; cryptographic ones alone."""
        by_mark: dict[bytes, list[int]] = {}
        for name in CRYPTOGRAPHIC:
            places = [at for at, (algorithm, _) in enumerate(digests) if algorithm == name]
            rows = Rows.of(len(places), {name: [digests[at][1] for at in places]})
            for mark, place in zip(self._marks.of_rows(rows).get(name, ()), places, strict=True):
                by_mark.setdefault(mark, []).append(place)
        for at in range(len(digests) - len(by_mark)):  # as many questions, however many digests are perceptual
            by_mark[at.to_bytes(MARK_BYTES, "big")] = []
        found = self._asserted(tx, by_mark)
        return {place: word for mark, word in found.items() for place in by_mark[mark]}

    def of_series(self, tx: Transaction, names: Iterable[str]) -> dict[str, Assertion]:
        """The highest of what we assert of each series."""
        by_mark = {self._marks.of_series(name): name for name in names if name}
        return {by_mark[mark]: word for mark, word in self._asserted(tx, by_mark).items()}

    def told(
        self, tx: Transaction, partner: str, words: Mapping[str, tuple[Assertion, LabelRights]]
    ) -> Iterator[Event]:
        """The events of telling a partner of assertions (by id), of each with the rights under which it was told.

        Whoever was told of it in this version before is on record as such already.
        """
        for number, (one, right) in sorted(words.items()):
            known = {row.partner: row for row in tx.statuses.told(number)}.get(partner)
            if known is None or known.version < one.version:
                row = StatusTold(
                    number=number,
                    partner=partner,
                    version=one.version,
                    status=str(one.status),
                    mail=0 if known is None else known.mail,
                    at=self._node.clock(),
                )
                tx.statuses.put_told(row)
            details: dict[str, object] = {
                "assertion": number,
                "version": one.version,
                "partner": partner,
                "outcome": "allow",
                "groups": sorted(right.groups),
                "rules": sorted({*right.permits, *right.forbids}),
                "policy": self._node.policy.digest,
            }
            yield self._node.event(EventKind.STATUS_SHARED, actor=self._node.agency, subject=partner, details=details)

    def _asserted(self, tx: Transaction, marks: Mapping[bytes, object]) -> dict[bytes, Assertion]:
        found: dict[bytes, list[Assertion]] = {}
        for mark, row in tx.statuses.asserted(self._node.agency, marks.keys() or {NO_MARK}):
            found.setdefault(mark, []).append(lines.opened(self._node, row).assertion)
        return {mark: max(join(said).by, key=lambda one: RANK[one.status]) for mark, said in found.items()}
