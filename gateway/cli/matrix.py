"""The whole policy as a table: `gateway policy matrix`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.judging import WITH_PURPOSE, policy_app
from gateway.cli.shell import Shell, amount, bold, command, plain
from gateway.config import Settings, read_policies
from gateway.enumerating import decide_all
from gateway.errors import ConfigError, MalformedError, NotFoundError
from gateway.model import SET_NAME, Surface
from gateway.policy import Action, Grid, LabelInSet, PartnerRef, PolicySet, Purpose, Question, load
from gateway.policy.matrix import MARKS, SHARED, Described, Matrix, described, described_partners, marks

if TYPE_CHECKING:
    from gateway.node import Node

MAX_DECISIONS = 5_000_000  # some minutes of two cores, and as many lines of a CSV
MAX_SQUARES = 20_000  # of one picture: a browser shows no more without complaint


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the matrix is of."""

    policies: PolicySet
    partners: tuple[PartnerRef, ...]
    labels: dict[str, LabelInSet]
    words: Described | None


@command(policy_app, "matrix")
def policy_matrix(
    shell: Shell,
    *,
    partner: Annotated[
        list[str] | None, typer.Option(help="A partner; may be repeated. Default: all enrolled.")
    ] = None,
    set_name: Annotated[
        list[str] | None, typer.Option("--set", help="A set of this gateway; may be repeated. Default: all its own.")
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Not the labels of sets, but every label that the rules can tell apart.")
    ] = False,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="With --describe: other countries' entries as well.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="With --describe: another folder of policies than the gateway's own.")
    ] = None,
    action: Annotated[
        list[Action] | None, typer.Option(help="Ask this as well as the five field groups of entries; may be repeated.")
    ] = None,
    surface: Annotated[Surface, typer.Option(help="How it would reach them.")] = Surface.SEALED,
    purpose: Annotated[Purpose, typer.Option(help="What for (look_up and refer only).")] = (
        Purpose.VICTIM_IDENTIFICATION
    ),
    csv: Annotated[Path | None, typer.Option(help="Write every decision to this new file, a line each.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw a heat map into this new file.")] = None,
) -> None:
    """Show the whole policy as a table: what each partner may receive under each label.

    With --describe no passphrase is needed; labels that are decided alike for every partner, by the same rules, are one
    line. Without, partners and labels are those of the gateway. Exchange goes on by the policy in force; shown is what
    the folder says.
    """
    settings = shell.settings()
    if any(file is not None and file.exists() for file in (csv, svg)):
        raise ConfigError("a file of this name exists already", remedy="name a new one")
    extra = [Question(one, purpose if one in WITH_PURPOSE else None) for one in action or []]
    questions = tuple(dict.fromkeys((*SHARED, *extra)))
    if describe:
        asked = _described(settings, folder, (partner or [], set_name or []), questions, foreign=foreign)
    elif folder is not None or foreign:
        raise MalformedError("--folder and --foreign go with --describe")
    else:
        with shell.node() as node:
            asked = _stored(node, partner or [], set_name or [])
    matrix = _decided(shell, asked, questions, surface)
    folded = asked.words.folded(matrix) if asked.words else matrix
    if csv is not None:
        sink = io.StringIO(newline="")
        matrix.dump_csv(sink)
        _write(csv, sink.getvalue())
    if svg is not None:
        if len(folded.cells) > MAX_SQUARES:
            raise MalformedError(f"the picture would have more than {MAX_SQUARES:,} squares", remedy="name fewer sets")
        _write(svg, folded.draw_svg())
    _show(shell, matrix, folded)


def _described(
    settings: Settings,
    folder: Path | None,
    named: tuple[list[str], list[str]],
    questions: Sequence[Question],
    *,
    foreign: bool,
) -> _Asked:
    """Every label that the rules can tell apart, for the partners named or the parties of agreements."""
    partners, sets = named
    texts = read_policies(folder or settings.policies_folder, settings.jurisdiction)
    policies = load(texts, on=datetime.now(UTC).date())
    name = _full(settings.agency, sets[0] if sets else "list")
    if len(sets) > 1:
        raise MalformedError("--describe takes one set at most: labels differ by their words")
    chosen = _named(partners) or described_partners(policies)
    words = described(policies, name, chosen, questions, foreign=foreign)
    return _Asked(policies, chosen, dict(zip(words.names, words.labels, strict=True)), words)


def _stored(node: Node, partners: list[str], sets: list[str]) -> _Asked:
    """The gateway's own sets, and the partners that are enrolled."""
    from gateway.policymatrix import enrolled, own_labels  # noqa: PLC0415  describing labels needs no database

    with node.store.reading() as tx:
        partners_now = enrolled(tx)
        labels = {one.name: one.held for one in own_labels(tx, [_full(node.agency, name) for name in sets])}
    if not labels:
        raise NotFoundError("no set has a label yet", remedy="import entries first, or ask with --describe")
    return _Asked(node.policy, _named(partners) or partners_now or described_partners(node.policy), labels, None)


def _decided(shell: Shell, asked: _Asked, questions: tuple[Question, ...], surface: Surface) -> Matrix:
    """Every decision, with a bar while many are made."""
    if not asked.partners:
        raise NotFoundError("no agreement has a party yet", remedy="name partners with --partner")
    grid = Grid(asked.partners, surface, tuple(asked.labels.values()), questions)
    if grid.cells > MAX_DECISIONS:
        raise MalformedError(f"more than {MAX_DECISIONS:,} decisions", remedy="name fewer partners or sets")
    rows = []
    with shell.progress("Deciding", "decisions") as told:
        for row in decide_all(asked.policies, grid):
            rows.append(row)
            told(len(rows) * len(questions), grid.cells)
    return Matrix.of(asked.policies, grid, list(asked.labels), rows)


def _show(shell: Shell, matrix: Matrix, folded: Matrix) -> None:
    if shell.as_json:
        shell.show(matrix.to_json())
        return
    agencies = [partner.agency for partner in matrix.grid.partners]
    rows = [
        {"label": name, **{cell.partner.agency: marks(cell.decisions, matrix.grid.asked) for cell in cells}}
        for name, _, cells in folded.rows()
    ]
    shell.table(rows, {"label": "label", **{agency: agency for agency in agencies}}, "")
    letters = ", ".join(f"{MARKS[one.action]} {_word(one)}" for one in matrix.grid.asked)
    shell.show(
        None,
        "",
        f"{letters}; · withheld; - nothing at all",
        f"{bold(matrix.policies.jurisdiction)} on {matrix.policies.on}, {matrix.grid.surface}: "
        f"{amount(matrix.grid.cells, 'decision')} by policy {matrix.policies.digest[:16]}…",
    )


def _word(question: Question) -> str:
    return plain(question.action.removeprefix("share_").replace("_", " "))


def _named(partners: Sequence[str]) -> tuple[PartnerRef, ...]:
    return tuple(PartnerRef(agency, agency[:2]) for agency in dict.fromkeys(partners))


def _full(agency: str, name: str) -> str:
    full = name if "/" in name else f"{agency}/{name}"
    if SET_NAME.fullmatch(full) is None:
        raise MalformedError("this is not the name of a set", place="--set")
    return full


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8", newline="") as sink:
            sink.write(text)
    except OSError as error:
        raise ConfigError(f"the file cannot be written: {error.strerror}", remedy="name a new file") from error
