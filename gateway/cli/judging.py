"""Policy: checking a folder of rules, and asking what they decide and why."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.people import Admin, AdminPassphrase, KeyFile, guarded
from gateway.cli.shell import Shell, bold, command, plain
from gateway.config import read_examples, read_pages, read_policies
from gateway.errors import ConfigError, MalformedError, NotFoundError
from gateway.keyadmin import activate_policy
from gateway.model import ENTRY_GROUPS, HandlingCode, Label, Restriction, Surface, VictimStatus
from gateway.policy import (
    FEDERATION,
    Action,
    Decision,
    LabelInSet,
    PartnerRef,
    PolicySet,
    Purpose,
    ShareRequest,
    describe,
    load,
    parse_examples,
    try_example,
)

policy_app = typer.Typer(
    add_completion=False, help="Sharing policy: what may leave, to whom, under which law.", no_args_is_help=True
)
COMMANDS = {"policy": policy_app}

WITH_PURPOSE = (Action.LOOK_UP, Action.REFER)
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
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a page is not what the rules say.")] = (
        False
    ),
) -> None:
    """Write share.md beside the rules: every rule as a line of a table and in plain sentences. Needs no passphrase."""
    chosen, place = _jurisdiction(shell, jurisdiction), folder or shell.settings().policies_folder
    pages, there = describe(read_policies(place, chosen)), read_pages(place, chosen)
    stale = [name for name, text in pages.items() if there.get(name) != text]
    if check and stale:
        raise ConfigError(
            "the page is not what the rules say", place=", ".join(stale), remedy="run `gateway policy describe`"
        )
    for name in stale:
        _write_page(place, name, pages[name])
    shell.show(
        {"jurisdiction": chosen, "pages": list(pages), "written": stale},
        *(f"{name}: {'written' if name in stale else 'as the rules say'}" for name in pages),
    )


@command(policy_app, "explain")
def policy_explain(
    shell: Shell,
    *,
    partner: Annotated[str, typer.Option(help="The partner, such as XB-NCVI.")],
    set_name: Annotated[str, typer.Option("--set", help="The set.")],
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

    With --label the label is one that the set has (this asks for the passphrase); without, it is described here.
    """
    settings = shell.settings()
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


@command(policy_app, "activate")
def policy_activate(
    shell: Shell, *, admin: Admin, key_file: KeyFile = None, admin_passphrase_file: AdminPassphrase = None
) -> None:
    """Bring the policy in the folder into force (guarded). A running gateway then stops until it is started again."""
    with shell.node() as node:
        check_policies(node.settings.policies_folder, node.settings.jurisdiction)
        act = activate_policy(node)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


def check_policies(folder: Path, jurisdiction: str) -> dict[str, object]:
    """What is in a folder of policies, once every rule is sound and every example decided as written.

    Raises:
        ConfigError: names the first rule that is not, or the first example that is decided otherwise.
    """
    policies = load(read_policies(folder, jurisdiction), on=_today())
    examples = read_examples(folder, jurisdiction)
    count = 0
    for part in (FEDERATION, jurisdiction):
        for example in parse_examples(examples[part], part) if part in examples else ():
            if example.us != jurisdiction:
                continue  # the federation's examples speak of several countries, each of which checks its own
            count += 1
            faults = try_example(example, policies)
            if faults:
                raise ConfigError(f"decided otherwise than written: {'; '.join(faults)}", place=example.place)
    return {
        "jurisdiction": jurisdiction,
        "digest": policies.digest,
        "rules": len(policies.rules),
        "examples": count,
        "lapsed": [rule.id for rule in policies.lapsed],
        "good_until": str(policies.good_until or ""),
    }


def _write_page(folder: Path, name: str, text: str) -> None:
    """A page in its place. A crash within leaves a part of it, which --check finds; no rule is touched."""
    try:
        (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the page cannot be written: {error.strerror}", place=name) from error


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
