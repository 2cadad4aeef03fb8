"""What we assert of victims, and what partners assert; leads that two hold at once; series that are one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from gateway.cases import lines
from gateway.cases.assertions import Done, Wish
from gateway.cases.lines import Line
from gateway.cli.people import Admin, AdminPassphrase, KeyFile, guarded
from gateway.cli.sets import full_name
from gateway.cli.shell import Shell, amount, bold, command, plain, when
from gateway.cli.syncing import link_for
from gateway.errors import ConfigError
from gateway.exchange import Exchange
from gateway.exchange.lookup import format_entry
from gateway.node import Node
from gateway.statuses import status_of
from gateway.store.tables import StatusLine
from gateway.sync import deliver_mail

status_app = typer.Typer(
    add_completion=False, help="The status of victims: what we assert, and what partners do.", no_args_is_help=True
)
claim_app = typer.Typer(
    add_completion=False, help="Leads that another agency and we hold on the same child.", no_args_is_help=True
)
series_app = typer.Typer(add_completion=False, help="Series that two names stand for.", no_args_is_help=True)
COMMANDS = {"status": status_app, "claim": claim_app, "series": series_app}

LIST_COLUMNS = {
    "assertion": "assertion",
    "agency": "agency",
    "status": "status",
    "since": "since",
    "met": "entries here",
    "seen": "seen",
}
TOLD_COLUMNS = {"partner": "partner", "status": "was told", "version": "version", "told": "at", "answer": "answer"}
WORK_COLUMNS = {"set": "set", "entry": "entry", "status": "status", "leads": "lead held by", "series": "series"}
CHILD_COLUMNS = {"case": "case", "victim": "child", "status": "status", "urgency": "urgency"}
CLAIM_COLUMNS = {
    "claim": "claim",
    "partner": "partner",
    "since": "theirs since",
    "state": "state",
    "ours": "we say",
    "theirs": "they say",
    "contact": "contact",
    "reference": "reference",
}
SERIES_COLUMNS = {
    "merge": "merge",
    "names": "series",
    "origin": "proposed by",
    "state": "state",
    "stands": "stands there",
    "reason": "reason",
}
To = Annotated[str, typer.Option("--to", help="unidentified, lead, identified, safeguarded or closed.")]
Why = Annotated[str, typer.Option("--reason", help="Why, in one line; needed where the status is lowered.")]
Contact = Annotated[str, typer.Option(help="Whom partners call, in one line: a unit and how to reach it.")]
Series = Annotated[
    list[str] | None, typer.Option("--series", help="A series all of whose material shows this child; may be repeated.")
]
Push = Annotated[bool, typer.Option("--push/--no-push", help="Tell partners at once, or at the next sync.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The assertion, or the beginning of its id.")]
ClaimId = Annotated[str, typer.Argument(metavar="ID", help="The claim, or the beginning of its id.")]
MergeId = Annotated[str, typer.Argument(metavar="ID", help="The merge, or the beginning of its id.")]


@command(status_app, "set")
def status_set(
    shell: Shell,
    *,
    to: To,
    name: Annotated[str, typer.Argument(metavar="[SET]", help="The set: AGENCY/name, or the name alone.")] = "",
    entries: Annotated[
        list[str] | None, typer.Argument(metavar="[ENTRY]...", help="Entries, as `look-up` shows them.")
    ] = None,
    case: Annotated[str, typer.Option(help="A case, or the beginning of its id, in place of a set.")] = "",
    victim: Annotated[str, typer.Option(help="The child's pseudonym in that case.")] = "",
    series: Series = None,
    reason: Why = "",
    contact: Contact = "",
    push: Push = True,
) -> None:
    """Assert the status of the child behind entries, or of a child of a case. Whoever may hold any of it is told."""
    wish = Wish(status_of(to), reason, contact)
    if bool(case) == bool(name) or bool(case) != bool(victim) or bool(name) != bool(entries):
        raise ConfigError(
            "either a set with its entries, or a case with a child of it", remedy="SET ENTRY..., or --case and --victim"
        )
    with shell.node() as node:
        exchange = Exchange(node)
        told = {"series": series or [], "actor": node.agency}
        if case:
            done = exchange.statuses.set_victim(case, victim, wish, **told)  # type: ignore[arg-type]  # as named
        else:
            full = full_name(node, name)
            done = exchange.statuses.set_entries(full, entries or [], wish, **told)  # type: ignore[arg-type]
        _show_done(shell, done, _deliver(node, exchange, done) if push else {})


@command(status_app, "change")
def status_change(
    shell: Shell, *, identifier: Id, to: To, reason: Why = "", contact: Contact = "", push: Push = True
) -> None:
    """The next version of an assertion of ours, of all that it speaks of."""
    wish = Wish(status_of(to), reason, contact)
    with shell.node() as node:
        exchange = Exchange(node)
        done = exchange.statuses.change(identifier, wish, actor=node.agency)
        _show_done(shell, done, _deliver(node, exchange, done) if push else {})


def _deliver(node: Node, exchange: Exchange, done: Done) -> dict[str, str]:
    """What became of the messages, by partner: "" where they are there."""
    partners = sorted({*done.told.partners, *done.told.taken_back})
    return asyncio.run(deliver_mail(exchange, link_for(node), partners)) if partners else {}


def _show_done(shell: Shell, done: Done, sent: dict[str, str]) -> None:
    one, told = done.assertion, done.told
    value: dict[str, object] = {
        "assertion": one.id,
        "version": one.version,
        "status": str(one.status),
        "before": str(done.before) if done.before else None,
        "told": list(told.partners),
        "taken_back": list(told.taken_back),
        "withheld": told.withheld,
        "there": sorted(partner for partner, error in sent.items() if not error),
        "series_left_out": list(done.series),
        "claims": list(done.claims),
        "certificates_revoked": list(done.revoked),
    }
    there = sum(not error for error in sent.values())
    wait = len(told.partners) + len(told.taken_back) - there
    shell.show(
        value,
        f"{bold(one.id[:12])} is {bold(one.status)} (version {one.version}).",
        f"  told                {', '.join(told.partners) or 'nobody'}",
        *([f"  told that it ends   {', '.join(told.taken_back)}"] if told.taken_back else []),
        *([f"  may not know        {amount(told.withheld, 'partner')}"] if told.withheld else []),
        *([f"  at the next sync    {amount(wait, 'partner')}"] if wait else []),
        *(f"  claimed as well     gateway claim agree {number[:12]}" for number in done.claims),
        *(f"  revoked             certificate {number[:12]}" for number in done.revoked),
        *(
            f"  left out            series {plain(name)}: name it with --series if all of it shows this child"
            for name in done.series
        ),
    )


@command(status_app, "show")
def status_show(
    shell: Shell,
    *,
    what: Annotated[str, typer.Argument(metavar="SET|ID", help="A set, or an assertion.")],
    entry: Annotated[str, typer.Argument(metavar="[ENTRY]", help="The entry, as `look-up` shows it.")] = "",
) -> None:
    """What all agencies together say of an entry; or one assertion."""
    with shell.node() as node:
        exchange = Exchange(node)
        with exchange.shelf.reading(node.store) as tx:
            if not entry:
                line = lines.opened(node, tx.statuses.beginning(what))
                shell.show(_line_value(line), *_line_words(line))
                return
            own, known = exchange.statuses.knowledge.of_entry(tx, full_name(node, what), entry)
    joined = known.joined
    value: dict[str, object] = {
        "set": full_name(node, what),
        "entry": entry,
        "label": str(own),
        "status": str(joined.status),
        "by": [{"agency": one.agency, "assertion": one.id, "since": one.at} for one in joined.by],
        "contacts": [{"agency": agency, "contact": contact} for agency, contact in known.contacts],
    }
    shell.show(
        value,
        f"{bold(entry)}: {bold(joined.status if joined.by else own)}",
        f"  in its own label    {own}",
        *(f"  {one.status:<19} by {one.agency} since {when(one.at)}, assertion {one.id[:12]}" for one in joined.by),
        *(f"  call {agency:<14} {plain(contact)}" for agency, contact in known.contacts),
        *([] if joined.by else ["  nobody has asserted anything of it"]),
    )


@command(status_app, "list")
def status_list(
    shell: Shell,
    *,
    ours: Annotated[bool, typer.Option("--ours", help="Only what we assert ourselves.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Only what nobody has looked at yet.")] = False,
) -> None:
    """List assertions, the newest first: what partners have told us, and what we assert."""
    with shell.node() as node, node.store.reading() as tx:
        rows = [_row_value(row) for row in tx.statuses.all(node.agency if ours else "") if not (new and row.seen)]
    if not shell.as_json:
        for row in rows:
            row |= {"since": when(int(str(row["since"]))), "seen": bool(row["seen"])}
    shell.table(rows, LIST_COLUMNS, "Nothing new." if new else "Nobody has asserted anything yet.")


@command(status_app, "seen")
def status_seen(shell: Shell, *, identifier: Id) -> None:
    """Note that a person has looked at what a partner asserts or took back."""
    with shell.node() as node:
        line = Exchange(node).statuses.see(identifier, node.agency)
    shell.show(_line_value(line), f"{bold(line.id[:12])} of {line.assertion.agency} is noted as seen.")


@command(status_app, "told")
def status_told(shell: Shell, *, identifier: Id) -> None:
    """Who was told of an assertion of ours, and who has answered that it searches again."""
    with shell.node() as node, node.store.reading() as tx:
        row, now = tx.statuses.beginning(identifier), node.clock()
        rows: list[dict[str, object]] = [
            {
                "partner": one.partner,
                "status": one.status,
                "version": one.version,
                "told": when(one.at) if not shell.as_json else one.at,
                "due": one.due,
                "answered": one.answered,
                "answer": _answer(one.due, one.answered, now),
            }
            for one in tx.statuses.told(row.number)
        ]
    shell.table(rows, TOLD_COLUMNS, "No partner was told of it.")


def _answer(due: int, answered: int, now: int) -> str:
    if not due:
        return "none needed"
    return "searches again" if answered else "overdue" if due < now else "outstanding"


@command(status_app, "worklist")
def status_worklist(
    shell: Shell,
    *,
    name: Annotated[str, typer.Option("--set", help="Only this set of ours.")] = "",
    limit: Annotated[int, typer.Option(help="How many entries are shown; 0 for all. All are counted.", min=0)] = 50,
) -> None:
    """Our entries and cases whose children are still being looked for: what anybody has identified is not in it."""
    with shell.node() as node:
        found = Exchange(node).statuses.worklist(full_name(node, name) if name else "", limit=limit)
    rows: list[dict[str, object]] = [
        {
            "set": one.set_name,
            "entry": format_entry(one.entry),
            "status": str(one.status),
            "leads": list(one.by),
            "series": one.series,
        }
        for one in found.shown
    ]
    children: list[dict[str, object]] = [
        {"case": one.case, "victim": one.victim, "status": str(one.status), "urgency": one.urgency}
        for one in found.children
    ]
    if shell.as_json:
        shell.show({"counts": dict(found.counts), "entries": rows, "children": children})
        return
    if children:
        shell.table(children, CHILD_COLUMNS, "")
    if rows or not children:
        shell.table(rows, WORK_COLUMNS, "Nobody is being looked for.")
    total = sum(found.counts.values())
    if total > len(rows):
        shell.show(None, f"{len(rows):,} of {amount(total, 'entry', 'entries')} are shown; --limit 0 shows all.")


def _row_value(row: StatusLine) -> dict[str, object]:
    return {
        "assertion": row.number,
        "agency": row.agency,
        "version": row.version,
        "status": row.status,
        "since": row.at,
        "received": row.received,
        "met": row.met,
        "seen": row.seen,
    }


def _line_value(line: Line) -> dict[str, object]:
    one = line.assertion
    return {
        "assertion": one.id,
        "agency": one.agency,
        "version": one.version,
        "status": str(one.status),
        "since": one.at,
        "reason": one.reason,
        "contact": line.contact,
        "received": line.received,
        "met": line.met,
        "seen": line.seen,
    }


def _line_words(line: Line) -> Sequence[str]:
    one = line.assertion
    return [
        f"{bold(one.id)} of {one.agency}: {bold(one.status)} since {when(one.at)}, version {one.version}",
        *([f"  because   {plain(one.reason)}"] if one.reason else []),
        *([f"  call      {plain(line.contact)}"] if line.contact else []),
        f"  entries here that it met when it came: {line.met:,}",
    ]


# Claims


@command(claim_app, "list")
def claim_list(shell: Shell) -> None:
    """List the leads that a partner and we hold on the same child. More is shown when both agree."""
    with shell.node() as node:
        found = Exchange(node).statuses.claims.all()
    rows: list[dict[str, object]] = [
        {
            "claim": one.id,
            "partner": one.partner,
            "assertion": one.assertion,
            "since": when(one.since) if not shell.as_json else one.since,
            "found": one.found,
            "state": one.state,
            "ours": str(one.ours),
            "theirs": str(one.theirs),
            "contact": one.contact,
            "reference": one.reference,
        }
        for one in found
    ]
    shell.table(rows, CLAIM_COLUMNS, "Nobody else holds a lead on what we do.")


@command(claim_app, "agree")
def claim_agree(
    shell: Shell,
    *,
    identifier: ClaimId,
    contact: Annotated[str, typer.Option(help="Whom the other side calls, in one line. It gets it when both agree.")],
    reference: Annotated[str, typer.Option(help="A reference for it to name, of your choice.")] = "",
) -> None:
    """Agree to be in touch with the other agency about a claim."""
    with shell.node() as node:
        one = Exchange(node).statuses.claims.agree(identifier, contact, reference)
    got = f" {one.partner} may be called: {plain(one.contact)}" if one.contact else ""
    shell.show({"claim": one.id, "state": one.state}, f"Agreed; {one.partner} is told at the next sync.{got}")


@command(claim_app, "decline")
def claim_decline(shell: Shell, *, identifier: ClaimId) -> None:
    """Say that we do not want to be in touch about a claim. It may be agreed to later."""
    with shell.node() as node:
        one = Exchange(node).statuses.claims.decline(identifier)
    shell.show({"claim": one.id, "state": one.state}, f"Declined; {one.partner} is told at the next sync.")


# Series


@command(series_app, "merge")
def series_merge(
    shell: Shell,
    *,
    one: Annotated[str, typer.Argument(metavar="A", help="A series name.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another name for the same series.")],
    reason: Annotated[str, typer.Option(help="Why they are one, in one line; partners that may see both read it.")],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Make one series of two names (guarded). Nothing is rewritten, and `series split` undoes it."""
    with shell.node() as node:
        act = Exchange(node).statuses.merging.propose(one, other, reason)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(series_app, "list")
def series_list(shell: Shell) -> None:
    """List merges of series: ours, and those that partners propose to us."""
    with shell.node() as node:
        found = Exchange(node).statuses.merging.all()
    rows: list[dict[str, object]] = [
        {
            "merge": one.id,
            "names": list(one.names),
            "reason": one.reason,
            "origin": one.origin,
            "state": one.state,
            "stands": one.stands,
            "at": one.at,
        }
        for one in found
    ]
    shell.table(rows, SERIES_COLUMNS, "No series was merged yet.")


@command(series_app, "accept")
def series_accept(
    shell: Shell,
    *,
    identifier: MergeId,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Take over a partner's merge of two series (guarded)."""
    with shell.node() as node:
        act = Exchange(node).statuses.merging.accept(identifier)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(series_app, "decline")
def series_decline(shell: Shell, *, identifier: MergeId) -> None:
    """Do not take over a partner's merge of two series. It may be accepted later."""
    with shell.node() as node:
        one = Exchange(node).statuses.merging.decline(identifier)
    shell.show({"merge": one.id, "state": one.state}, f"{bold(one.id[:12])} of {one.origin} is declined.")


@command(series_app, "split")
def series_split(
    shell: Shell,
    *,
    identifier: MergeId,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Make two series of one again (guarded). Partners that were told of our merge are told of this."""
    with shell.node() as node:
        act = Exchange(node).statuses.merging.split(identifier)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)
