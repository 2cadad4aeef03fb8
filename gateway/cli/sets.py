"""Hash sets: making them, looking into them, withdrawing from them, where an entry is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.categories import Mapped
from gateway.cli import erasing, exporting
from gateway.cli.people import read_file
from gateway.cli.shell import Shell, amount, bold, command, plain, when
from gateway.columns.rows import EXISTENCE
from gateway.errors import ConfigError, DeniedError, MalformedError, NotFoundError
from gateway.exchange import Exchange, largevalues
from gateway.exchange.holding import Named, naming
from gateway.exchange.labels import SetDefaults, stored_label
from gateway.exchange.lookup import MAX_LOOK_UP, Whereabouts, parse_entry
from gateway.exchange.wentout import Holding, WentOut
from gateway.model import HandlingCode, VictimStatus, text_member
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import HashSet

set_app = typer.Typer(
    add_completion=False, help="Hash sets: our own, and the mirrors of partners' sets.", no_args_is_help=True
)
where_app = typer.Typer(add_completion=False)
DIGEST = re.compile(r"[0-9A-Fa-f]{32,128}")
COMMANDS = {"set": set_app, "where": where_app}

MAX_LIST_BYTES = 130 * MAX_LOOK_UP  # a SHA-512 in hex and a line end, as often as one look-up takes
SetName = Annotated[str, typer.Argument(metavar="SET", help="The set: AGENCY/name, or the name alone for our own.")]
SET_COLUMNS = {
    "set": "set",
    "owner": "owner",
    "purpose": "purpose",
    "entries": "entries",
    "labels": "labels",
    "seq": "changes",
    "equality": "as its hub",
}
EVIDENCE_COLUMNS = {
    "sender": "signed by",
    "signed": "at",
    "manifest_digest": "manifest",
    "message_id": "message",
    "until_seq": "up to change",
    "behind": "owner's messages behind it",
}


@command(set_app, "create")
def set_create(
    shell: Shell,
    *,
    name: SetName,
    purpose: Annotated[str, typer.Option(help="What the set is for, in one line.")],
    legal_basis: Annotated[str, typer.Option(help="The law under which its entries are held.")],
    category: Annotated[str, typer.Option(help="Where a row does not say: scheme:code.")] = "unspecified:0",
    handling: Annotated[HandlingCode, typer.Option(help="Where a row does not say: H0 free to H3 ask first.")] = (
        HandlingCode.H2
    ),
    evaluation: Annotated[str, typer.Option(help="Where a row does not say: source A-F, information 1-6.")] = "F6",
    victim_status: Annotated[VictimStatus, typer.Option(help="Where a row does not say.")] = VictimStatus.UNKNOWN,
    onward: Annotated[str, typer.Option(help="Jurisdictions to which holders may pass entries on: XC,XD.")] = "",
) -> None:
    """Make an empty hash set of our own. What its rows do not say, its defaults say."""
    countries = tuple(sorted({code.strip() for code in onward.split(",") if code.strip()}))
    defaults = SetDefaults(legal_basis, category, handling, evaluation, victim_status, countries)
    with shell.node() as node:
        full = full_name(node, name)
        Exchange(node).ledger.create_set(full, purpose, defaults, node.agency)
    shell.show(
        {"set": full, "purpose": purpose},
        f"The set {bold(full)} is there, and empty. Fill it: gateway import FILE --set {full}",
    )


@command(set_app, "list")
def set_list(shell: Shell) -> None:
    """List the sets, with how many entries and labels each holds."""
    with shell.node() as node, node.store.reading() as tx:
        rows = [_set_value(node, tx, row) for row in tx.sets.all()]
    shell.table(rows, SET_COLUMNS, "There are no sets yet.")


@command(set_app, "show")
def set_show(shell: Shell, name: SetName) -> None:
    """Show a set: its labels, and which partners are known to hold it."""
    with shell.node() as node, node.store.reading() as tx:
        row = tx.sets.get(full_name(node, name))
        counts, categories = _counts(tx, row), Exchange(node).quality.categories
        labels: list[dict[str, object]] = [
            {
                "number": one.number,
                "entries": counts.get(one.number, 0),
                "duties": one.obligations.split(),
                **stored_label(one).to_json(),
                **(in_our_scheme(categories.mapped(tx, stored_label(one).category)) if row.hub else {}),
            }
            for one in tx.sets.labels(_id(row))
        ]
        followers: list[dict[str, object]] = [
            {"partner": one.partner, "seq": one.seq, "at": one.at} for one in tx.sets.followers(_id(row))
        ]
        value = {**_set_value(node, tx, row), "created": row.created}
    shell.show(
        {**value, "label_table": labels, "followers": followers},
        f"{bold(row.name)}  {plain(row.purpose)}",
        f"  owner     {value['owner']}",
        f"  entries   {value['entries']:,}, under {amount(len(labels), 'label')}",
        f"  changes   {row.seq:,}, in epoch {row.epoch}",
        *(f"  label {one['number']:>4}  {one['entries']:>10,}  {plain(_label_words(one))}" for one in labels),
        *(
            f"  held by   {one['partner']} up to change {one['seq']:,}, {when(int(str(one['at'])))}"
            for one in followers
        ),
    )


@command(set_app, "withdraw")
def set_withdraw(
    shell: Shell,
    *,
    name: SetName,
    entries: Annotated[list[str], typer.Argument(metavar="ENTRY...", help="Entries, as `look-up` shows them.")],
    reason: Annotated[str, typer.Option(help="Why they are wrong, in one line; holders and the audit log have it.")],
    reference: Annotated[str, typer.Option(help="The legal reference, in one line; holders have it.")] = "",
    within: Annotated[int, typer.Option(help="Days in which holders have to answer; 0 for what the settings say.")] = 0,
) -> None:
    """Say of entries of our own set that they are wrong. Every partner that holds them is told, and has to answer."""
    numbers = sorted({parse_entry(one) for one in entries})
    with shell.node() as node:
        full = full_name(node, name)
        told: dict[str, Any] = {"actor": node.agency, "reason": reason, "reference": reference, "within_days": within}
        exchange = Exchange(node)
        files = exchange.lookup.files(full, numbers)
        count = exchange.ledger.withdraw(full, numbers, **told)
    shell.show(
        {"set": full, "asked": len(numbers), "withdrawn": count, "files": [file_value(one) for one in files]},
        f"Withdrawn from {bold(full)}: {count:,} of {amount(len(numbers), 'entry', 'entries')}. "
        "Partners are told at their next sync.",
        *([bold("Nobody follows a file: tell these partners yourself.")] if files else []),
        *(_file_line(one) for one in files),
    )


@command(set_app, "fingerprint")
def set_fingerprint(
    shell: Shell,
    *,
    name: SetName,
    entry: Annotated[str, typer.Argument(help="The entry, as `look-up` shows it.")],
    file: Annotated[Path, typer.Argument(help="The file with its TMK+PDQF fingerprint, at most 16 MiB.")],
) -> None:
    """Give an entry of our own set the large fingerprint of its video. It is kept sealed; the file is left alone."""
    raw = read_file(file, largevalues.MAX_LARGE_BYTES)
    with shell.node() as node:
        full = full_name(node, name)
        changed = Exchange(node).attaching.attach(full, parse_entry(entry), raw, actor=node.agency)
    word = "has it now" if changed else "had it already"
    shell.show({"set": full, "entry": entry, "changed": changed}, f"Entry {plain(entry)} of {bold(full)} {word}.")


@command(set_app, "evidence")
def set_evidence(
    shell: Shell,
    *,
    name: SetName,
    entry: Annotated[str, typer.Argument(help="The entry, as `look-up` shows it.")],
) -> None:
    """Which signed messages brought an entry of a partner's set, verified anew: who signed, when, and on whose word."""
    with shell.node() as node:
        found = Exchange(node).recovering.evidence(full_name(node, name), entry)
    rows: list[dict[str, object]] = [
        {**asdict(one), "signed": when(one.created), "behind": len(one.sources)} for one in found
    ]
    shell.table(rows, EVIDENCE_COLUMNS, "The messages that brought it are not kept any more, or not whole.")


@command(set_app, "compact")
def set_compact(shell: Shell, *, name: SetName) -> None:
    """Join small blocks of a set, as the schedule does by itself: less on disk, and quicker to send."""
    with shell.node() as node:
        full, exchange = full_name(node, name), Exchange(node)
        with shell.progress("joining", "blocks") as told:
            done = exchange.compacting.compact(full, on_batch=lambda so_far: told(so_far.old, so_far.old))
    shell.show(
        {
            "set": full,
            "blocks_before": done.old,
            "blocks_after": done.new,
            "forgotten": done.forgotten,
            "saved_bytes": done.saved_bytes,
        },
        f"{bold(full)}: {amount(done.old, 'block')} became {done.new:,}, {done.saved_bytes:,} bytes fewer."
        if done.old
        else f"{bold(full)}: there is nothing to join.",
    )


@command(set_app, "purge")
def set_purge(shell: Shell, *, name: SetName) -> None:
    """Delete what came under a duty to delete it and whose time is over, as the schedule does by itself."""
    with shell.node() as node:
        full, exchange = full_name(node, name), Exchange(node)
        due = exchange.duties.due(full)
        with shell.progress("deleting", "rows") as told:
            done = exchange.duties.purge(full, on_step=lambda so_far: told(so_far.rows, due))
    shell.show(
        {"set": full, "entries": done.entries, "rows": done.rows, "blocks": done.blocks},
        f"{bold(full)}: the time of {amount(done.entries, 'entry', 'entries')} was over; their values are gone."
        if done.rows
        else f"{bold(full)}: nothing is due.",
    )


erasing.register(set_app)
exporting.register(set_app)


@command(where_app, "where")
def where(
    shell: Shell,
    *,
    what: Annotated[str, typer.Argument(metavar="ENTRY|DIGEST", help="An entry, as `look-up` shows it, or a digest.")],
    name: Annotated[str, typer.Option("--set", help="The set that it is in; needed for an entry.")] = "",
) -> None:
    """Where something is: in which sets, from whom, under which duties and legal holds, and which partners hold it."""
    if DIGEST.fullmatch(what) is not None:
        _where_digest(shell, what, name)
        return
    if not name:
        raise ConfigError("an entry is one of a set", remedy="name the set with --set")
    with shell.node() as node:
        full = full_name(node, name)
        with node.store.reading() as tx:
            named = naming(node, tx, entries=[(full, what)])
        try:
            value, lines = _place(Exchange(node).lookup.where(full, what), named)
        except NotFoundError:
            if not named:
                raise
            value, lines = _kept_alone(named)
    shell.show(value, *lines)


def _where_digest(shell: Shell, digest: str, name: str) -> None:
    """Every entry that carries a digest, in any set, also what only a legal hold keeps."""
    with shell.node() as node:
        exchange, only = Exchange(node), full_name(node, name) if name else ""
        hits = exchange.lookup.find([digest], actor=node.agency)
        places = sorted({(hit.set_name, hit.entry) for hit in hits if only in ("", hit.set_name)})
        with node.store.reading() as tx:
            named = [one for one in naming(node, tx, entries=places, digest=digest) if only in ("", one.set_name)]
        found = [_place(exchange.lookup.where(*place), named) for place in places]
    alone: dict[tuple[str, str], list[Named]] = {}
    for one in named:
        if (one.set_name, one.entry) not in places:
            alone.setdefault((one.set_name, one.entry), []).append(one)
    found += [_kept_alone(some) for some in alone.values()]
    shown = [line for _, lines in found for line in lines] or ["It is nowhere here."]
    shell.show([value for value, _ in found], *shown)


def _kept_alone(named: list[Named]) -> tuple[dict[str, object], list[str]]:
    """An entry that was taken back, and that only legal holds keep."""
    one = named[0]
    value: dict[str, object] = {
        "set": one.set_name,
        "entry": one.entry,
        "listed": False,
        "version": one.kept.version,
        "label": dict(one.kept.label),
        "duties": list(one.kept.duties),
        "holders": [],
        "files": [],
        "holds": [_hold_value(hold) for hold in named],
    }
    return value, [f"{bold(one.entry)} in {one.set_name} was taken back", *map(_hold_line, named)]


def _hold_value(one: Named) -> dict[str, object]:
    return {"hold": one.hold, "reference": one.reference, "until": one.until}


def _hold_line(one: Named) -> str:
    return f"  legal hold {one.hold} keeps it until {one.until}: {plain(one.reference)}"


def _place(found: Whereabouts, named: Iterable[Named]) -> tuple[dict[str, object], list[str]]:
    """An entry where it is, with who holds it from us and what keeps it."""
    holds = [one for one in named if (one.set_name, one.entry) == (found.set_name, found.entry)]
    holders: list[dict[str, object]] = [
        {"partner": one.partner, "holds": one.holds, "since_seq": one.since_seq, "at": one.at} for one in found.holders
    ]
    value = {
        "set": found.set_name,
        "entry": found.entry,
        "version": found.version,
        "changed_at": found.changed_at,
        "label": found.label,
        "holders": holders,
        "listed": found.listed,
        "hub": found.hub,
        "duties": list(found.duties),
        "holds": [_hold_value(one) for one in holds],
        "files": [file_value(one) for one in found.files],
    }
    nobody = [f"  It came from {found.hub}."] if found.hub else ["  No partner has asked for this set yet."]
    return value, [
        f"{bold(found.entry)} in {found.set_name}, version {found.version}, last changed {when(found.changed_at)}",
        *(
            f"  {one.partner}  {'holds it' if one.holds else 'does not hold it'} ({when(one.at)})"
            for one in found.holders
        ),
        *([] if holders else nobody),
        *map(_file_line, found.files),
        *([f"  duties: {', '.join(found.duties)}"] if found.duties else []),
        *map(_hold_line, holds),
    ]


_FILE_SAYS = {
    Holding.HOLDS: "has it in a file",
    Holding.EARLIER: "has an earlier version in a file",
    Holding.PERHAPS: "perhaps has it in a file",
}


def file_value(one: WentOut) -> dict[str, object]:
    """A file that left, for machines."""
    members = {"partner": one.partner, "form": one.form, "sealed": one.sealed, "at": one.at, "leaf": one.leaf}
    return members | {"holding": str(one.holding), "manifest": one.manifest}


def _file_line(one: WentOut) -> str:
    sealed = ", sealed" if one.sealed else ""
    return f"  {one.partner}  {_FILE_SAYS[one.holding]}: {one.form}{sealed}, {when(one.at)}, leaf {one.leaf}"


def full_name(node: Node, name: str) -> str:
    """The set's whole name; one without an owner is our own."""
    return name if "/" in name else f"{node.agency}/{name}"


def own_set(node: Node, name: str) -> str:
    """The whole name of a set of ours."""
    full = full_name(node, name)
    if not full.startswith(f"{node.agency}/"):
        raise DeniedError("only its owner changes a set; this one is a partner's")
    with node.store.reading() as tx:
        tx.sets.get(full)
    return full


def _set_value(node: Node, tx: Transaction, row: HashSet) -> dict[str, object]:
    counts = _counts(tx, row)
    return {
        "set": row.name,
        "owner": row.hub or node.agency,
        "own": not row.hub,
        "purpose": row.purpose,
        "entries": sum(counts.values()),
        "labels": len(tx.sets.labels(_id(row))),
        "epoch": row.epoch,
        "seq": row.seq,
        "equality": row.equality if row.hub else "own",
    }


def _counts(tx: Transaction, row: HashSet) -> dict[int, int]:
    """Entries by label: the first of the three numbers that stand in a label's sum for its existence part."""
    sums = tx.sets.sums(_id(row))
    return {label: int.from_bytes(raw[:8], "little") for (label, part), raw in sums.items() if part == EXISTENCE}


def _id(row: HashSet) -> int:
    assert row.id is not None, "a stored set has an id"
    return row.id


def in_our_scheme(mapped: Mapped | None) -> dict[str, object]:
    """What another scheme's category is in ours, beside it and never in its place."""
    return {
        "our_category": mapped.category if mapped else "",
        "relation": str(mapped.relation) if mapped else "unmapped",
    }


def _label_words(label: dict[str, object]) -> str:
    names = ("originator", "handling", "category", "victim_status", "evaluation")
    words = [text_member(label, name) for name in names]
    lists = [label[name] for name in ("restrictions", "duties")]
    ours = f"in our scheme: {label['our_category'] or 'none'} ({label['relation']})" if "relation" in label else ""
    return ", ".join([*words, *(word for one in lists if isinstance(one, list) for word in one), *filter(None, [ours])])


def read_digests(path: Path) -> list[str]:
    """The digests of a plain list, as they stand in it; as many as one look-up takes."""
    try:
        text = read_file(path, MAX_LIST_BYTES).decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedError("the file is not a list of hexadecimal digests") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
