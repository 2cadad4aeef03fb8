"""Comparing a mirror with its hub, and repairing what differs: the questions of comparison 1 in their order.

    1 sums by label; a sketch of the labels that differ, until what differs is known
    2 one page brings what the hub has and takes away what went; compared again, since a page has its bounds
    3 what is left is ours alone and the hub knows nothing of it: it is offered the pages that it once signed, and what
      it takes back comes with its feed
    4 of what it then still knows nothing, it says: leave

After a restore the hub has forgotten what came after its backup. Its withdrawals of that time are offered before
anything is compared, so that nothing comes back that had been taken away; then, before it brings anything, the newer
versions of what it has only as it was then.

`ComparingLink` is what it needs of the network. Blocking work goes through `run`, as in `sync`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gateway.columns.rows import Ints, joined
from gateway.errors import ConflictError, PartnerError, TooLargeError, VerificationError
from gateway.exchange import Exchange
from gateway.exchange.comparing import Comparison
from gateway.exchange.lookup import format_entry

T = TypeVar("T")
MAX_REPAIRS = 64  # rounds of one comparison, of up to 65,536 entries each
MAX_MOVES = 3  # a hub that changes more often during one comparison is compared another time
MAX_QUESTIONS = 160  # for more symbols: each asks for a sixteenth more at least
MAX_NAMED = 20  # entries named in a report; all are counted


class ComparingLink(Protocol):
    """What a comparison asks of one partner."""

    async def compare(self, set_name: str, body: bytes) -> bytes | None:
        """The partner's sealed answer to a question, None where there is nothing to bring."""

    async def post_envelope(self, body: bytes) -> tuple[str, bytes]:
        """(media type, body) of the partner's answer to an envelope."""


class Run(Protocol):
    """How blocking work is run."""

    async def __call__(self, function: Callable[..., T], /, *args: object) -> T:
        """The function's result."""


@dataclass(slots=True)
class CompareReport:
    """What a comparison of one set found, and what became of it.

    Attributes:
        labels, differing: how many labels the hub shows, and in how many the two ends did not hold the same.
        only_here, only_there: entries that only this side held so, and only the hub; an altered one counts on both.
        entries: the first of ours that the hub did not hold so, by id.
        arrived: changes that came for it; `offered`: signed pages that went back to the hub.
        corrected: sums of ours that did not say what our blocks hold.
        outcome: equal (nothing differed), repaired, different (and was left so), moving (the hub changed meanwhile).
    """

    partner: str
    set_name: str
    labels: int = 0
    differing: int = 0
    only_here: int = 0
    only_there: int = 0
    entries: tuple[str, ...] = ()
    arrived: int = 0
    offered: int = 0
    corrected: int = 0
    received_bytes: int = 0
    outcome: str = "different"

    def details(self) -> dict[str, object]:
        """As the audit log tells it."""
        counts = ("labels", "differing", "only_here", "only_there", "arrived", "offered", "corrected", "outcome")
        return {**{name: getattr(self, name) for name in counts}, "entries": list(self.entries)}


class Reconciler:
    """Compares and repairs the mirrors of one partner's sets."""

    def __init__(self, exchange: Exchange, link: ComparingLink, partner: str, run: Run) -> None:
        self._exchange = exchange
        self._link = link
        self._partner = partner
        self._run = run

    async def compare(self, set_name: str, follow: Callable[[], Awaitable[None]], *, repair: bool) -> CompareReport:
        """Find what differs, and with `repair` mend it; what was found is on record.

        Args:
            follow: gets the hub's newest head, and brings the mirror to where that says.
        """
        report = CompareReport(self._partner, set_name)
        for _ in range(MAX_MOVES):
            try:
                await self._rounds(report, follow, repair=repair)
            except ConflictError:
                report.outcome = "moving"
                await follow()
                continue
            break
        await self._run(self._exchange.comparing.close, self._partner, set_name, report.details())
        return report

    async def offer_withdrawals(self, set_name: str) -> int:
        """Offer a restored hub its own signed pages that withdrew entries after its backup; returns how many."""
        pages = await self._run(self._exchange.recovering.withdrawals, self._partner, set_name)
        return await self._offer(set_name, pages)

    async def _rounds(self, report: CompareReport, follow: Callable[[], Awaitable[None]], *, repair: bool) -> None:
        offered, asked, left, first = False, False, -1, True
        for _ in range(MAX_REPAIRS):
            # 1. What differs?
            running = await self._find(report.set_name)
            _note(report, running, first=first)
            if not running.differs:
                report.outcome = "equal" if first and not report.arrived else "repaired"
                return
            first = False
            if not repair:
                report.outcome = "different"
                return
            # The hub may have lost a whole label: what is under it goes back before it leaves here. In a new epoch it
            # may have an older version of what we hold: its newer one goes back before the older would replace it.
            if not asked and (running.strange or running.enters_epoch):
                asked = True
                entries = await self._run(self._exchange.comparing.strange_entries, running)
                if running.enters_epoch:
                    entries = joined([entries, running.entries])
                if await self._give_back(report, entries):
                    await follow()
                    continue
            # 2. One page for it, unless the last one changed nothing.
            found = len(running.only_here) + len(running.only_there)
            page = None
            if running.holds or found != left:
                page = await self._asked(running, self._exchange.comparing.rows_question(running, last_word=offered))
            left = found
            if page is not None:
                applied = await self._run(self._exchange.take_page, self._partner, page)
                report.arrived += applied.changes
                if applied.cursor != running.cursor:
                    await follow()
                continue
            if offered:
                report.outcome = "different"
                return
            # 3. The hub knows nothing of what is left: it gets its own signed pages back.
            await self._give_back(report, running.entries)
            offered, left = True, -1
            await follow()
        report.outcome = "different"

    async def _give_back(self, report: CompareReport, entries: Ints) -> int:
        """Offer the hub the pages that brought these entries; returns how many it took."""
        pages = await self._run(self._exchange.recovering.pages_of, self._partner, report.set_name, entries)
        taken = await self._offer(report.set_name, pages)
        report.offered += taken
        return taken

    async def _find(self, set_name: str) -> Comparison:
        comparing = self._exchange.comparing
        running = await self._run(comparing.begin, self._partner, set_name)
        answer = await self._told(running, comparing.sums_question(running))
        await self._run(comparing.read_sums, running, answer)
        for _ in range(MAX_QUESTIONS):
            question = await self._run(comparing.sketch_question, running)
            if question is None:
                return running
            answer = await self._told(running, question)
            await self._run(comparing.read_sketch, running, answer)
        raise TooLargeError("the two ends differ in more entries than a comparison finds")

    async def _told(self, running: Comparison, question: bytes) -> bytes:
        answer = await self._asked(running, question)
        if answer is None:
            raise PartnerError("the partner does not answer a question of a comparison")
        return await self._run(self._exchange.answer, self._partner, answer)

    async def _asked(self, running: Comparison, question: bytes) -> bytes | None:
        sealed = await self._run(self._exchange.question, self._partner, running, question)
        return await self._link.compare(running.set_name, sealed)

    async def _offer(self, set_name: str, pages: list[int]) -> int:
        taken = 0
        for page in pages:
            offer = await self._run(self._exchange.offer, self._partner, set_name, page)
            if offer is None:
                continue  # its blocks are not all here any more
            try:
                await self._link.post_envelope(offer)
            except VerificationError:
                continue  # the hub does not know its signature again: what this page alone brought stays lost
            taken += 1
        return taken


def _note(report: CompareReport, running: Comparison, *, first: bool) -> None:
    report.received_bytes += running.octets
    report.corrected += running.corrected
    if first and not report.arrived:
        report.labels, report.differing = running.labels, len(running.differing)
        report.only_here, report.only_there = len(running.only_here), len(running.only_there)
        report.entries = tuple(format_entry(entry) for entry in running.entries[:MAX_NAMED].tolist())
