"""Keys through their lives: what there is, who has seen it, rotating, ending what is lost. And a partner's keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway import keyacts, keyring, ownkeys
from gateway.approvals import DONE
from gateway.cli.people import Admin, AdminPassphrase, KeyFile, Reason, guarded
from gateway.cli.shell import Shell, amount, command, plain
from gateway.errors import MalformedError
from gateway.keylife import KeyPurpose, KeyState, alarm_level, days_left
from gateway.node import Node
from gateway.ownkeys import Affected
from gateway.store import Transaction
from gateway.store.tables import OwnKey

key_app = typer.Typer(
    add_completion=False, help="Keys: their age and end, who has seen them, rotating, revoking.", no_args_is_help=True
)
COMMANDS = {"key": key_app}

Purpose = Annotated[KeyPurpose, typer.Argument(help="Which key.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key, or the beginning of its id.")]
Since = Annotated[
    str, typer.Option(help="When it may have been lost: 2026-11-18T09:30Z. What is younger must be looked at again.")
]
LIST_COLUMNS = {
    "key": "key",
    "purpose": "for",
    "state": "state",
    "age_days": "days old",
    "expires": "until",
    "days_left": "days left",
    "alarm": "alarm",
    "seen_by": "seen by",
    "not_seen_by": "not seen by",
}
AFFECTED_COLUMNS = {
    "kind": "what",
    "subject": "of",
    "actor": "by",
    "count": "events",
    "first": "first leaf",
    "last": "last leaf",
}


@command(key_app, "list")
def key_list(
    shell: Shell, everything: Annotated[bool, typer.Option("--all", help="Also those destroyed.")] = False
) -> None:
    """List our keys: state, age, end, and which partners know them. The alarm tells of an end that comes near."""
    with shell.node() as node:
        ownkeys.issued_card(node)
        with node.store.reading() as tx:
            rows = [_key_value(tx, node, row) for row in tx.keys.own() if everything or row.state != KeyState.DESTROYED]
    short = [{**row, "key": _short(str(row["key_id"]))} for row in rows]
    shell.table(rows if shell.as_json else short, LIST_COLUMNS, "There are no keys.")


@command(key_app, "seen")
def key_seen(shell: Shell) -> None:
    """Show which partner has confirmed which of our keys."""
    with shell.node() as node:
        ownkeys.issued_card(node)
        with node.store.reading() as tx:
            keys = [row for row in tx.keys.own() if row.state in (KeyState.PRE_ACTIVE, KeyState.ACTIVE)]
            partners = [row.agency for row in tx.people.partners() if row.state == "active"]
            missing = {row.key_id: set(ownkeys.missing(tx, row)) for row in keys}
            seen = tx.keys.seen()
    rows: list[dict[str, object]] = []
    for partner in partners:
        known = {_title(row): partner not in missing[row.key_id] for row in keys}
        last = seen[partner].at if partner in seen else 0
        rows.append({"partner": partner, **known, "at": last})
    columns = {"partner": "partner", **{_title(row): _title(row) for row in keys}, "at": "last confirmed"}
    shell.table(rows, columns, "There are no active partners.")


@command(key_app, "rotate")
def key_rotate(
    shell: Shell,
    *,
    purpose: Purpose,
    admin: Admin,
    reason: Reason = "due",
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Make the successor of a key (guarded). Partners learn of it by themselves; it is used when all confirmed it."""
    with shell.node() as node:
        act = keyacts.rotate(purpose, reason)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(key_app, "switch")
def key_switch(
    shell: Shell,
    *,
    identifier: KeyId,
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Use an announced key before every partner has confirmed it (guarded). The others learn of it when they come."""
    with shell.node() as node:
        act = keyacts.switch(_whole(node, identifier), reason)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(key_app, "suspend")
def key_suspend(
    shell: Shell,
    *,
    identifier: KeyId,
    reason: Reason,
    admin: Annotated[str, typer.Option(help="The administrator who stops it.")] = "",
) -> None:
    """Take a key out of use at once and alone. Of a signing or token key all exchange stops until it is lifted."""
    with shell.node() as node:
        keyacts.suspend(node, identifier, by=admin, reason=reason)
    shell.show({"key_id": identifier, "state": "suspended"}, f"Key {plain(identifier)} is not used any more.")


@command(key_app, "reinstate")
def key_reinstate(
    shell: Shell,
    *,
    identifier: KeyId,
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Use a suspended key again (guarded)."""
    with shell.node() as node:
        act = keyacts.reinstate(_whole(node, identifier), reason)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(key_app, "revoke")
def key_revoke(
    shell: Shell,
    *,
    identifier: KeyId,
    since: Since,
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """End a key that somebody else may hold (guarded). Lists what must be looked at again once it is done."""
    with shell.node() as node:
        whole = _whole(node, identifier)
        act = keyacts.revoke(whole, _seconds(since), reason)
        done = guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)
        if done.state == DONE and not shell.as_json:
            _show_affected(shell, _affected(node, whole))


@command(key_app, "revoke-partner")
def key_revoke_partner(
    shell: Shell,
    *,
    agency: Annotated[str, typer.Argument(help="The partner that told us of its loss.")],
    since: Since,
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """End a partner's keys that are lost (guarded). It is shut out until its new card is enrolled by fingerprint."""
    with shell.node() as node:
        seconds = _seconds(since)
        act = keyacts.revoke_partner_key(agency, seconds, reason)
        done = guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)
        if done.state == DONE and not shell.as_json:
            _show_affected(shell, keyring.affected(node, agency, seconds))


@command(key_app, "affected")
def key_affected(
    shell: Shell,
    *,
    identifier: Annotated[
        str, typer.Argument(metavar="ID", help="A compromised key of ours, or a partner's agency code.")
    ],
    since: Annotated[str, typer.Option(help="For a partner: since when.")] = "",
) -> None:
    """List what must be looked at again after a key was lost, by kind and partner, with the leaves of the log."""
    with shell.node() as node:
        if since:
            found = keyring.affected(node, identifier, _seconds(since))
        else:
            found = _affected(node, _whole(node, identifier))
    _show_affected(shell, found)


@command(key_app, "maintain")
def key_maintain(shell: Shell) -> None:
    """Do what is due with our keys now: a running gateway does it by itself, once a minute."""
    with shell.node() as node:
        done = ownkeys.maintain(node)
    shell.show({"done": done}, ", ".join(done) + "." if done else "Nothing is due.")


def _key_value(tx: Transaction, node: Node, row: OwnKey) -> dict[str, object]:
    now = node.clock()
    missing = ownkeys.missing(tx, row)
    partners = [one.agency for one in tx.people.partners() if one.state == "active"]
    lasting = row.state in (KeyState.ACTIVE, KeyState.PRE_ACTIVE) and row.purpose != KeyPurpose.DECRYPTION
    level = alarm_level(row.expires, now) if lasting else None
    return {
        "key_id": row.key_id,
        "purpose": row.purpose,
        "number": row.number,
        "state": row.state,
        "created": row.created,
        "age_days": (now - row.created) // 86_400,
        "expires": row.expires,
        "days_left": days_left(row.expires, now),
        "alarm": "" if level is None else "over" if level == 0 else f"within {amount(level, 'day')}",
        "seen_by": [one for one in partners if one not in missing],
        "not_seen_by": missing,
        "reason": row.reason,
        "compromised_since": row.compromised_since,
    }


def _affected(node: Node, key_id: str) -> list[Affected]:
    with node.store.reading() as tx:
        row = tx.keys.own_key(key_id)
    return ownkeys.affected(node, row)


def _show_affected(shell: Shell, found: list[Affected]) -> None:
    rows: list[dict[str, object]] = [
        {
            "kind": one.kind,
            "subject": one.subject,
            "actor": one.actor,
            "count": one.count,
            "first": one.first,
            "last": one.last,
        }
        for one in found
    ]
    if rows and not shell.as_json:
        shell.note("To look at again:")
    shell.table(rows, AFFECTED_COLUMNS, "Nothing in the log depends on it.")


def _whole(node: Node, identifier: str) -> str:
    """The whole id of the key whose beginning somebody typed."""
    ownkeys.issued_card(node)
    with node.store.reading() as tx:
        return tx.keys.own_key(identifier).key_id


def _seconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedError("this is not a time such as 2026-11-18T09:30Z", place="--since") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _title(row: OwnKey) -> str:
    word = f"{row.purpose} {row.number}" if row.purpose == KeyPurpose.SIGNING else f"{row.purpose} {row.key_id[:8]}"
    return f"{word} (next)" if row.state == KeyState.PRE_ACTIVE else word


def _short(key_id: str) -> str:
    return key_id[:16]
