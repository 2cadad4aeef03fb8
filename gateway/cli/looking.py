"""Look-up: is a digest listed, here or at a partner's, and has the child been identified?"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer

from gateway.adapters.asked_digests import FORM, Asked, read_asked
from gateway.cli.asking import Round, active_partners, ask_partners, told_row
from gateway.cli.shell import Shell, amount, command, when
from gateway.columns.pdq import MAX_RADIUS, QUALITY_FLOOR
from gateway.errors import ConfigError
from gateway.exchange import Exchange
from gateway.exchange.lookup import MAX_LOOK_UP, Hit, Verdict, verdict
from gateway.model import AdapterReport, Purpose
from gateway.node import Node
from gateway.partners import card_in, find
from gateway.problems import exit_code

look_up_app = typer.Typer(add_completion=False)
COMMANDS = {"look-up": look_up_app}

MAX_AT_PARTNERS = 65_536  # digests at once: half a minute of what a partner allows by itself
NOTHING, GIVE = "there is nothing to look up", "give digests, or --file with one on each line"
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
    "series": "series",
    "hub": "from",
    "duties": "duties",
    "remarks": "remarks",
}
OWN = "own"  # stands for where our own entries come from
IF_SAID = ("contact", "series", "duties", "remarks")  # columns that are shown where there is something in them
# Where not all of them have room: what matters most first.
MATTERS = (
    "digest",
    "answer",
    "who",
    "since",
    "set",
    "duties",
    "contact",
    "entry",
    "hub",
    "remarks",
    "series",
    "category",
)
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
    partner: Annotated[list[str] | None, typer.Option(help="Ask this partner as well; may be given again.")] = None,
    all_partners: Annotated[bool, typer.Option("--all-partners", help="Ask every active partner as well.")] = False,
    purpose: Annotated[Purpose, typer.Option(help="What partners are told it is for.")] = Purpose.VICTIM_IDENTIFICATION,
) -> None:
    """Is this hash listed here, by whom, and has the child been identified? Searches every set; partners if wanted.

    A hit by a perceptual digest (PDQ, PhotoDNA) only looks alike: a person has to see whether it is the same. Partners
    are asked in sealed questions that do not show how many digests are meant, and tell what their policy permits.
    """
    report = AdapterReport(FORM)
    tally = _Tally(report, within=distance if near else None)
    with shell.node() as node, _source(file) as source:
        if source is None and not digests:
            raise ConfigError(NOTHING, remedy=GIVE)
        given = (Asked(one.strip(), 0) for one in digests or [])
        stream = chain(given, [] if source is None else read_asked(source, report, column=column))
        if partner or all_partners:
            asking = active_partners(node) if all_partners else partner or []
            rounds = _with_partners(shell, node, tally, stream, partners=asking, purpose=purpose)
        else:
            rounds = []
            _here(shell, node, tally, stream, listed=source is None)
    _finish(shell, tally)
    if failed := [one.error for one in rounds if one.error is not None]:
        raise typer.Exit(exit_code(failed[-1]))  # everybody was asked; the answer says who did not answer


@dataclass(slots=True)
class _Tally:
    """What is asked, and what it has come to so far. `within`: the distance of near ones, None for exact ones alone."""

    report: AdapterReport
    within: int | None
    asked: int = 0
    poor: int = 0
    said: Counter[Verdict] = field(default_factory=Counter)

    def next_of(self, stream: Iterator[Asked], most: int) -> list[Asked]:
        """The next digests worth asking about."""
        good = []
        for one in stream:
            if 0 < one.quality < QUALITY_FLOOR:
                self.poor += 1
            else:
                good.append(one)
                if len(good) == most:
                    break
        self.asked += len(good)
        return good


def _here(shell: Shell, node: Node, tally: _Tally, stream: Iterator[Asked], *, listed: bool) -> None:
    """Look up in our own sets and mirrors, batch by batch."""
    exchange, people = Exchange(node), _Contacts(node)
    with shell.batches() as show, shell.progress("looking up", "digests") as told:
        while good := tally.next_of(stream, MAX_LOOK_UP):
            hits = exchange.lookup.find([one.digest for one in good], actor=node.agency, distance=tally.within)
            rows = [_row(hit, good[hit.query], people.of(hit), tally.asked - len(good)) for hit in hits]
            shown = _shown(shell, good, rows, first=tally.asked - len(good), listed=listed)
            show(shown, _columns(shell, shown))
            tally.said.update(_verdicts(good, rows, tally.asked - len(good)))
            told(tally.asked, 0)


def _with_partners(
    shell: Shell, node: Node, tally: _Tally, stream: Iterator[Asked], *, partners: Sequence[str], purpose: Purpose
) -> list[Round]:
    """Look up here and at partners, and show all answers as one."""
    good = tally.next_of(stream, MAX_AT_PARTNERS)
    if next(stream, None) is not None:
        raise ConfigError(f"more than {MAX_AT_PARTNERS} digests for partners", remedy="ask in several lists")
    if not good:
        return []
    exchange, people = Exchange(node), _Contacts(node)
    texts = [one.digest for one in good]
    hits = exchange.lookup.find(texts, actor=node.agency, distance=tally.within)
    rows = [_row(hit, good[hit.query], people.of(hit), 0) for hit in hits]
    with shell.progress("asking partners", "questions") as told:
        rounds = ask_partners(node, exchange, partners, texts, purpose, tally.within, told)
    for one in rounds:
        rows += [
            told_row(said, good[place].line, place + 1, _short(good[place].digest), one.partner, more=more)
            for place, said, more in one.answers()
        ]
    for row in rows:
        row["contact"] = row["contact"] or people.name(str(row["hub"]))
    rows.sort(key=lambda row: int(str(row["query"])))
    tally.said.update(_verdicts(good, rows, 0))
    if shell.as_json:
        shell.show({"hits": rows, "partners": [one.to_json() for one in rounds]})
        return rounds
    shown = _shown(shell, good, rows, first=0, listed=len(good) <= MAX_LISTED)
    if shown:
        shell.table(shown, _columns(shell, shown), "")
    for one in rounds:
        shell.show(None, one.sentence)
    return rounds


class _Contacts:
    """Whom to ask about an answer: the name that an agency's identity card gives."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[str, str] = {node.agency: ""}

    def of(self, hit: Hit) -> str:
        """The name of the agency whose word it is, or of the partner that told us of it."""
        return hit.contact or self.name(hit.who) or self.name(hit.hub or self._node.agency)

    def name(self, agency: str) -> str:
        """The name of a partner; "" for ourselves, and for whoever is none."""
        if agency == OWN:
            return ""
        if agency not in self._known:
            with self._node.store.reading() as tx:
                row = find(self._node, tx, agency)
            self._known[agency] = "" if row is None else card_in(row).name
        return self._known[agency]


def _shown(shell: Shell, asked: Sequence[Asked], rows: Rows, *, first: int, listed: bool) -> Rows:
    """What is shown of a batch: each hit with all members; for people also what is unknown of a short list."""
    if shell.as_json:
        return rows
    shown = [{**row, "since": when(int(str(row["since"]))), "answer": _answer(row)} for row in rows]
    if rows and listed and len(asked) <= MAX_LISTED:
        known = {row["query"] for row in rows}
        nothing = dict.fromkeys(COLUMNS, "")
        shown += [
            {**nothing, "query": first + at, "digest": _short(one.digest), "answer": str(Verdict.UNKNOWN)}
            for at, one in enumerate(asked, 1)
            if first + at not in known
        ]
        shown.sort(key=lambda row: int(str(row["query"])))
    return shown


def _columns(shell: Shell, rows: Rows) -> dict[str, str]:
    """The columns that say something and have room, so that nothing is cut off; a note names the others."""
    said = [name for name in MATTERS if name not in IF_SAID or any(row[name] for row in rows)]
    chosen: list[str] = []
    left: list[str] = []
    room = shell.width + 2
    for name in said:
        needed = 2 + max(len(COLUMNS[name]), *(len(_cell(row[name])) for row in rows)) if rows else 0
        (chosen if needed <= room else left).append(name)
        room -= needed if needed <= room else 0
    if left and not shell.as_json:
        shell.note(f"No room for: {', '.join(COLUMNS[name] for name in left)}. A wider window or --json has them.")
    return {name: word for name, word in COLUMNS.items() if name in chosen}


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


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
        "hub": hit.hub or OWN,
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


def _verdicts(asked: Sequence[Asked], rows: Rows, first: int) -> list[Verdict]:
    by_query: dict[object, list[Verdict]] = {}
    for row in rows:
        by_query.setdefault(row["query"], []).append(Verdict(str(row["answer"])))
    return [verdict(by_query.get(first + at, [])) for at in range(1, len(asked) + 1)]


def _finish(shell: Shell, tally: _Tally) -> None:
    """What the whole came to, and what of a file was passed over."""
    report, said, asked, poor = tally.report, tally.said, tally.asked, tally.poor
    if not asked and not report.refused and not poor:
        raise ConfigError(NOTHING, remedy=GIVE)
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
