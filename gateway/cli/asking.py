"""Partners asked about digests: side by side, each with its own questions, and what they said or why they did not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.cli.shell import amount, plain
from gateway.cli.syncing import link_for
from gateway.errors import GatewayError, NotFoundError
from gateway.exchange import Exchange
from gateway.exchange.asking import Plan
from gateway.exchange.lookup import verdict_of
from gateway.lookups import Answer, Told
from gateway.model import Purpose
from gateway.node import Node
from gateway.partners import ACTIVE

MAX_PARTNERS_AT_ONCE = 8


@dataclass(slots=True)
class Round:
    """One partner: what it was asked, what it answered so far, and what kept it from answering more."""

    partner: str
    plan: Plan = field(default_factory=lambda: Plan((), frozenset(), frozenset()))
    answered: list[Answer] = field(default_factory=list)
    error: GatewayError | None = None

    def answers(self) -> Iterator[tuple[int, Told, bool]]:
        """(place in the list, what is said of an entry, whether there is more) of all that came."""
        for asked, answer in zip(self.plan.questions, self.answered, strict=False):
            for place, said, more in asked.answers(answer):
                yield from ((place, one, more) for one in said)

    @property
    def known(self) -> int:
        """Of how many digests it said something."""
        return len({place for place, _, _ in self.answers()})

    @property
    def sentence(self) -> str:
        """What came of it, for people."""
        if self.error is not None:
            return f"{self.partner} did not answer{' all' if self.answered else ''}: {plain(self.error.message)}."
        left = len(self.plan.withheld)
        kept = f"; {amount(left, 'digest')} not asked, since our policy keeps it from this partner" if left else ""
        unfit = len(self.plan.unfit)
        other = f"; {amount(unfit, 'digest')} not asked, since partners are not asked by its kind" if unfit else ""
        return f"{self.partner} answered: it may tell us of {self.known:,}{kept}{other}."

    def to_json(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "partner": self.partner,
            "answered": self.error is None,
            "known": self.known,
            "withheld": len(self.plan.withheld),
            "unfit": len(self.plan.unfit),
            "error": "" if self.error is None else self.error.message,
        }


def active_partners(node: Node) -> list[str]:
    """Every partner with which anything is exchanged now."""
    with node.store.reading() as tx:
        return sorted(row.agency for row in tx.people.partners() if row.state == ACTIVE)


def ask_partners(  # noqa: PLR0917  who is asked what, and how it goes on
    node: Node,
    exchange: Exchange,
    partners: Sequence[str],
    digests: Sequence[str],
    purpose: Purpose,
    distance: int | None,
    told: Callable[[int, int], None],
) -> list[Round]:
    """Ask these partners; whoever does not answer keeps nobody else waiting."""
    rounds = [Round(partner) for partner in dict.fromkeys(partners)]
    for one in rounds:
        try:
            exchange.card_of(one.partner)
            one.plan = exchange.asking.plan(one.partner, digests, purpose, distance)
        except NotFoundError as error:
            one.error = error
    total = sum(len(one.plan.questions) for one in rounds)

    async def ask(one: Round, room: asyncio.Semaphore) -> None:
        async with room:
            if one.error is not None:
                return
            try:
                async with link_for(node)(exchange.card_of(one.partner)) as link:
                    for asked in one.plan.questions:
                        question = await asyncio.to_thread(exchange.look_up_question, one.partner, asked)
                        sealed = await link.look_up(question)
                        answer = await asyncio.to_thread(exchange.look_up_answer, one.partner, asked, sealed)
                        one.answered.append(answer)
                        told(sum(len(each.answered) for each in rounds), total)
            except GatewayError as error:
                one.error = error

    async def ask_all() -> None:
        room = asyncio.Semaphore(MAX_PARTNERS_AT_ONCE)
        await asyncio.gather(*(ask(one, room) for one in rounds))

    asyncio.run(ask_all())
    return rounds


def told_row(told: Told, line: int, query: int, digest: str, partner: str, *, more: bool) -> dict[str, object]:
    """What a partner said, with the members of a hit of our own."""
    return {
        "query": query,
        "line": line,
        "digest": digest,
        "answer": str(verdict_of(told.status, needs_review=told.needs_review)),
        "distance": told.distance,
        "set": told.set_name,
        "entry": told.entry,
        "series": told.series,
        "hub": partner,
        "duties": list(told.duties),
        "who": told.who,
        "since": told.since,
        "contact": told.contact,
        "remarks": ["it may tell of more entries than fit"] if more else [],
        "originator": told.originator,
        "victim_status": str(told.status),
        "category": told.category,
        "handling": str(told.handling),
    }
