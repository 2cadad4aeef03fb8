"""Administrators, what they sign, the partners that they enrol, and the brake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.approvals import DONE, OPEN, Approvals, Arguments, Change, Proposal
from gateway.cli import passphrases
from gateway.cli.founding import card_lines, card_value
from gateway.cli.shell import Shell, amount, bold, command, plain, when
from gateway.errors import ConfigError, ConflictError, DeniedError, GatewayError
from gateway.home import ADMINISTRATORS
from gateway.interchange import MAX_CARD_BYTES, IdentityCard, parse_card
from gateway.keyadmin import (
    add_administrator,
    add_partner,
    approvals,
    bootstrap_administrator,
    check_administrator_name,
    lift_test,
    pause,
    remove_administrator,
    remove_partner,
    resume,
    set_quorum,
    suspend_partner,
)
from gateway.keystore import PersonalKey, create_personal, open_personal
from gateway.node import Node
from gateway.partners import card_in, get
from gateway.standing import roster
from gateway.store.tables import PartnerRow

admin_app = typer.Typer(add_completion=False, help="Administrators: who signs guarded acts.", no_args_is_help=True)
approval_app = typer.Typer(
    add_completion=False, help="Guarded acts that wait for signatures, or were done.", no_args_is_help=True
)
partner_app = typer.Typer(add_completion=False, help="Partners: enrol, look at, shut out.", no_args_is_help=True)
pause_app, resume_app = typer.Typer(add_completion=False), typer.Typer(add_completion=False)
COMMANDS = {
    "admin": admin_app,
    "approval": approval_app,
    "partner": partner_app,
    "pause": pause_app,
    "resume": resume_app,
}

Admin = Annotated[str, typer.Option("--admin", help="The administrator who signs.")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="Their key file, if it is not in the data folder.")]
AdminPassphrase = Annotated[
    Path | None, typer.Option("--admin-passphrase-file", help="File with their passphrase; else it is asked for.")
]
Reason = Annotated[str, typer.Option(help="Why, in one line; it stands in the audit log.")]
PENDING = "pending"  # its card waits for signatures
PARTNER_COLUMNS = {
    "agency": "agency",
    "state": "state",
    "paused": "paused",
    "under_test": "under test",
    "name": "name",
    "url": "answers at",
    "contacted": "last contact",
}


@command(admin_app, "add")
def admin_add(
    shell: Shell,
    *,
    name: Annotated[str, typer.Argument(help="A short name, such as a post: duty-officer.")],
    key_file: Annotated[Path | None, typer.Option(help="Where to put the new key file.")] = None,
    admin_passphrase_file: Annotated[Path | None, typer.Option(help="File with the new passphrase.")] = None,
    admin: Annotated[str, typer.Option(help="The administrator who proposes it, once there are enough.")] = "",
) -> None:
    """Make an administrator's signing key, under a passphrase of their own, and add them.

    The first ones are added at once. When there are as many as the quorum asks for, it is a guarded act.
    """
    check_administrator_name(name)
    with shell.node() as node:
        with node.store.reading() as tx:
            people = roster(tx, node)
            taken = name in {row.name for row in tx.people.administrators()}
        if taken:
            raise ConflictError("an administrator of this name exists, or there was one")
        by_signature = len(people.administrators) >= people.signed
        if by_signature and not admin:
            raise ConfigError(
                "another administrator is a guarded act now", remedy="add --admin NAME of who proposes it"
            )
        path = key_file or shell.home / ADMINISTRATORS / f"{name}.json"
        secret = shell.passphrases.administrator(name, admin_passphrase_file, new=True)
        key = create_personal(path, name, secret, cost=passphrases.cost(demo=node.settings.demo))
        try:
            proposal = _add_administrator(node, key, admin if by_signature else "")
        except GatewayError:
            path.unlink(missing_ok=True)  # nobody will ever know this key
            raise
    value = {"name": name, "key_id": key.signing_key.public.key_set_id, "key_file": str(path), "proposal": proposal}
    lines = [f"The key of {bold(name)} is in {plain(str(path))}; it belongs to them alone, and so does its passphrase."]
    if proposal:
        lines.append(f"Waiting for {people.quorum} signatures: gateway approval sign {proposal[:12]} --admin NAME")
    else:
        lines.append(
            f"{bold(name)} is administrator {len(people.administrators) + 1}; guarded acts need {people.quorum}."
        )
    shell.show(value, *lines)


@command(admin_app, "remove")
def admin_remove(
    shell: Shell,
    *,
    name: Annotated[str, typer.Argument(help="Who goes.")],
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """End somebody's time as administrator (guarded). What they signed before still verifies; the name stays taken."""
    with shell.node() as node:
        act = remove_administrator(name, reason)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(admin_app, "quorum")
def admin_quorum(
    shell: Shell,
    *,
    number: Annotated[int, typer.Argument(help="How many must sign.", min=1, max=64)],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Set how many administrators must sign (guarded). The settings may ask for more, never for fewer."""
    with shell.node() as node:
        act = set_quorum(number)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(admin_app, "list")
def admin_list(shell: Shell) -> None:
    """List the administrators."""
    with shell.node(restored=True) as node, node.store.reading() as tx:
        people = roster(tx, node)
        rows: list[dict[str, object]] = [
            {
                "name": row.name,
                "added": row.added,
                "key_id": people.administrators[row.name].key_set_id,
                "by": f"proposal {row.proposal[:12]}" if row.proposal else "founder",
            }
            for row in tx.people.administrators()
            if row.name in people.administrators
        ]
    columns = {"name": "name", "added": "added", "by": "by", "key_id": "key id"}
    shell.table(rows, columns, "There are no administrators yet.")


@command(approval_app, "list")
def approval_list(
    shell: Shell, everything: Annotated[bool, typer.Option("--all", help="Also those done or expired.")] = False
) -> None:
    """List the proposals that wait for signatures."""
    with shell.node(restored=True) as node:
        desk = approvals(node)
        desk.expire()
        rows = [proposal_value(one) for one in desk.all(only_open=not everything)]
    short = [{**row, "id": str(row["id"])[:12]} for row in rows]
    columns = {
        "id": "proposal",
        "act": "act",
        "subject": "of",
        "state": "state",
        "signers": "signed by",
        "quorum": "needs",
        "expires": "until",
    }
    shell.table(rows if shell.as_json else short, columns, "Nothing waits for a signature.")


@command(approval_app, "show")
def approval_show(
    shell: Shell, identifier: Annotated[str, typer.Argument(metavar="ID", help="The proposal, or its beginning.")]
) -> None:
    """Show what a proposal would change, who proposed it and who signed."""
    with shell.node(restored=True) as node:
        desk = approvals(node)
        desk.expire()
        one = desk.get(identifier)
        changes = desk.difference(one.id)
    value = {**proposal_value(one), "arguments": one.arguments, "difference": [_change_value(c) for c in changes]}
    shell.show(value, *_proposal_lines(one, changes))


@command(approval_app, "sign")
def approval_sign(
    shell: Shell,
    *,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="The proposal, or its beginning.")],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Sign a proposal. The signature that completes the quorum does the act."""
    with shell.node(restored=True) as node:
        desk = approvals(node)
        desk.expire()
        if not shell.as_json:
            one = desk.get(identifier)
            for line in _proposal_lines(one, desk.difference(one.id)):
                shell.note(line)
        key = _personal(shell, admin, key_file, admin_passphrase_file)
        _show_outcome(shell, desk.sign(identifier, key))


@command(approval_app, "withdraw")
def approval_withdraw(
    shell: Shell,
    *,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="The proposal, or its beginning.")],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Close a proposal of one's own without doing it."""
    with shell.node(restored=True) as node:
        key = _personal(shell, admin, key_file, admin_passphrase_file)
        one = approvals(node).withdraw(identifier, key)
    shell.show(proposal_value(one), f"Withdrawn: {one.sentence} ({bold(one.subject)}). Nothing was done.")


@command(partner_app, "add")
def partner_add(
    shell: Shell,
    *,
    card: Annotated[Path, typer.Argument(help="The identity card that the partner exported.")],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Enrol a partner, or replace its identity card (guarded). Compare the fingerprint by voice before you sign.

    A new partner is pending until enough administrators have signed, and under test until `lift-test`.
    """
    raw = read_file(card, MAX_CARD_BYTES)
    parsed = parse_card(raw)
    if not shell.as_json:
        shell.note(f"The card says: {parsed.agency}, {plain(parsed.name)}, at {plain(parsed.url)}")
        shell.note(f"Fingerprint:   {parsed.fingerprint}   Compare it by voice with the partner's.")
    with shell.node() as node:
        guarded(shell, node, add_partner(raw), admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(partner_app, "list")
def partner_list(shell: Shell) -> None:
    """List the partners, also those that are pending until enough administrators have signed."""
    with shell.node() as node:
        waiting = _waiting_cards(approvals(node))
        with node.store.reading() as tx:
            held = tx.people.partners()
            rows = [_partner_value(get(node, tx, row.agency), paused=tx.people.is_paused(row.agency)) for row in held]
        known = {row.agency for row in held}
        rows += [_pending_value(one, card) for agency, (one, card) in waiting.items() if agency not in known]
    shell.table(rows, PARTNER_COLUMNS, "There are no partners yet.")


@command(partner_app, "show")
def partner_show(shell: Shell, agency: Annotated[str, typer.Argument(help="The partner.")]) -> None:
    """Show a partner's identity card, with the fingerprint to compare by voice, and what waits for signatures."""
    with shell.node() as node:
        waiting = _waiting_cards(approvals(node)).get(agency)
        with node.store.reading() as tx:
            if waiting is not None and tx.people.find_partner(agency) is None:
                one, card = waiting
                shell.show(_pending_value(one, card), *card_lines(card), *_pending_lines(one))
                return
            row = get(node, tx, agency)
            paused = tx.people.is_paused(agency)
    card = card_in(row)
    rights = "sets of invented data only, until `gateway partner lift-test`" if row.test else "what policy permits"
    value = _partner_value(row, paused=paused)
    lines = [
        *card_lines(card),
        f"  state            {row.state}{', paused' if paused else ''}, since {when(row.added)}",
        f"  may exchange     {rights}",
        f"  last contact     {when(row.contacted)}",
    ]
    if waiting is not None:
        one, newer = waiting
        value["waiting_card"] = {**_waiting_value(one), "fingerprint": newer.fingerprint}
        lines += ["  a newer card waits for signatures:", *_pending_lines(one)]
    shell.show(value, *lines)


@command(partner_app, "lift-test")
def partner_lift_test(
    shell: Shell,
    *,
    agency: Annotated[str, typer.Argument(help="The partner.")],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Let real data move to and from a partner (guarded). Until then only sets named test-… do."""
    with shell.node() as node:
        guarded(shell, node, lift_test(agency), admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(partner_app, "suspend")
def partner_suspend(
    shell: Shell,
    *,
    agency: Annotated[str, typer.Argument(help="The partner.")],
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Shut a partner out until `resume` (guarded). To stop at once and alone, `pause` it."""
    with shell.node() as node:
        act = suspend_partner(agency, reason)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(partner_app, "remove")
def partner_remove(
    shell: Shell,
    *,
    agency: Annotated[str, typer.Argument(help="The partner.")],
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """End the exchange with a partner for good (guarded). Its tokens, feeds and secrets end at once."""
    with shell.node() as node:
        act = remove_partner(agency, reason)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(pause_app, "pause")
def pause_now(
    shell: Shell,
    *,
    partner: Annotated[str, typer.Argument(help="Only this partner; without it, all exchange stops.")] = "",
    admin: Annotated[str, typer.Option(help="The administrator who stops it.")] = "",
) -> None:
    """Stop exchange at once. One person may do this; going on takes the quorum."""
    with shell.node() as node:
        fresh = pause(node, partner, by=admin)
    what = f"Exchange with {partner}" if partner else "All exchange"
    word = "is stopped" if fresh else "was stopped already"
    shell.show({"scope": partner or "*", "paused": True, "fresh": fresh}, f"{plain(what)} {word}.")


@command(resume_app, "resume")
def resume_guarded(
    shell: Shell,
    *,
    admin: Admin,
    partner: Annotated[str, typer.Argument(help="The partner; without it, the pause of everything is lifted.")] = "",
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Go on after a pause or a suspension (guarded)."""
    with shell.node() as node:
        guarded(shell, node, resume(partner), admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


def proposal_value(one: Proposal) -> dict[str, object]:
    """A proposal as members of a JSON object, without its arguments."""
    return {
        "id": one.id,
        "act": one.act,
        "subject": one.subject,
        "state": one.state,
        "by": one.by,
        "signers": list(one.signers),
        "quorum": one.quorum,
        "created": one.created,
        "expires": one.expires,
    }


def read_file(path: Path, max_bytes: int) -> bytes:
    """A file that the user named, at most so large."""
    try:
        with path.open("rb") as source:
            raw = source.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}") from error
    if len(raw) > max_bytes:
        raise ConfigError(f"the file is larger than {max_bytes} bytes")
    return raw


def _add_administrator(node: Node, key: PersonalKey, proposer: str) -> str:
    """Add them, or propose it; the proposal's id, "" if none was needed."""
    if not proposer:
        bootstrap_administrator(node, key.name, key.signing_key.public)
        return ""
    return approvals(node).propose(*add_administrator(key.name, key.signing_key.public), by=proposer)


def guarded(
    shell: Shell,
    node: Node,
    act: tuple[str, Arguments],
    *,
    admin: str,
    key_file: Path | None,
    passphrase_file: Path | None,
) -> Proposal:
    """Propose an act and give it the first signature. The key is opened first: a typing mistake proposes nothing."""
    key = _personal(shell, admin, key_file, passphrase_file)
    desk = approvals(node)
    identifier = desk.propose(*act, by=key.name)
    one = desk.sign(identifier, key)
    _show_outcome(shell, one)
    return one


def personal_key(
    shell: Shell, node: Node, admin: str, key_file: Path | None, passphrase_file: Path | None
) -> PersonalKey:
    """The key of an administrator of now, opened by their passphrase: who holds it is they.

    Raises:
        DeniedError: the key is no administrator's of this gateway.
    """
    key = _personal(shell, admin, key_file, passphrase_file)
    with node.store.reading() as tx:
        if roster(tx, node).administrators.get(key.name) != key.signing_key.public:
            raise DeniedError("this key is not an administrator's of this gateway", remedy="see `gateway admin list`")
    return key


def _personal(shell: Shell, admin: str, key_file: Path | None, passphrase_file: Path | None) -> PersonalKey:
    check_administrator_name(admin)
    path = key_file or shell.home / ADMINISTRATORS / f"{admin}.json"
    if not path.exists():
        raise ConfigError("there is no key file of this administrator here", remedy="name it with --key-file")
    key = open_personal(path, shell.passphrases.administrator(admin, passphrase_file))
    if key.name != admin:
        raise ConfigError("this key file is another administrator's")
    return key


def _show_outcome(shell: Shell, one: Proposal) -> None:
    if one.state == DONE:
        line = f"Done: {one.sentence} ({bold(one.subject)}). Signed by {', '.join(one.signers)}."
    else:
        line = (
            f"Waiting for {amount(one.quorum - len(one.signers), 'more signature')}: "
            f"gateway approval sign {one.id[:12]} --admin NAME"
        )
    shell.show(proposal_value(one), line)


def _proposal_lines(one: Proposal, changes: list[Change]) -> list[str]:
    lines = [
        f"Proposal {one.id[:12]}: {one.sentence} ({plain(one.subject)})",
        f"  proposed by  {plain(one.by)}, {when(one.created)}",
        f"  signed by    {', '.join(one.signers) or '-'} ({len(one.signers)} of {one.quorum})",
        f"  state        {one.state}{f', until {when(one.expires)}' if one.state == OPEN else ''}",
    ]
    if one.arguments.get("reason"):
        lines.append(f"  reason       {plain(str(one.arguments['reason']))}")
    if changes:
        lines.append("  what changes (now > then)")
        lines += [f"    {plain(c.what)}: {plain(c.now) or '-'} > {plain(c.then) or '-'}" for c in changes]
    return lines


def _change_value(change: Change) -> dict[str, object]:
    return {"what": change.what, "now": change.now, "then": change.then}


def _waiting_cards(desk: Approvals) -> dict[str, tuple[Proposal, IdentityCard]]:
    """The cards that wait for signatures, by agency; of several for one agency the one proposed last."""
    waiting = [one for one in desk.all(only_open=True) if one.act == "partner_add"]
    waiting.sort(key=lambda one: (one.created, one.id))
    return {one.subject: (one, parse_card(str(one.arguments["card"]).encode())) for one in waiting}


def _waiting_value(one: Proposal) -> dict[str, object]:
    missing = max(0, one.quorum - len(one.signers))
    return {"proposal": one.id, "signers": list(one.signers), "missing": missing, "expires": one.expires}


def _partner_value(row: PartnerRow, *, paused: bool) -> dict[str, object]:
    standing = {"state": row.state, "paused": paused, "under_test": row.test}
    return {**card_value(card_in(row)), **standing, "contacted": row.contacted, "added": row.added}


def _pending_value(one: Proposal, card: IdentityCard) -> dict[str, object]:
    """A partner that nobody exchanges anything with yet."""
    standing = {"state": PENDING, "paused": False, "under_test": True, "contacted": 0, "added": 0}
    return {**card_value(card), **standing, **_waiting_value(one)}


def _pending_lines(one: Proposal) -> list[str]:
    missing = max(0, one.quorum - len(one.signers))
    return [
        f"  state            {PENDING}: {amount(missing, 'more signature')} needed, until {when(one.expires)}",
        f"  signed by        {', '.join(one.signers) or '-'} ({len(one.signers)} of {one.quorum})",
        f"  to sign it       gateway approval sign {one.id[:12]} --admin NAME",
    ]
