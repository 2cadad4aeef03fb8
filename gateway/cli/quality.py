"""How the entries of a set stand, and what categories are in our scheme."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.categories import MAX_TABLE_BYTES, Mapped
from gateway.cli.people import Admin, AdminPassphrase, KeyFile, guarded, read_file
from gateway.cli.sets import full_name, in_our_scheme
from gateway.cli.shell import Shell, bold, command, plain
from gateway.errors import ConfigError, MalformedError
from gateway.exchange import Exchange
from gateway.exchange.categories import activate
from gateway.exchange.labels import stored_label
from gateway.exchange.lookup import format_entry, parse_entry
from gateway.exchange.quality import SENTENCES, Obstacle, Standing, Tally
from gateway.policy import UseRule

category_app = typer.Typer(
    add_completion=False, help="Categories of other schemes, and what they are in ours.", no_args_is_help=True
)
quality_app = typer.Typer(add_completion=False)
COMMANDS = {"quality": quality_app, "category": category_app}
MAX_SHOWN = 50  # entries in words; --json has as many as are asked for
MAX_LISTED = 10_000
TABLE_COLUMNS = {
    "scheme": "scheme",
    "into": "into",
    "version": "version",
    "codes": "codes",
    "source": "source",
    "reviewed_by": "reviewed by",
}
SHEET_COLUMNS = (
    "entry",
    "version",
    "actionable",
    "obstacles",
    "behind",
    "disputing",
    "category",
    "our_category",
    "relation",
)
CODE_COLUMNS = {"category": "category", "ours": "ours", "relation": "ours is", "table": "table", "sets": "in sets"}


@command(quality_app, "quality")
def quality(
    shell: Shell,
    *,
    name: Annotated[str, typer.Argument(metavar="SET", help="The set: AGENCY/name, or the name alone for our own.")],
    entries: Annotated[list[str] | None, typer.Argument(metavar="[ENTRY]...", help="Only these entries.")] = None,
    obstacle: Annotated[
        Obstacle | None, typer.Option("--because", help="List the entries that may not be acted on for this reason.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option("--csv", help="A new CSV file with every entry, and whether it may be acted on.")
    ] = None,
) -> None:
    """How the entries of a set stand: on how many a program may act by itself, and what speaks against the others."""
    with shell.node() as node:
        exchange, full = Exchange(node), full_name(node, name)
        rule, tally, listed = node.policy.use, Tally(), []
        with _written(sheet) as write, exchange.shelf.reading(node.store) as tx:
            set_id = tx.sets.get(full).id or 0
            if entries:
                asked = sorted({parse_entry(one) for one in entries})
                listed = list(exchange.quality.standing_of(tx, set_id, asked).values())
                tally.count(listed)
                write(listed)
            else:
                for some in exchange.quality.every(tx, set_id):
                    tally.count(some)
                    write(some)
                    listed += [one for one in some if obstacle is not None and obstacle in one.obstacles]
                    del listed[MAX_LISTED:]
    value = {
        "set": full,
        "entries": tally.entries,
        "actionable": tally.actionable,
        "disputed": tally.disputed,
        "obstacles": {str(one): tally.obstacles.get(one, 0) for one in Obstacle},
        "rule": _rule_value(rule),
        "listed": [_standing_value(one) for one in listed],
    }
    shell.show(
        value,
        f"{bold(full)}: a program may act on {tally.actionable:,} of {tally.entries:,} entries.",
        *(f"  {count:>12,}  {SENTENCES[one]} ({one})" for one, count in sorted(tally.obstacles.items())),
        f"  {plain(rule.says)}" + (" This rule has lapsed; what it made stricter stays." if rule.lapsed else ""),
        *(line for one in listed[:MAX_SHOWN] for line in _standing_lines(one)),
        *([f"  and {len(listed) - MAX_SHOWN:,} more; --json names them"] if len(listed) > MAX_SHOWN else []),
    )


@contextmanager
def _written(path: Path | None) -> Iterator[Callable[[Sequence[Standing]], None]]:
    """What writes standings into a new CSV file. An entry's id is its `source_ref` in a file of `set export`."""
    if path is None:
        yield lambda _standings: None
        return
    try:
        sink = path.open("x", encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(f"the file cannot be written: {error.strerror}", remedy="name a new file") from error
    with sink:
        writer = csv.writer(sink)
        writer.writerow(SHEET_COLUMNS)

        def write(standings: Sequence[Standing]) -> None:
            for one in standings:
                value = _standing_value(one)
                words = {
                    "actionable": "yes" if one.actionable else "no",
                    "obstacles": " ".join(map(str, one.obstacles)),
                    "behind": len(one.behind),
                    "disputing": max(len(one.disputing), one.hub[1]),
                }
                writer.writerow([{**value, **words}[name] for name in SHEET_COLUMNS])

        yield write


@command(category_app, "import")
def category_import(
    shell: Shell,
    *,
    file: Annotated[Path, typer.Argument(help="A table, as contracts/category-mapping-1.md describes it.")],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Bring a table of another scheme's categories into force, in place of the version before it (guarded)."""
    try:
        text = read_file(file, MAX_TABLE_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("the table is not UTF-8") from error
    with shell.node() as node:
        guarded(shell, node, activate(text), admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(category_app, "list")
def category_list(shell: Shell) -> None:
    """List the tables in force, one for each scheme."""
    with shell.node() as node, node.store.reading() as tx:
        rows: list[dict[str, object]] = [
            {
                "scheme": one.scheme,
                "into": one.into,
                "version": one.version,
                "codes": len(one.codes),
                "source": one.source,
                "reviewed_by": one.reviewed_by,
                "digest": one.digest,
            }
            for one in Exchange(node).quality.categories.in_force(tx)
        ]
    shell.table(rows, TABLE_COLUMNS, "There is no table. Without one no category of a partner's is one of ours.")


@command(category_app, "map")
def category_map(
    shell: Shell,
    categories: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCHEME:CODE]...", help="Categories; else all of partners' sets."),
    ] = None,
) -> None:
    """Say what categories are in our scheme: exact, broader or narrower, none, or that nobody has said."""
    with shell.node() as node:
        known = Exchange(node).quality.categories
        with node.store.reading() as tx:
            found: dict[str, set[str]] = {one: set() for one in categories or ()}
            for hash_set in tx.sets.all():
                for label in tx.sets.labels(hash_set.id or 0):
                    category = stored_label(label).category
                    if (not categories and hash_set.hub) or category in found:
                        found.setdefault(category, set()).add(hash_set.name)
            rows = [_code_value(one, known.mapped(tx, one), sorted(sets)) for one, sets in sorted(found.items())]
    shell.table(rows, CODE_COLUMNS, "No set of a partner's is held here.")


def _code_value(category: str, mapped: Mapped | None, sets: list[str]) -> dict[str, object]:
    ours = in_our_scheme(mapped)
    return {
        "category": category,
        "ours": ours["our_category"],
        "relation": ours["relation"],
        "table": mapped.table if mapped else "",
        "sets": sets,
    }


def _rule_value(rule: UseRule) -> dict[str, object]:
    return {
        "agencies": rule.agencies,
        "of": list(rule.of),
        "listing": rule.listing,
        "disputes": rule.disputes,
        "relations": sorted(map(str, rule.relations)),
        "law": rule.law,
        "says": rule.says,
        "reviewed_by": rule.reviewed_by,
        "valid_until": rule.valid_until.isoformat() if rule.valid_until else "",
        "lapsed": rule.lapsed,
    }


def _standing_value(one: Standing) -> dict[str, object]:
    return {
        "entry": format_entry(one.entry_id),
        "version": one.version,
        "words": one.words,
        "actionable": one.actionable,
        "obstacles": [str(obstacle) for obstacle in one.obstacles],
        "behind": sorted(one.behind),
        "disputing": sorted(one.disputing),
        "hub_confirmed": one.hub[0],
        "hub_disputed": one.hub[1],
        "category": one.category,
        **in_our_scheme(one.mapped),
    }


def _standing_lines(one: Standing) -> Iterator[str]:
    use = "a program may act on it" if one.actionable else "; ".join(one.sentences)
    yield f"  {bold(format_entry(one.entry_id))}  {one.words}: {use}"
    behind, against = (", ".join(sorted(some)) or "nobody" for some in (one.behind, one.disputing))
    yield f"      behind it: {behind}; against it: {against}"
