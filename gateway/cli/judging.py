"""Policy: checking a folder of rules, and asking what they decide and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.people import Admin, AdminPassphrase, KeyFile, guarded
from gateway.cli.shell import Shell, amount, bold, command, plain
from gateway.config import read_examples, read_policies, read_sheets
from gateway.errors import ConfigError, MalformedError, NotFoundError
from gateway.model import ENTRY_GROUPS, HandlingCode, Label, Restriction, Surface, VictimStatus
from gateway.policy import (
    Action,
    Decision,
    LabelInSet,
    PartnerRef,
    PolicySet,
    Purpose,
    ShareRequest,
    check,
    describe,
    load,
)
from gateway.policyacts import activate_policy, cancel_policy
from gateway.standing import policy_in_force, policy_waiting

if TYPE_CHECKING:
    from gateway.exchange.rehearsing import EntryChange

policy_app = typer.Typer(
    add_completion=False, help="Sharing policy: what may leave, to whom, under which law.", no_args_is_help=True
)
COMMANDS = {"policy": policy_app}

WITH_PURPOSE = (Action.LOOK_UP, Action.REFER)
TOLD_EVERY = 10_000
DIFFERENCE_COLUMNS = {
    "partner": "partner",
    "set": "set",
    "label": "label",
    "entries": "entries",
    "change": "comes (+) and goes (-)",
    "duties": "duties",
    "rules": "rules",
}
EXPLAIN_COLUMNS = {"action": "action", "outcome": "outcome", "rules": "rules", "obligations": "duties"}


@command(policy_app, "check")
def policy_check(
    shell: Shell,
    *,
    folder: Annotated[Path | None, typer.Argument(help="A folder of policies; by default the gateway's own.")] = None,
    jurisdiction: Annotated[str, typer.Option(help="Whose rules; by default this gateway's.")] = "",
) -> None:
    """Check every rule against the schema, and decide every worked example. Needs no passphrase."""
    chosen, place = _jurisdiction(shell, jurisdiction), folder or shell.settings().policies_folder
    report = check_policies(place, chosen)
    shell.show(
        report,
        f"{bold(chosen)}: {report['rules']} rules are sound, {report['examples']} examples are decided as written.",
        f"  digest   {report['digest']}",
        f"  lapsed   {report['lapsed'] or 'none'}",
        f"  as it is until {report['good_until'] or 'further notice'}",
    )


@command(policy_app, "describe")
def policy_describe(
    shell: Shell,
    *,
    folder: Annotated[Path | None, typer.Argument(help="A folder of policies; by default the gateway's own.")] = None,
    jurisdiction: Annotated[str, typer.Option(help="Whose rules; by default this gateway's.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Only compare; fail if a sheet is not what the rules say.")] = (
        False
    ),
) -> None:
    """Write share.md beside the rules: every rule as a line of a table and in plain sentences. Needs no passphrase."""
    chosen, place = _jurisdiction(shell, jurisdiction), folder or shell.settings().policies_folder
    sheets, there = describe(read_policies(place, chosen)), read_sheets(place, chosen)
    stale = [name for name, text in sheets.items() if there.get(name) != text]
    if check and stale:
        raise ConfigError(
            "the sheet is not what the rules say", place=", ".join(stale), remedy="run `gateway policy describe`"
        )
    for name in stale:
        _write_sheet(place, name, sheets[name])
    shell.show(
        {"jurisdiction": chosen, "sheets": list(sheets), "written": stale},
        *(f"{name}: {'written' if name in stale else 'as the rules say'}" for name in sheets),
    )


@command(policy_app, "explain")
def policy_explain(
    shell: Shell,
    *,
    partner: Annotated[str, typer.Option(help="The partner, such as XB-NCVI.")],
    set_name: Annotated[str, typer.Option("--set", help="The set; needed unless an entry is named.")] = "",
    entry: Annotated[
        str, typer.Option(help="Why one entry went or did not: SET/ and its id, a digest or our reference.")
    ] = "",
    case: Annotated[str, typer.Option(help="What of one case would go, and what stays and why: its local id.")] = "",
    label: Annotated[int, typer.Option(help="A label of that set, by number; or else describe one:", min=0)] = 0,
    originator: Annotated[str, typer.Option(help="Who supplied it; by default the set's owner.")] = "",
    handling: Annotated[HandlingCode, typer.Option(help="H0 to H3.")] = HandlingCode.H2,
    category: Annotated[str, typer.Option(help="scheme:code.")] = "unspecified:0",
    victim_status: Annotated[VictimStatus, typer.Option(help="How far the search is.")] = VictimStatus.UNKNOWN,
    evaluation: Annotated[str, typer.Option(help="Source A-F, information 1-6.")] = "F6",
    legal_basis: Annotated[str, typer.Option(help="The law it is held under.")] = "unspecified",
    restriction: Annotated[list[Restriction] | None, typer.Option(help="A restriction tag; may be repeated.")] = None,
    onward: Annotated[str, typer.Option(help="Jurisdictions it may be passed on to: XC,XD.")] = "",
    action: Annotated[Action | None, typer.Option(help="Only this action; by default every field group.")] = None,
    surface: Annotated[Surface, typer.Option(help="How it would reach them.")] = Surface.SEALED,
    purpose: Annotated[Purpose, typer.Option(help="What for (look_up and refer only).")] = (
        Purpose.VICTIM_IDENTIFICATION
    ),
) -> None:
    """Say what policy decides for a partner and a label: outcome, rules, their law, one plain sentence.

    With --label the label is one that the set has (this asks for the passphrase); without, it is described here. With
    --entry it is said of one entry what policy decides, whether the partner holds it, and which pages brought it; with
    --case, of one case, what would go of it.
    """
    settings = shell.settings()
    if case:
        from gateway.cli.referrals import explain_case  # noqa: PLC0415  it needs this module

        explain_case(shell, case, partner, purpose)
        return
    if entry:
        from gateway.cli.explaining import explain_entry  # noqa: PLC0415  it needs this module

        explain_entry(shell, entry, partner, set_name)
        return
    if not set_name:
        raise MalformedError("name a set, or an entry", remedy="--set SET or --entry SET/ENTRY")
    full = set_name if "/" in set_name else f"{settings.agency}/{set_name}"
    if label:
        judged = _stored(shell, full, label)
    else:
        owner = originator or full.split("/", maxsplit=1)[0]
        tags, countries = tuple(sorted(set(restriction or []))), tuple(sorted({c for c in onward.split(",") if c}))
        judged = Label(owner, owner[:2], handling, category, victim_status, evaluation, legal_basis, tags, countries)
    policies = load(read_policies(settings.policies_folder, settings.jurisdiction), on=_today())
    actions = [action] if action else [Action.share(group) for group in ENTRY_GROUPS]
    held, who = LabelInSet(full, judged), PartnerRef(partner, partner[:2])
    requests = [ShareRequest(who, one, surface, held, purpose if one in WITH_PURPOSE else None) for one in actions]
    rows = [_explained(policies, request) for request in requests]
    if shell.as_json:
        shell.show({"partner": partner, "set": full, "label": judged.to_json(), "decisions": rows})
        return
    shell.table(rows, EXPLAIN_COLUMNS, "")
    for row in rows:
        shell.show(None, "", plain(str(row["sentence"])))


@command(policy_app, "diff")
def policy_diff(
    shell: Shell,
    *,
    folder: Annotated[Path, typer.Argument(help="The folder of the changed policy.")],
    partner: Annotated[str, typer.Option(help="Only this partner.")] = "",
    on: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="As it would be on this day (UTC).")] = None,
    entries: Annotated[Path | None, typer.Option(help="Write each entry that would come or go into this file.")] = None,
) -> None:
    """Say what a changed policy would start and stop sharing, with whom, and what it would take, before it is in force.

    Compared with the policy in force, over the labels and entries that exist now. Nothing changes by it.
    """
    from gateway.exchange import Exchange  # noqa: PLC0415  the exchange is slow to import
    from gateway.exchange.rehearsing import describe, entry_changes, rehearse  # noqa: PLC0415

    after = load(read_policies(folder, shell.settings().jurisdiction), on=on.date() if on else _today())
    with shell.node() as node:
        with node.store.reading() as tx:
            if partner:
                tx.people.partner(partner)
            found = rehearse(tx, node, node.policy, after, partner=partner)
        written = 0
        if entries is not None:
            listed = entry_changes(node, Exchange(node).shelf, found)
            written = _write_entries(shell, entries, listed)
    rows = [describe(one) for one in found.changes]
    if shell.as_json:
        shell.show({"before": found.before, "after": found.after, "changes": rows, "entries_written": written})
        return
    shell.table(
        [_difference_row(row) for row in rows], DIFFERENCE_COLUMNS, "Nothing would be shared or taken otherwise."
    )
    if entries is not None:
        shell.note(f"{amount(written, 'entry', 'entries')} in {entries}")


@command(policy_app, "activate")
def policy_activate(
    shell: Shell,
    *,
    folder: Annotated[Path, typer.Option(help="The folder of the policy: a draft, not the gateway's own folder.")],
    on: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="From the beginning of this day (UTC); else at once.")
    ] = None,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Bring the policy in a folder into force, at once or on a day (guarded). It is kept as it is now, and so signed.

    Running gateways take it up by themselves. What partners may not hold any more is taken back from them.
    """
    check_policies(folder, shell.settings().jurisdiction)
    with shell.node() as node:
        act = activate_policy(node, folder, on.date() if on else None)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(policy_app, "cancel")
def policy_cancel(
    shell: Shell, *, admin: Admin, key_file: KeyFile = None, admin_passphrase_file: AdminPassphrase = None
) -> None:
    """Take back the policy that waits for its day (guarded)."""
    with shell.node() as node:
        act = cancel_policy(node)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(policy_app, "status")
def policy_status(shell: Shell) -> None:
    """Show which policy is in force, by which proposal, and which one waits for its day."""
    with shell.node() as node:
        with node.store.reading() as tx:
            word, waiting = policy_in_force(tx, node), policy_waiting(tx, node)
        found = node.policy
    value = {
        "policy": word.policy,
        "proposal": word.proposal,
        "rules": len(found.rules),
        "lapsed": [rule.id for rule in found.lapsed],
        "good_until": str(found.good_until or ""),
        "waiting": {"policy": waiting.policy, "on": waiting.on, "proposal": waiting.proposal} if waiting else None,
    }
    lines = [
        f"In force: {bold(word.policy)}",
        f"  signed as        {f'proposal {word.proposal[:12]}' if word.proposal else 'the founding policy'}",
        f"  rules            {len(found.rules)}, of which {len(found.lapsed)} are past their date",
        f"  as it is until   {found.good_until or 'further notice'}",
    ]
    if waiting is not None:
        lines.append(f"From {bold(waiting.on)} (UTC): {waiting.policy}, proposal {waiting.proposal[:12]}")
    shell.show(value, *lines)


def _difference_row(row: dict[str, object]) -> dict[str, object]:
    """One line for people; a field group with how many entries have something in it."""
    words = _words(row["attributes"])
    moved = [f"{sign}{group} ({count:,})" for sign, group, count in _moved(row)]
    if row["way"] == "take":
        moved = ["taken from now on" if row["taken"] else "taken no more"]
    duties = row.get("duties_before") != row.get("duties_after")
    before, after = (", ".join(_texts(row, f"rules_{when}")) or "no rule" for when in ("before", "after"))
    return {
        "partner": row["partner"],
        "set": row["set"],
        "label": f"{row['label']}: {words}",
        "entries": row["entries"],
        "change": " ".join(moved) or "-",
        "duties": f"{_duty_words(row, 'before')} > {_duty_words(row, 'after')}" if duties else "-",
        "rules": f"{before} > {after}" if before != after else before,
    }


def _moved(row: dict[str, object]) -> Iterator[tuple[str, str, int]]:
    for sign, name in (("+", "started"), ("-", "stopped")):
        counts = row.get(name, {})
        if isinstance(counts, dict):
            yield from ((sign, group, count) for group, count in counts.items())


def _duty_words(row: dict[str, object], when: str) -> str:
    return ", ".join(_texts(row, f"duties_{when}")) or "none"


def _texts(row: dict[str, object], name: str) -> list[str]:
    found = row.get(name, [])
    return [str(one) for one in found] if isinstance(found, list) else []


def _words(attributes: object) -> str:
    label = Label.from_json(attributes)
    return ", ".join([label.handling, label.category, label.victim_status, label.evaluation, *label.restrictions])


def _write_entries(shell: Shell, path: Path, listed: Iterable[EntryChange]) -> int:
    """One line for each partner and entry, tab-separated: partner, set, entry, what comes, what goes."""
    count = 0
    try:
        with path.open("x", encoding="ascii") as file, shell.progress("Listing entries", "entries") as told:
            file.write("partner\tset\tentry\tstarted\tstopped\n")
            for one in listed:
                moved = (",".join(sorted(groups)) for groups in (one.started, one.stopped))
                file.write("\t".join((one.partner, one.set_name, one.entry, *moved)) + "\n")
                count += 1
                if count % TOLD_EVERY == 0:
                    told(count, 0)
    except OSError as error:
        raise ConfigError(
            f"the file cannot be written: {error.strerror}", remedy="name one that does not exist"
        ) from error
    return count


def check_policies(folder: Path, jurisdiction: str) -> dict[str, object]:
    """What is in a folder of policies, once every rule is sound and every example decided as written.

    Raises:
        ConfigError: names the first rule that is not, or the first example that is decided otherwise.
    """
    checked = check(read_policies(folder, jurisdiction), read_examples(folder, jurisdiction), on=_today())
    policies = checked.sound()
    return {
        "jurisdiction": jurisdiction,
        "digest": policies.digest,
        "rules": len(policies.rules),
        "examples": checked.examples,
        "lapsed": [rule.id for rule in policies.lapsed],
        "good_until": str(policies.good_until or ""),
    }


def _write_sheet(folder: Path, name: str, text: str) -> None:
    """A sheet in its place. A crash within leaves a part of it, which --check finds; no rule is touched."""
    try:
        (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the sheet cannot be written: {error.strerror}", place=name) from error


def _explained(policies: PolicySet, request: ShareRequest) -> dict[str, object]:
    explanation = policies.explain(request)
    decision: Decision = explanation.decision
    return {
        "action": str(request.action),
        "outcome": str(decision.effect),
        "reason": str(decision.reason),
        "rules": list(decision.rule_ids),
        "law": [rule.law for rule in decision.rules],
        "says": [rule.says for rule in decision.rules],
        "obligations": [str(duty) for duty in decision.obligations],
        "sentence": explanation.sentence,
    }


def _stored(shell: Shell, full: str, number: int) -> Label:
    """A label that a set of the gateway has."""
    from gateway.exchange.labels import stored_label  # noqa: PLC0415  describing a label needs no database

    with shell.node() as node, node.store.reading() as tx:
        row = tx.sets.get(full)
        for one in tx.sets.labels(row.id or 0):
            if one.number == number:
                return stored_label(one)
    raise NotFoundError("the set has no label of this number", remedy="`gateway set show` names them")


def _jurisdiction(shell: Shell, named: str) -> str:
    if not named:
        return shell.settings().jurisdiction
    if len(named) != 2 or not named.isupper():
        raise MalformedError("a jurisdiction is two capital letters")
    return named


def _today() -> date:
    return datetime.now(UTC).date()
