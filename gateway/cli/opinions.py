"""Opinions: what our agency says of entries, what partners say, by mailbox or through stock clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from gateway.adapters.ncmec import REASONS as CLIENT_REASONS
from gateway.cli.sets import full_name, read_digests
from gateway.cli.shell import Shell, amount, bold, command
from gateway.errors import ConfigError
from gateway.exchange import Exchange
from gateway.exchange.lookup import format_entry, parse_entry
from gateway.exchange.opinions import Given, note_context
from gateway.model import CRYPTOGRAPHIC
from gateway.node import Node
from gateway.opinions import REASONS, Verdict
from gateway.store.tables import AgencyOpinion, OpinionRow

opinion_app = typer.Typer(add_completion=False, help="What we and our partners think of entries.", no_args_is_help=True)
COMMANDS = {"opinion": opinion_app}
COLUMNS = {
    "set": "set",
    "entry": "entry",
    "version": "version",
    "algorithm": "digest",
    "partner": "agency",
    "verdict": "opinion",
    "why": "why",
    "given_at": "given",
}
MAX_NAMED = 20
MAIL, CLIENT = "mailbox", "hashsharing"  # by which way a word came

SetName = Annotated[str, typer.Argument(metavar="SET", help="The set: AGENCY/name, or the name alone for our own.")]
Entries = Annotated[list[str], typer.Argument(metavar="ENTRY...", help="Entries, as `look-up` shows them.")]
Note = Annotated[str, typer.Option(help="A line for our own people; it is kept sealed, and goes nowhere.")]


@command(opinion_app, "confirm")
def opinion_confirm(
    shell: Shell,
    *,
    name: SetName,
    entries: Entries,
    reason: Annotated[str, typer.Option(help=f"{' or '.join(REASONS[Verdict.CONFIRM])}.")] = "seen",
    text: Note = "",
) -> None:
    """Say that our agency stands behind entries. Partners who may know of them are told at the next sync."""
    _give(shell, name, entries, (Verdict.CONFIRM, reason), text)


@command(opinion_app, "dispute")
def opinion_dispute(
    shell: Shell,
    *,
    name: SetName,
    entries: Entries,
    reason: Annotated[str, typer.Option(help=f"{', '.join(REASONS[Verdict.DISPUTE])}.")],
    text: Note = "",
) -> None:
    """Say that our agency holds entries to be wrong. Partners who may know of them are told at the next sync."""
    _give(shell, name, entries, (Verdict.DISPUTE, reason), text)


@command(opinion_app, "propose")
def opinion_propose(
    shell: Shell,
    *,
    name: SetName,
    give: Annotated[bool, typer.Option("--give", help="Dispute all of them, for the reason known_good.")] = False,
) -> None:
    """Which entries of a set carry digests of harmless files, and are not disputed by us yet. Nothing is said of them
    until somebody looks, and says so with --give."""
    with shell.node() as node:
        exchange, full = Exchange(node), full_name(node, name)
        with exchange.shelf.reading(node.store) as tx:
            found = exchange.quality.proposed(tx, full)
        given = (
            exchange.opinions.give(full, found, Verdict.DISPUTE, "known_good", actor=node.agency)
            if give and found
            else None
        )
    named = [format_entry(one) for one in found]
    many = len(named) > MAX_NAMED
    shell.show(
        {"set": full, "entries": named, "given": None if given is None else _given_value(given)},
        f"{bold(full)}: {amount(len(named), 'entry', 'entries')} of harmless files that we do not dispute yet.",
        *(f"  {one}" for one in named[:MAX_NAMED]),
        *([f"  and {len(named) - MAX_NAMED:,} more; --json names all"] if many else []),
        *(_given_lines(given, Verdict.DISPUTE) if given is not None else []),
        *(["Look at them, then dispute them with --give."] if found and given is None else []),
    )


@command(opinion_app, "withdraw")
def opinion_withdraw(shell: Shell, *, name: SetName, entries: Entries, text: Note = "") -> None:
    """Take back what our agency said of entries. Whoever was told of it is told."""
    _give(shell, name, entries, (Verdict.WITHDRAWN, ""), text)


@command(opinion_app, "import")
def opinion_import(
    shell: Shell,
    *,
    file: Annotated[Path, typer.Argument(metavar="LIST", help="File with one digest on each line.")],
    verdict: Annotated[Verdict, typer.Option(help="What is said of every entry that carries one of them.")],
    reason: Annotated[str, typer.Option(help="Why; `gateway opinion dispute --help` names the reasons.")] = "",
    name: Annotated[str, typer.Option("--set", help="Only in this set; else in every set that is held here.")] = "",
) -> None:
    """Give one opinion on all entries that carry a digest of a list. Perceptual digests are left out: they only look
    alike."""
    digests = read_digests(file)
    with shell.node() as node:
        exchange, only = Exchange(node), full_name(node, name) if name else ""
        found: dict[str, set[int]] = {}
        known: set[int] = set()
        for hit in exchange.lookup.find(digests, actor=node.agency):
            if hit.algorithm in CRYPTOGRAPHIC and only in ("", hit.set_name):
                found.setdefault(hit.set_name, set()).add(parse_entry(hit.entry))
                known.add(hit.query)
        why = reason or ("seen" if verdict is Verdict.CONFIRM else "")
        given = [
            exchange.opinions.give(one, entries, verdict, why, actor=node.agency)
            for one, entries in sorted(found.items())
        ]
    shell.show(
        {"digests": len(digests), "found": len(known), "given": [_given_value(one) for one in given]},
        f"Of {amount(len(digests), 'digest')} {len(known):,} stand in a set here.",
        *(line for one in given for line in _given_lines(one, verdict)),
    )


@command(opinion_app, "ask")
def opinion_ask(
    shell: Shell,
    *,
    name: SetName,
    partner: Annotated[str, typer.Option("--of", help="Whom; else the partner that the set comes from.")] = "",
) -> None:
    """Ask a partner what it thinks of a set's entries. The hub of the set also says how many agencies confirm and
    dispute each, and tells of changes from then on."""
    with shell.node() as node:
        full = full_name(node, name)
        whom = Exchange(node).opinions.ask(full, partner)
    shell.show(
        {"set": full, "partner": whom}, f"{bold(whom)} is asked at the next sync; its answer comes with the next."
    )


@command(opinion_app, "list")
def opinion_list(
    shell: Shell,
    set_name: Annotated[str, typer.Option("--set", metavar="SET", help="Only those on this set.")] = "",
    agency: Annotated[str, typer.Option(help="Only those of this agency; our own is one, too.")] = "",
) -> None:
    """List each agency's latest word on each entry, and each stock client's on each digest, the newest first."""
    with shell.node() as node, node.store.reading() as tx:
        names = {row.id: row.name for row in tx.sets.all()}
        set_id = tx.sets.get(full_name(node, set_name)).id if set_name else None
        words = [_word_value(node, row, names[row.set_id]) for row in tx.opinions.every(set_id, agency)]
        clients = [_client_value(row, names) for row in tx.opinions.all(set_id) if agency in ("", row.partner)]
    told = [one for one in (*words, *clients) if one["verdict"] != Verdict.WITHDRAWN]
    told.sort(key=lambda one: -int(str(one["given_at"])))
    shell.table(told, COLUMNS, "Nobody has given an opinion.")


def _give(shell: Shell, name: str, entries: Iterable[str], said: tuple[Verdict, str], text: str) -> None:
    verdict, reason = said
    numbers = sorted({parse_entry(one) for one in entries})
    with shell.node() as node:
        full = full_name(node, name)
        if reason not in REASONS[verdict]:
            known = "; ".join(f"{code}: {means}" for code, means in REASONS[verdict].items())
            raise ConfigError("there is no such reason", remedy=f"one of {known}")
        given = Exchange(node).opinions.give(full, numbers, verdict, reason, text, actor=node.agency)
    shell.show(_given_value(given), *_given_lines(given, verdict))


def _given_value(one: Given) -> dict[str, object]:
    return {"set": one.set_name, "entries": one.entries, "missing": one.missing, "told": dict(one.told)}


def _given_lines(one: Given, verdict: Verdict) -> list[str]:
    said = {Verdict.CONFIRM: "Confirmed", Verdict.DISPUTE: "Disputed", Verdict.WITHDRAWN: "Taken back our word on"}
    entries = amount(one.entries, "entry", "entries")
    missing = f"; {one.missing:,} not held here" if one.missing else ""
    told = f"Told at the next sync: {', '.join(one.told)}." if one.told else "No partner may know of it."
    return [f"{said[verdict]} {entries} of {bold(one.set_name)}{missing}. {told}"]


def _word_value(node: Node, row: AgencyOpinion, name: str) -> dict[str, object]:
    note = b""
    if row.sealed_text:
        note = node.keystore.master_key.open(row.sealed_text, note_context(name))
    return {
        "set": name,
        "entry": format_entry(row.entry_id),
        "version": row.version,
        "algorithm": "",
        "partner": row.agency,
        "way": "own" if row.agency == node.agency else MAIL,
        "verdict": row.verdict,
        "reasons": [row.reason] if row.reason else [],
        "why": REASONS[Verdict(row.verdict)].get(row.reason, row.reason),
        "note": note.decode(),
        "given_at": row.at,
    }


def _client_value(row: OpinionRow, names: Mapping[int | None, str]) -> dict[str, object]:
    reasons = row.reasons.split()
    return {
        "set": names[row.set_id],
        "entry": format_entry(row.entry_id),
        "version": row.version,
        "algorithm": row.algorithm,
        "partner": row.partner,
        "way": CLIENT,
        "verdict": row.verdict,
        "reasons": reasons,
        "why": "; ".join(CLIENT_REASONS.get(guid, guid) for guid in reasons),
        "note": "",
        "given_at": row.at,
    }
