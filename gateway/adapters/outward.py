"""The forms in which files go out: `WRITERS`, by the names of their readers. CASE/UCO has none here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from gateway.adapters.caseout import CaseWriter
from gateway.adapters.csvout import GatewayCsvWriter, IcseCsvWriter
from gateway.adapters.stixout import IndicatorWriter
from gateway.adapters.stixwords import STIX_HASHES, stix_id
from gateway.adapters.vicsout import VicsWriter
from gateway.adapters.writing import Batch, FileWriter, WriteOptions


class StixWriter:
    """A STIX 2.1 bundle: what the indicators refer to, then an indicator for each entry (`contracts/stix-1.md`)."""

    digests: tuple[str, ...] = (*STIX_HASHES, "pdq", "photodna")
    columns = frozenset({"pdq_quality", "media_type", "series", "victim_ref", "seen"})
    attributes = frozenset({"handling", "category", "victim_status", "evaluation", "restrictions"})
    separator = b",\n"

    def __init__(self, options: WriteOptions) -> None:
        self.not_carried: Counter[str] = Counter()
        self._options = options
        self._indicators = IndicatorWriter(options.set_name, options.created)

    def head(self) -> tuple[bytes, bool]:
        """The bundle's beginning, with the objects that are referred to."""
        common = self.separator.join(one.raw for one in self._indicators.common(self._options.jurisdiction))
        start = f'{{"type":"bundle","id":"{stix_id("bundle", self._options.bundle)}","objects":[\n'
        return start.encode() + common, True

    def records(self, batch: Batch) -> list[bytes]:
        """One indicator for each row."""
        rows = batch.rows
        at = rows.ints("changed_at").tolist()
        made = self._indicators.indicators(rows, batch.label, batch.duties, entries=batch.entries, at=at)
        return [one.raw for one in made]

    def tail(self) -> bytes:
        """The end of the bundle."""
        return b"\n]}\n"


WRITERS: dict[str, Callable[[WriteOptions], FileWriter]] = {
    "case": CaseWriter,
    "gateway_csv": GatewayCsvWriter,
    "icse_csv": IcseCsvWriter,
    "stix": StixWriter,
    "vics": VicsWriter,
}
