"""The guarded acts about passkeys: which of them sign statements for an administrator.

A passkey that somebody registered at the console signs them in, no more. That it also signs proposals is an act of the
administrators themselves: from then on `standing` counts it, and by nobody's row but by what was signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.approvals import Act, Arguments, Change
from gateway.audit import EventKind
from gateway.crypto.passkeys import check_key
from gateway.errors import ConflictError
from gateway.model import MAX_TEXT_CHARS, require, text_member
from gateway.node import Node
from gateway.proposals import SigningPasskey
from gateway.standing import ADD_PASSKEY, REMOVE_PASSKEY, roster
from gateway.store import Transaction

MAX_PASSKEYS = 8  # of one administrator: a phone, a laptop, two keys in a safe, and as many again
OTHER_ARGUMENTS = "a guarded act with other arguments than it takes"


def add_passkey(administrator: str, passkey: SigningPasskey) -> tuple[str, Arguments]:
    """The act after which a passkey signs for an administrator."""
    return ADD_PASSKEY, {"administrator": administrator, "passkey": passkey.to_json()}


def remove_passkey(administrator: str, key_id: str, reason: str) -> tuple[str, Arguments]:
    """The act after which a passkey signs no more. What it signed before still verifies."""
    return REMOVE_PASSKEY, {"administrator": administrator, "key_id": key_id, "reason": reason}


def _add(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    name, passkey = _added(arguments)
    people = roster(tx, node)
    if name not in people.administrators:
        raise ConflictError("there is no administrator of this name")
    # One passkey under two names would be one person with two votes.
    taken = [one.passkey for own in people.past_passkeys.values() for one in own]
    if any(passkey.passkey.key_id == one.key_id or passkey.passkey.credential == one.credential for one in taken):
        raise ConflictError("this passkey signs, or signed, for somebody already", remedy="register another one")
    if len(people.passkeys.get(name, ())) >= MAX_PASSKEYS:
        raise ConflictError(f"this administrator has {MAX_PASSKEYS} passkeys", remedy="remove one first")
    details: dict[str, object] = {"administrator": name, "key_id": passkey.passkey.key_id, "proposal": proposal}
    tx.log.append([node.event(EventKind.PASSKEY_ADDED, actor=node.agency, subject=name, details=details)])


def _remove(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    name, key_id = _removed(arguments)
    own = roster(tx, node).passkeys.get(name, ())
    if key_id not in [one.passkey.key_id for one in own]:
        raise ConflictError("no such passkey signs for this administrator")
    details: dict[str, object] = {"administrator": name, "key_id": key_id, "proposal": proposal}
    tx.log.append([node.event(EventKind.PASSKEY_REMOVED, actor=node.agency, subject=name, details=details)])


def _added(arguments: Arguments) -> tuple[str, SigningPasskey]:
    require(set(arguments) == {"administrator", "passkey"}, OTHER_ARGUMENTS)
    passkey = SigningPasskey.from_json(arguments["passkey"])
    check_key(passkey.passkey)
    return text_member(dict(arguments), "administrator"), passkey


def _removed(arguments: Arguments) -> tuple[str, str]:
    require(set(arguments) == {"administrator", "key_id", "reason"}, OTHER_ARGUMENTS)
    members = dict(arguments)
    reason = text_member(members, "reason")
    require(0 < len(reason) <= MAX_TEXT_CHARS and reason.isprintable(), "a reason is one line, and needed")
    return text_member(members, "administrator"), text_member(members, "key_id")


def _add_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    name, passkey = _added(arguments)
    return [
        Change("passkeys that sign for them", *_counts(tx, node, name, 1)),
        Change("key", "", passkey.passkey.key_id),
        Change("used at", "", passkey.party.origin),
    ]


def _remove_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    name, _ = _removed(arguments)
    return [Change("passkeys that sign for them", *_counts(tx, node, name, -1))]


def _counts(tx: Transaction, node: Node, name: str, step: int) -> tuple[str, str]:
    now = len(roster(tx, node).passkeys.get(name, ()))
    return str(now), str(max(0, now + step))


PASSKEY_ACTS: Mapping[str, Act] = {
    ADD_PASSKEY: Act("let a passkey sign for an administrator", lambda given: _added(given)[0], _add, _add_difference),
    REMOVE_PASSKEY: Act("let a passkey sign no more", lambda given: _removed(given)[0], _remove, _remove_difference),
}
