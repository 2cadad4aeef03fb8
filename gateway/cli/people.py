"""Administrators, what they sign, the partners that they enrol, and the brake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.approvals import DONE, OPEN, Arguments, Proposal
from gateway.cli import passphrases
from gateway.cli.founding import card_lines, card_value
from gateway.cli.shell import Shell, amount, bold, command, plain, when
from gateway.crypto import canonical
from gateway.crypto.keys import VerifyingKey
from gateway.errors import ConfigError, ConflictError, GatewayError
from gateway.home import ADMINISTRATORS
from gateway.interchange import MAX_CARD_BYTES, parse_card
from gateway.keyadmin import (
    add_administrator,
    add_partner,
    approvals,
    bootstrap_administrator,
    check_administrator_name,
    pause,
    remove_partner,
    resume,
    suspend_partner,
)
from gateway.keystore import PersonalKey, create_personal, open_personal
from gateway.node import Node

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
PARTNER_COLUMNS = {
    "agency": "agency",
    "state": "state",
    "paused": "paused",
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
            known = [row.name for row in tx.people.administrators()]
        if name in known:
            raise ConflictError("an administrator of this name exists")
        guarded = len(known) >= node.settings.quorum
        if guarded and not admin:
            raise ConfigError(
                "another administrator is a guarded act now", remedy="add --admin NAME of who proposes it"
            )
        path = key_file or shell.home / ADMINISTRATORS / f"{name}.json"
        secret = shell.passphrases.administrator(name, admin_passphrase_file, new=True)
        key = create_personal(path, name, secret, cost=passphrases.cost(demo=node.settings.demo))
        try:
            proposal = _add_administrator(node, key, admin if guarded else "")
        except GatewayError:
            path.unlink(missing_ok=True)  # nobody will ever know this key
            raise
    value = {"name": name, "key_id": key.signing_key.public.key_set_id, "key_file": str(path), "proposal": proposal}
    lines = [f"The key of {bold(name)} is in {plain(str(path))}; it belongs to them alone, and so does its passphrase."]
    if proposal:
        lines.append(
            f"Waiting for {node.settings.quorum} signatures: gateway approval sign {proposal[:12]} --admin NAME"
        )
    else:
        lines.append(f"{bold(name)} is administrator {len(known) + 1}; guarded acts need {node.settings.quorum}.")
    shell.show(value, *lines)


@command(admin_app, "list")
def admin_list(shell: Shell) -> None:
    """List the administrators."""
    with shell.node() as node, node.store.reading() as tx:
        rows: list[dict[str, object]] = [
            {"name": row.name, "added": row.added, "key_id": _key_id(row.keys)} for row in tx.people.administrators()
        ]
    shell.table(rows, {"name": "name", "added": "added", "key_id": "key id"}, "There are no administrators yet.")


@command(approval_app, "list")
def approval_list(
    shell: Shell, everything: Annotated[bool, typer.Option("--all", help="Also those done or expired.")] = False
) -> None:
    """List the proposals that wait for signatures."""
    with shell.node() as node:
        rows = [proposal_value(one) for one in approvals(node).all(only_open=not everything)]
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
    """Show what a proposal would do, who proposed it and who signed."""
    with shell.node() as node:
        one = approvals(node).get(identifier)
    shell.show({**proposal_value(one), "arguments": one.arguments}, *_proposal_lines(one))


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
    with shell.node() as node:
        for line in [] if shell.as_json else _proposal_lines(approvals(node).get(identifier)):
            shell.note(line)
        key = _personal(shell, admin, key_file, admin_passphrase_file)
        _show_outcome(shell, approvals(node).sign(identifier, key))


@command(partner_app, "add")
def partner_add(
    shell: Shell,
    *,
    card: Annotated[Path, typer.Argument(help="The identity card that the partner exported.")],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Enrol a partner, or replace its identity card (guarded). Compare the fingerprint by voice before you sign."""
    raw = read_file(card, MAX_CARD_BYTES)
    parsed = parse_card(raw)
    if not shell.as_json:
        shell.note(f"The card says: {parsed.agency}, {plain(parsed.name)}, at {plain(parsed.url)}")
        shell.note(f"Fingerprint:   {parsed.fingerprint}   Compare it by voice with the partner's.")
    with shell.node() as node:
        _guarded(shell, node, add_partner(raw), admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(partner_app, "list")
def partner_list(shell: Shell) -> None:
    """List the partners."""
    with shell.node() as node, node.store.reading() as tx:
        rows: list[dict[str, object]] = []
        for row in tx.people.partners():
            card = parse_card(row.card.encode())
            standing = {"state": row.state, "paused": tx.people.is_paused(row.agency), "contacted": row.contacted}
            rows.append({**card_value(card), **standing, "added": row.added})
    shell.table(rows, PARTNER_COLUMNS, "There are no partners yet.")


@command(partner_app, "show")
def partner_show(shell: Shell, agency: Annotated[str, typer.Argument(help="The partner.")]) -> None:
    """Show a partner's identity card, with the fingerprint to compare by voice."""
    with shell.node() as node, node.store.reading() as tx:
        row = tx.people.partner(agency)
        paused = tx.people.is_paused(agency)
    card = parse_card(row.card.encode())
    standing = {"state": row.state, "paused": paused, "added": row.added, "contacted": row.contacted}
    shell.show(
        {**card_value(card), **standing},
        *card_lines(card),
        f"  state            {row.state}{', paused' if paused else ''}, since {when(row.added)}",
        f"  last contact     {when(row.contacted)}",
    )


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
        _guarded(
            shell,
            node,
            suspend_partner(agency, reason),
            admin=admin,
            key_file=key_file,
            passphrase_file=admin_passphrase_file,
        )


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
    """End the exchange with a partner for good (guarded). Its tokens and feeds end at once."""
    with shell.node() as node:
        _guarded(
            shell,
            node,
            remove_partner(agency, reason),
            admin=admin,
            key_file=key_file,
            passphrase_file=admin_passphrase_file,
        )


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
        _guarded(shell, node, resume(partner), admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


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


def _guarded(
    shell: Shell,
    node: Node,
    act: tuple[str, Arguments],
    *,
    admin: str,
    key_file: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Propose an act and give it the first signature. The key is opened first: a typing mistake proposes nothing."""
    key = _personal(shell, admin, key_file, passphrase_file)
    desk = approvals(node)
    identifier = desk.propose(*act, by=key.name)
    _show_outcome(shell, desk.sign(identifier, key))


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


def _proposal_lines(one: Proposal) -> list[str]:
    lines = [
        f"Proposal {one.id[:12]}: {one.sentence} ({plain(one.subject)})",
        f"  proposed by  {plain(one.by)}, {when(one.created)}",
        f"  signed by    {', '.join(one.signers) or '-'} ({len(one.signers)} of {one.quorum})",
        f"  state        {one.state}{f', until {when(one.expires)}' if one.state == OPEN else ''}",
    ]
    if one.act == "partner_add":
        card = parse_card(str(one.arguments["card"]).encode())
        lines += [f"  card         {plain(card.name)}, {plain(card.url)}", f"  fingerprint  {card.fingerprint}"]
    if one.act == "administrator_add":
        key = VerifyingKey.from_json(one.arguments["keys"])
        lines.append(f"  key          {key.key_set_id}")
    if one.arguments.get("reason"):
        lines.append(f"  reason       {plain(str(one.arguments['reason']))}")
    return lines


def _key_id(keys: str) -> str:
    value = canonical.parse_canonical(keys.encode(), max_bytes=MAX_CARD_BYTES)
    return VerifyingKey.from_json(value).key_set_id
