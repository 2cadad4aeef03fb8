"""Pushing to partners, pulling from them, and the schedule that does both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Annotated

import typer

from gateway.audit import verify_receipt
from gateway.cli.sets import own_set
from gateway.cli.shell import Shell, amount, bold, command, plain
from gateway.client import PartnerLink
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import GatewayError, VerificationError
from gateway.exchange import Exchange
from gateway.interchange import IdentityCard
from gateway.model import int_member
from gateway.node import Node
from gateway.ownkeys import token_key_for
from gateway.problems import exit_code
from gateway.reconcile import CompareReport
from gateway.sync import JobStatus, PartnerSync, PullReport, PushReport, Schedule

push_app, pull_app = typer.Typer(add_completion=False), typer.Typer(add_completion=False)
sync_app = typer.Typer(
    add_completion=False, help="The schedule: following partners and delivering to them.", no_args_is_help=True
)
COMMANDS = {"push": push_app, "pull": pull_app, "sync": sync_app}

SetOption = Annotated[str, typer.Option("--set", help="The set: AGENCY/name, or the name alone for our own.")]
PULL_COLUMNS = {
    "set": "set",
    "pages": "pages",
    "changes": "changes",
    "refused": "refused here",
    "lag": "behind",
    "equality": "as its hub",
    "bytes": "bytes",
}
COMPARE_COLUMNS = {
    "set": "set",
    "outcome": "outcome",
    "labels": "labels",
    "differing": "differing",
    "only_here": "only here",
    "only_there": "only there",
    "arrived": "arrived",
    "offered": "offered back",
    "corrected": "sums corrected",
    "entries": "entries",
}
JOB_COLUMNS = {
    "partner": "partner",
    "state": "state",
    "last_success": "last success",
    "lag_changes": "changes behind",
    "next_run": "next run",
    "failures": "failures",
    "last_error": "last error",
}


@command(push_app, "push")
def push(
    shell: Shell,
    *,
    partner: Annotated[str, typer.Option("--to", help="The partner.")],
    name: SetOption,
) -> None:
    """Bring a partner's mirror of our set up to date. Its receipt for each page is verified and kept."""
    with shell.node() as node:
        full, exchange = own_set(node, name), Exchange(node)
        card = exchange.card_of(partner)
        with shell.progress(f"to {partner}", "changes") as told:

            async def work() -> PushReport:
                async with link_for(node)(card) as link:
                    return await PartnerSync(exchange, link, partner, on_page=told).push(full)

            report = asyncio.run(work())
    refused = sum(_refused(raw, card) for raw in report.receipts.values())
    receipts = list(report.receipts)
    value: dict[str, object] = {
        "partner": partner,
        "set": full,
        "pages": report.pages,
        "changes": report.changes,
        "bytes": report.sent_bytes,
        "refused": refused,
        "receipts": receipts,
    }
    shell.show(
        value,
        f"{bold(partner)} has {plain(full)}: {amount(report.changes, 'change')} in {amount(report.pages, 'page')}, "
        f"{report.sent_bytes:,} bytes."
        if report.pages
        else f"{bold(partner)} had everything of {plain(full)} already.",
        *([f"  its own policy did not take {amount(refused, 'change')} of these"] if refused else []),
        *(f"  receipt {one} verified and kept" for one in receipts),
    )


@command(pull_app, "pull")
def pull(
    shell: Shell,
    *,
    partner: Annotated[str, typer.Option("--from", help="The partner.")],
    name: Annotated[str, typer.Option("--set", help="Only this set of theirs.")] = "",
) -> None:
    """Bring our mirrors of a partner's sets up to date, and compare both ends."""
    with shell.node() as node:
        exchange = Exchange(node)
        card = exchange.card_of(partner)
        only = _full_name(name, partner) if name else None
        with shell.progress(f"from {partner}", "changes") as told:

            async def work() -> list[PullReport]:
                async with link_for(node)(card) as link:
                    return await PartnerSync(exchange, link, partner, on_page=told).pull(only)

            reports = asyncio.run(work())
    rows: list[dict[str, object]] = [
        {
            "partner": one.partner,
            "set": one.set_name,
            "pages": one.pages,
            "changes": one.changes,
            "refused": one.refused,
            "lag": one.lag,
            "equality": one.equality,
            "bytes": one.received_bytes,
        }
        for one in reports
    ]
    shell.table(rows, PULL_COLUMNS, f"{plain(partner)} offers us no set.")


@command(sync_app, "status")
def sync_status(shell: Shell) -> None:
    """How each partner's schedule stands: last success, how far behind, next run, last error."""
    with shell.node() as node:
        rows = [_job_value(one) for one in Schedule(Exchange(node), link_for(node)).status()]
    shell.table(rows, JOB_COLUMNS, "Nothing is scheduled yet: `gateway serve` or `gateway sync run` begins it.")


@command(sync_app, "run")
def sync_run(
    shell: Shell, partner: Annotated[str, typer.Argument(help="Only this partner; without it, every active one.")] = ""
) -> None:
    """Run the schedule's work now: deliver what waits, exchange messages, pull every set."""
    failed: GatewayError | None = None
    with shell.node() as node:
        schedule = Schedule(Exchange(node), link_for(node))
        names = [partner] if partner else _active(node)
        with shell.progress("syncing", "partners") as told:
            for number, name in enumerate(names):
                told(number, len(names))
                try:
                    asyncio.run(schedule.run_now(name))
                except GatewayError as error:
                    failed = error
                    if partner:
                        raise
        rows = [_job_value(one) for one in schedule.status() if one.partner in names]
    shell.table(rows, JOB_COLUMNS, "There are no active partners.")
    if failed is not None:
        # Every partner was tried; the table tells which failed and why.
        raise typer.Exit(exit_code(failed))


@command(sync_app, "compare")
def sync_compare(
    shell: Shell,
    partner: Annotated[str, typer.Argument(help="The partner whose sets we follow.")],
    *,
    name: Annotated[str, typer.Option("--set", help="Only this set of theirs.")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Repair what differs; without it, only say so.")] = False,
) -> None:
    """Compare our mirrors with their hub, entry by entry where sums differ, and repair them if asked to."""
    with shell.node() as node:
        exchange = Exchange(node)
        card = exchange.card_of(partner)
        names = [_full_name(name, partner)] if name else exchange.mirrors.followed(partner)
        with shell.progress(f"comparing with {partner}", "sets") as told:

            async def work() -> list[CompareReport]:
                found = []
                async with link_for(node)(card) as link:
                    sync = PartnerSync(exchange, link, partner)
                    for number, one in enumerate(names):
                        told(number, len(names))
                        found.append(await sync.compare(one, repair=repair))
                return found

            reports = asyncio.run(work())
    rows = [{"partner": one.partner, "set": one.set_name, **one.details()} for one in reports]
    shell.table(rows, COMPARE_COLUMNS, f"We follow no set of {plain(partner)}.")
    if any(one.outcome not in ("equal", "repaired") for one in reports):
        raise typer.Exit(exit_code(VerificationError("the two ends hold different entries of a set")))


@command(sync_app, "reset")
def sync_reset(
    shell: Shell,
    partner: Annotated[str, typer.Argument(help="The partner whose set we follow.")],
    *,
    name: Annotated[str, typer.Option("--set", help="The set of theirs.")],
) -> None:
    """Have a mirror begin anew: the next pull drops all that it holds and fetches everything again."""
    with shell.node() as node:
        full = _full_name(name, partner)
        Exchange(node).mirrors.begin_anew(partner, full)
    shell.show(
        {"partner": partner, "set": full},
        f"{plain(full)} begins anew: `gateway pull --from {plain(partner)} --set {plain(full)}` fetches everything.",
    )


def _full_name(name: str, partner: str) -> str:
    return name if "/" in name else f"{partner}/{name}"


def link_for(node: Node) -> Callable[[IdentityCard], contextlib.AbstractAsyncContextManager[PartnerLink]]:
    """How a partner is reached: over HTTP, as its card says."""

    def link(card: IdentityCard) -> PartnerLink:
        return PartnerLink(card, token_key_for(node, card.agency), node.agency, node.clock, node.random)

    return link


def _refused(receipt: bytes, card: IdentityCard) -> int:
    """How many changes of a page the partner's own policy did not take, as its log records it."""
    event = verify_receipt(receipt, VerifierKey.parse(card.log)).event
    return int_member(event.details, "refused") if "refused" in event.details else 0


def _active(node: Node) -> list[str]:
    with node.store.reading() as tx:
        return [row.agency for row in tx.people.partners() if row.state == "active"]


def _job_value(one: JobStatus) -> dict[str, object]:
    return {
        "partner": one.partner,
        "state": one.state,
        "last_success": one.last_success,
        "next_run": one.next_run,
        "lag_changes": one.lag_changes if one.lag_changes >= 0 else "unknown",
        "failures": one.failures,
        "last_error": one.last_error,
    }
