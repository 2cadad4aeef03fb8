"""Look-up: is a digest listed, here or at a partner's, and has the child been identified?"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer

from gateway.adapters.asked_digests import FORM, Asked, read_asked
from gateway.cli.shell import Shell, amount, command, when
from gateway.columns.pdq import MAX_RADIUS, QUALITY_FLOOR
from gateway.errors import ConfigError
from gateway.exchange import Exchange
from gateway.exchange.lookup import MAX_LOOK_UP, Hit, Verdict, verdict
from gateway.model import AdapterReport
from gateway.node import Node
from gateway.partners import card_in, find

look_up_app = typer.Typer(add_completion=False)
COMMANDS = {"look-up": look_up_app}

MAX_LISTED = 1_000  # digests: of so many each has its line, also if it is unknown; of more only what is known
COLUMNS = {
    "digest": "digest",
    "answer": "answer",
    "who": "who",
    "since": "since",
    "contact": "contact",
    "set": "set",
    "entry": "entry",
    "category": "category",
    "handling": "handling",
    "series": "series",
    "hub": "from",
    "duties": "duties",
    "remarks": "remarks",
}
IF_SAID = ("contact", "series", "duties", "remarks")  # columns that are shown where there is something in them
Rows = list[dict[str, object]]


@command(look_up_app, "look-up")
def look_up(
    shell: Shell,
    *,
    digests: Annotated[list[str] | None, typer.Argument(metavar="[HASH]...", help="Digests in hexadecimal.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A list: one digest on each line, or a CSV file; `-` for standard input.")
    ] = None,
    column: Annotated[str, typer.Option(help="The column of a CSV file; else its best one.")] = "",
    near: Annotated[bool, typer.Option("--near", help="Also find what looks alike, by PDQ; it needs review.")] = False,
    distance: Annotated[int, typer.Option(help="With --near: in at most so many of 256 bits.")] = MAX_RADIUS,
) -> None:
    """Is this hash listed here, by whom, and has the child been identified? Searches every set.

    A hit by a perceptual digest (PDQ, PhotoDNA) only looks alike: a person has to see whether it is the same.
    """
    report = AdapterReport(FORM)
    within = distance if near else None
    said: Counter[Verdict] = Counter()
    asked = poor = 0
    with shell.node() as node, _source(file) as source, shell.batches() as show:
        exchange, people = Exchange(node), _Contacts(node)
        given = (Asked(one.strip(), 0) for one in digests or [])
        stream = chain(given, [] if source is None else read_asked(source, report, column=column))
        with shell.progress("looking up", "digests") as told:
            while batch := list(islice(stream, MAX_LOOK_UP)):
                good = [one for one in batch if not 0 < one.quality < QUALITY_FLOOR]
                asked, poor = asked + len(good), poor + len(batch) - len(good)
                hits = exchange.lookup.find([one.digest for one in good], actor=node.agency, distance=within)
                rows = _rows(shell, good, hits, people, first=asked - len(good), listed=source is None)
                show(rows, _columns(rows))
                said.update(_verdicts(good, hits))
                told(asked, 0)
    _finish(shell, report, said, asked=asked, poor=poor)


class _Contacts:
    """Whom to ask about an answer: the name that an agency's identity card gives."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[str, str] = {node.agency: ""}

    def of(self, hit: Hit) -> str:
        """The name of the agency whose word it is, or of the partner that told us of it."""
        return self._name(hit.who) or self._name(hit.hub or self._node.agency)

    def _name(self, agency: str) -> str:
        if agency not in self._known:
            with self._node.store.reading() as tx:
                row = find(self._node, tx, agency)
            self._known[agency] = "" if row is None else card_in(row).name
        return self._known[agency]


def _rows(
    shell: Shell, asked: Sequence[Asked], hits: Sequence[Hit], people: _Contacts, *, first: int, listed: bool
) -> Rows:
    """What is shown of a batch: each hit with all members; for people also what is unknown of a short list."""
    rows = [_row(hit, asked[hit.query], people.of(hit), first) for hit in hits]
    if shell.as_json:
        return rows
    for row in rows:
        row["since"] = when(int(str(row["since"])))
        row["answer"] = _answer(row)
    if hits and listed and len(asked) <= MAX_LISTED:
        known = {hit.query for hit in hits}
        nothing = dict.fromkeys(COLUMNS, "")
        rows += [
            {**nothing, "query": first + at + 1, "digest": _short(one.digest), "answer": str(Verdict.UNKNOWN)}
            for at, one in enumerate(asked)
            if at not in known
        ]
        rows.sort(key=lambda row: int(str(row["query"])))
    return rows


def _columns(rows: Rows) -> dict[str, str]:
    return {name: word for name, word in COLUMNS.items() if name not in IF_SAID or any(row[name] for row in rows)}


def _row(hit: Hit, asked: Asked, contact: str, first: int) -> dict[str, object]:
    attributes = ("originator", "victim_status", "category", "handling")
    return {
        "query": first + hit.query + 1,
        "line": asked.line,
        "digest": _short(asked.digest),
        "algorithm": hit.algorithm,
        "answer": str(hit.verdict),
        "distance": hit.distance if hit.needs_review else None,
        "set": hit.set_name,
        "entry": hit.entry,
        "series": hit.series,
        "hub": hit.hub or "own",
        "duties": list(hit.duties),
        "who": hit.who,
        "since": hit.since,
        "contact": contact,
        "remarks": list(hit.remarks),
        **{name: hit.attributes[name] for name in attributes},
    }


def _answer(row: dict[str, object]) -> str:
    if row["distance"] is None:
        return str(row["answer"])
    return f"{row['answer']} ({amount(int(str(row['distance'])), 'bit')} apart, {row['victim_status']})"


def _verdicts(asked: Sequence[Asked], hits: Iterable[Hit]) -> list[Verdict]:
    by_query: dict[int, list[Hit]] = {}
    for hit in hits:
        by_query.setdefault(hit.query, []).append(hit)
    return [verdict(by_query.get(at, [])) for at in range(len(asked))]


def _finish(shell: Shell, report: AdapterReport, said: Counter[Verdict], *, asked: int, poor: int) -> None:
    """What the whole came to, and what of a file was passed over."""
    if not asked and not report.refused and not poor:
        raise ConfigError("there is nothing to look up", remedy="give digests, or --file with one on each line")
    if not shell.as_json and said[Verdict.UNKNOWN] == asked:
        shell.show(None, "Not listed here." if asked == 1 else f"None of {asked:,} is listed here.")
    elif not shell.as_json and asked > 1:
        words = ", ".join(f"{said[one]:,} {one}" for one in Verdict if said[one])
        shell.show(None, f"Of {asked:,} digests: {words}.")
    if poor:
        shell.note(
            f"{amount(poor, 'digest')} of a quality below {QUALITY_FLOOR} not asked: flat pictures all look alike."
        )
    if report.refused:
        lines = ", ".join(str(row.line) for row in report.refused_rows[:20])
        shell.note(f"{amount(report.refused, 'row')} passed over, no digest in it: line {lines}")


@contextmanager
def _source(path: Path | None) -> Iterator[BinaryIO | None]:
    if path is None:
        yield None
    elif str(path) == "-":
        yield sys.stdin.buffer
    else:
        try:
            source = cast(BinaryIO, path.open("rb"))
        except OSError as error:
            raise ConfigError(f"the file cannot be read: {error.strerror}") from error
        with source:
            yield source


def _short(digest: str) -> str:
    """Enough of the user's own digest to find it again in the list that they gave."""
    text = digest.strip().lower()
    return f"{text[:16]}…" if len(text) > 17 else text
