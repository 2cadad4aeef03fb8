"""The guarded acts about keys: rotate, switch, revoke, reinstate; a partner's keys; surfaces for stock clients.

Stopping is never guarded (`ownkeys.suspend`): one person may take a key out of use at once. What cannot be undone takes
the quorum. `keyadmin.ACTS` holds these beside the acts for partners and administrators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway import keyring, ownkeys
from gateway.approvals import Act, Arguments, Change
from gateway.audit import EventKind
from gateway.callers import secret_event
from gateway.errors import ConflictError, DeniedError, NotFoundError
from gateway.keylife import KeyPurpose, KeyState
from gateway.model import AGENCY, MAX_TEXT_CHARS, int_member, require, text_member
from gateway.node import Node
from gateway.partners import ACTIVE, find, get
from gateway.standing import roster
from gateway.store import Transaction
from gateway.store.tables import OwnKey

SURFACES = ("hashsharing", "taxii")  # doors for stock clients; a closed list


def rotate(purpose: KeyPurpose, reason: str) -> tuple[str, Arguments]:
    """The act that announces a successor of a signing or token key, or takes a new decryption key into use."""
    return "key_rotate", {"purpose": str(purpose), "reason": reason}


def switch(key_id: str, reason: str) -> tuple[str, Arguments]:
    """The act that uses an announced key although some partners have not confirmed it."""
    return "key_switch", {"key_id": key_id, "reason": reason}


def revoke(key_id: str, since: int, reason: str) -> tuple[str, Arguments]:
    """The act that ends a key that somebody else may hold; `since` in Unix seconds."""
    return "key_revoke", {"key_id": key_id, "since": since, "reason": reason}


def reinstate(key_id: str, reason: str) -> tuple[str, Arguments]:
    """The act that uses a suspended key again."""
    return "key_reinstate", {"key_id": key_id, "reason": reason}


def revoke_partner_key(partner: str, since: int, reason: str) -> tuple[str, Arguments]:
    """The act that ends a partner's keys when it told us by another way that they are lost."""
    return "partner_key_revoke", {"partner": partner, "since": since, "reason": reason}


def open_surface(partner: str, surface: str) -> tuple[str, Arguments]:
    """The act that lets a partner's stock clients call one more door."""
    return "surface_open", {"partner": partner, "surface": surface}


def suspend(node: Node, key_id: str, *, by: str, reason: str) -> None:
    """Take a key out of use at once and alone; lifting that is guarded.

    Args:
        by: the administrator who stops it; the agency where nobody is named, since stopping must never wait.
    """
    with node.store.reading() as tx:
        if by and by not in roster(tx, node).administrators:
            raise DeniedError("no such administrator", remedy="`gateway admin list` names them")
    ownkeys.suspend(node, key_id, by=by or node.agency, reason=reason)


# Our keys


def _rotate(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    ownkeys.rotate(tx, node, _purpose(arguments), reason=_reason(arguments), proposal=proposal)


def _rotate_difference(tx: Transaction, _node: Node, arguments: Arguments) -> Sequence[Change]:
    purpose = _purpose(arguments)
    now = [row.key_id for row in tx.keys.own(purpose) if row.state == KeyState.ACTIVE]
    then = "a new key, in use at once" if purpose is KeyPurpose.DECRYPTION else "a new key, announced to every partner"
    return [Change(f"{purpose} key", ", ".join(_short(one) for one in now) or "-", then)]


def _switch(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    ownkeys.switch(tx, node, _key_id(arguments), reason=_reason(arguments), proposal=proposal)


def _switch_difference(tx: Transaction, _node: Node, arguments: Arguments) -> Sequence[Change]:
    row = _own(tx, arguments)
    if row is None:
        return []
    missing = ownkeys.missing(tx, row)
    return [
        Change(f"{row.purpose} key {_short(row.key_id)}", row.state, KeyState.ACTIVE),
        Change(
            "partners that have not confirmed it", ", ".join(missing) or "none", "learn of it at their next contact"
        ),
    ]


def _revoke(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    since, reason = int_member(dict(arguments), "since"), _reason(arguments)
    ownkeys.revoke(tx, node, _key_id(arguments), since=since, reason=reason, proposal=proposal)


def _revoke_difference(tx: Transaction, _node: Node, arguments: Arguments) -> Sequence[Change]:
    row = _own(tx, arguments)
    if row is None:
        return []
    changes = [Change(f"{row.purpose} key {_short(row.key_id)}", row.state, KeyState.COMPROMISED)]
    if row.purpose == KeyPurpose.SIGNING and row.state in ownkeys.IN_USE:
        active = [one.agency for one in tx.people.partners() if one.state == "active"]
        changes.append(Change("partners", ", ".join(active) or "none", "must enrol our new card by its fingerprint"))
    return changes


def _reinstate(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    ownkeys.reinstate(tx, node, _key_id(arguments), reason=_reason(arguments), proposal=proposal)


def _reinstate_difference(tx: Transaction, _node: Node, arguments: Arguments) -> Sequence[Change]:
    row = _own(tx, arguments)
    return [] if row is None else [Change(f"{row.purpose} key {_short(row.key_id)}", row.state, KeyState.ACTIVE)]


# A partner's keys


def _revoke_partner(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    since, reason = int_member(dict(arguments), "since"), _reason(arguments)
    keyring.revoke_partner(node, tx, _partner(arguments), since=since, reason=reason, proposal=proposal)


def _revoke_partner_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    row = find(node, tx, _partner(arguments))
    state = "-" if row is None else row.state
    return [Change("partner", state, "shut out until its new card is enrolled by its fingerprint")]


# Surfaces


def _surface_open(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    partner, surface = _partner(arguments), text_member(dict(arguments), "surface")
    if get(node, tx, partner).state != ACTIVE:
        raise ConflictError("this partner is not active")
    if tx.secrets.is_open(partner, surface):
        raise ConflictError("this surface is open to the partner already")
    tx.secrets.open(partner, surface, node.clock(), proposal)
    log_surface(tx, node, partner, surface, is_open=True, proposal=proposal)


def close_surface(node: Node, partner: str, surface: str) -> None:
    """Close a door to a partner's stock clients at once; their secrets for it end with it. One person may do this."""
    with node.store.transaction() as tx:
        if not tx.secrets.is_open(partner, surface):
            raise NotFoundError("this surface is not open to the partner")
        ended = tx.secrets.close(partner, surface)
        log_surface(tx, node, partner, surface, is_open=False)
        tx.log.append([secret_event(node, one, "revoked", node.agency) for one in ended])


def log_surface(tx: Transaction, node: Node, partner: str, surface: str, *, is_open: bool, proposal: str = "") -> None:
    """Record that a surface was opened to a partner, or closed."""
    details: dict[str, object] = {"partner": partner, "surface": surface, "open": is_open}
    if proposal:
        details["proposal"] = proposal
    tx.log.append([node.event(EventKind.SURFACE_CHANGED, actor=node.agency, subject=partner, details=details)])


def _surface_difference(tx: Transaction, _node: Node, arguments: Arguments) -> Sequence[Change]:
    now = sorted(row.surface for row in tx.secrets.surfaces(_partner(arguments)))
    surface = text_member(dict(arguments), "surface")
    return [Change("open surfaces", ", ".join(now) or "none", ", ".join(sorted({*now, surface})))]


# What arguments say


def _rotate_subject(arguments: Arguments) -> str:
    _members(arguments, {"purpose", "reason"})
    _reason(arguments)
    return f"{_purpose(arguments)} key"


def _key_subject(arguments: Arguments) -> str:
    _members(arguments, {"key_id", "reason"})
    _reason(arguments)
    return f"key {_short(_key_id(arguments))}"


def _revoke_subject(arguments: Arguments) -> str:
    int_member(_members(arguments, {"key_id", "since", "reason"}), "since")
    _reason(arguments)
    return f"key {_short(_key_id(arguments))}"


def _partner_key_subject(arguments: Arguments) -> str:
    int_member(_members(arguments, {"partner", "since", "reason"}), "since")
    _reason(arguments)
    return _partner(arguments)


def _surface_subject(arguments: Arguments) -> str:
    surface = text_member(_members(arguments, {"partner", "surface"}), "surface")
    require(surface in SURFACES, f"a surface is one of {', '.join(SURFACES)}")
    return _partner(arguments)


def _purpose(arguments: Arguments) -> KeyPurpose:
    word = text_member(dict(arguments), "purpose")
    require(word in tuple(KeyPurpose), f"a key is for one of {', '.join(KeyPurpose)}")
    return KeyPurpose(word)


def _key_id(arguments: Arguments) -> str:
    key_id = text_member(dict(arguments), "key_id")
    require(len(key_id) == 64 and set(key_id) <= set("0123456789abcdef"), "this is not a whole key id")
    return key_id


def _reason(arguments: Arguments) -> str:
    reason = text_member(dict(arguments), "reason")
    require(0 < len(reason) <= MAX_TEXT_CHARS and reason.isprintable(), "a reason is one line, and needed")
    return reason


def _partner(arguments: Arguments) -> str:
    agency = text_member(dict(arguments), "partner")
    require(AGENCY.fullmatch(agency), "this is not an agency code such as XB-NCVI")
    return agency


def _members(arguments: Arguments, names: set[str]) -> dict[str, object]:
    require(set(arguments) == names, "a guarded act with other arguments than it takes")
    return dict(arguments)


def _own(tx: Transaction, arguments: Arguments) -> OwnKey | None:
    return next((row for row in tx.keys.own() if row.key_id == _key_id(arguments)), None)


def _short(key_id: str) -> str:
    return f"{key_id[:16]}…"


KEY_ACTS: Mapping[str, Act] = {
    "key_reinstate": Act("use a suspended key again", _key_subject, _reinstate, _reinstate_difference),
    "key_revoke": Act("end a key that somebody else may hold", _revoke_subject, _revoke, _revoke_difference),
    "key_rotate": Act("make the successor of a key", _rotate_subject, _rotate, _rotate_difference),
    "key_switch": Act("use an announced key before every partner knows it", _key_subject, _switch, _switch_difference),
    "partner_key_revoke": Act(
        "end a partner's keys that are lost", _partner_key_subject, _revoke_partner, _revoke_partner_difference
    ),
    "surface_open": Act(
        "let a partner's stock clients call a door", _surface_subject, _surface_open, _surface_difference
    ),
}
