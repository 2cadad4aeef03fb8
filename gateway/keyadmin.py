"""What an administrator can do: hand out the identity card, enrol partners and administrators, stop and resume.

The guarded acts stand in `ACTS`, and `approvals(node)` puts them before the administrators. What stops something is
never guarded where it can be undone: pausing takes one person, resuming takes the quorum.

The first administrators, up to the quorum, are added without signatures, since nobody is there who could sign; that is
logged as well. From then on a new administrator is a guarded act like any other.

An administrator is known here by a short name, such as a post ("duty-officer"); the log knows key ids.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from gateway.addresses import base_url
from gateway.approvals import Act, Approvals, Arguments
from gateway.audit import EventKind
from gateway.crypto import canonical
from gateway.crypto.checkpoint import KeyKind, VerifierKey
from gateway.crypto.keys import VerifyingKey
from gateway.errors import ConflictError, DeniedError, MalformedError, PartnerError
from gateway.home import agency_name
from gateway.interchange import (
    HEAD_TYPE,
    MAIL_TYPE,
    MAX_CARD_TOKEN_KEYS,
    PAGE_TYPE,
    IdentityCard,
    parse_card,
    sign_card,
)
from gateway.model import AGENCY, MAX_TEXT_CHARS, require, text_member
from gateway.node import Node, log_origin, witness_name
from gateway.store import Transaction
from gateway.store.people import EVERYTHING
from gateway.store.tables import AdministratorRow, PartnerRow

ADMINISTRATOR = re.compile(r"[a-z][a-z0-9._-]{0,31}")  # it is a file name, too
MAX_ADMINISTRATORS = 64
MAX_OPENING_KEYS = 8  # identity-card 2: a partner seals for all of them, newest first
ACTIVE, SUSPENDED, REMOVED = "active", "suspended", "removed"


# The identity card


def own_card(node: Node) -> IdentityCard:
    """Who this gateway is, with all its public keys."""
    return IdentityCard(
        agency=node.agency,
        jurisdiction=node.settings.jurisdiction,
        name=agency_name(node),
        url=node.settings.public_url,
        signing=node.keystore.signing_key.public,
        opening=tuple(key.public for key in node.keystore.opening_keys[:MAX_OPENING_KEYS]),
        tokens=tuple(held.key.card_jwk() for held in node.keystore.held_token_keys[:MAX_CARD_TOKEN_KEYS]),
        log=str(node.keystore.log_key(log_origin(node.agency)).verifier),
        witness=str(node.keystore.witness_key(witness_name(node.agency)).verifier),
        payload_types=(HEAD_TYPE, MAIL_TYPE, PAGE_TYPE),
        test=node.settings.demo,
        created=node.clock(),
    )


def export_card(node: Node) -> bytes:
    """The card as it is handed to partners: signed by the keys that it names."""
    return sign_card(own_card(node), node.keystore.signing_key)


# What is put before the administrators


def approvals(node: Node) -> Approvals:
    """The proposals of this gateway, with every act that is guarded."""
    return Approvals(node, ACTS)


def add_partner(card: bytes) -> tuple[str, Arguments]:
    """The act that enrols the partner of a signed identity card, or replaces its card."""
    try:
        return "partner_add", {"card": card.decode("ascii")}
    except UnicodeDecodeError as error:
        raise MalformedError("identity card: not one of ours") from error


def suspend_partner(partner: str, reason: str) -> tuple[str, Arguments]:
    """The act that shuts a partner out until it is resumed."""
    return "partner_suspend", {"partner": partner, "reason": reason}


def remove_partner(partner: str, reason: str) -> tuple[str, Arguments]:
    """The act that ends the exchange with a partner for good."""
    return "partner_remove", {"partner": partner, "reason": reason}


def add_administrator(name: str, key: VerifyingKey) -> tuple[str, Arguments]:
    """The act that makes somebody an administrator."""
    return "administrator_add", {"name": name, "keys": key.to_json()}


def resume(partner: str = "") -> tuple[str, Arguments]:
    """The act that lifts a pause, or a suspension; of everything if no partner is named."""
    return "resume", {"partner": partner}


# What is done at once


def bootstrap_administrator(node: Node, name: str, key: VerifyingKey) -> None:
    """Add one of the first administrators, without anyone's signature.

    Raises:
        DeniedError: there are as many as the quorum asks for: from now on it is a guarded act.
        ConflictError: the name or the key is an administrator's already.
    """
    check_administrator_name(name)
    with node.store.transaction() as tx:
        if len(tx.people.administrators()) >= node.settings.quorum:
            raise DeniedError(
                "another administrator is a guarded act now", remedy="add --admin NAME of one who proposes it"
            )
        _put_administrator(tx, node, name, key, proposal="")


def pause(node: Node, partner: str = "", *, by: str = "") -> bool:
    """Stop all exchange with a partner, or with everybody, from this moment. False when it was stopped already.

    Args:
        by: the administrator who stops it; the agency where nobody is named, since stopping must never wait.
    """
    actor = by or node.agency
    with node.store.transaction() as tx:
        if partner:
            tx.people.partner(partner)
        if by and by not in {row.name for row in tx.people.administrators()}:
            raise DeniedError("no such administrator", remedy="`gateway admin list` names them")
        if not tx.people.pause(partner or EVERYTHING, actor, node.clock()):
            return False
        details = {"partner": partner} if partner else {}
        tx.log.append([node.event(EventKind.PAUSED, actor=actor, subject=partner, details=details)])
        return True


# The guarded acts


def _partner_add(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    raw = text_member(dict(arguments), "card")
    card = parse_card(raw.encode())
    if card.agency == node.agency:
        raise DeniedError("this is this gateway's own identity card")
    check_url(node, card)
    if card.test != node.settings.demo:
        raise DeniedError("a gateway with invented data and one with real data never exchange anything")
    known = tx.people.find_partner(card.agency)
    added = node.clock()
    if known is not None:
        held = parse_card(known.card.encode())
        if (card.number, card.created) < (held.number, held.created):
            raise ConflictError("this identity card is older than the one held", remedy="ask the partner for a new one")
        if known.state == SUSPENDED:
            raise ConflictError("this partner is suspended: a new card does not lift that", remedy="resume it first")
        added = known.added
    _shut_out(tx, card.agency)  # what was issued to keys of an older card ends with it
    row = PartnerRow(agency=card.agency, jurisdiction=card.jurisdiction, state=ACTIVE, card=raw, added=added)
    tx.people.put_partner(row)
    details: dict[str, object] = {
        "partner": card.agency,
        "jurisdiction": card.jurisdiction,
        "card_digest": hashlib.sha256(raw.encode()).hexdigest(),
        "key_ids": [*card.signing.key_ids, *(key.key_id for key in card.opening)],
        "test": card.test,
        "proposal": proposal,
    }
    _log(tx, node, EventKind.PARTNER_ADDED, card.agency, details)


def check_url(node: Node, card: IdentityCard) -> None:
    """Returns when the card names an address that we may call.

    Raises:
        DeniedError: it names no https address, or this machine itself (unless we are reached through loopback, too).
    """
    try:
        url = base_url(card.url)
    except PartnerError as error:
        raise DeniedError(f"identity card: {error.message}", remedy="ask the partner for another card") from error
    if url.startswith("http://") and not node.settings.public_url.startswith("http://"):
        raise DeniedError("identity card: the partner's address is on this machine", remedy="ask for another card")


def _partner_suspend(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    row = _partner(tx, arguments)
    if row.state != ACTIVE:
        raise ConflictError("this partner is not active")
    kind = EventKind.PARTNER_SUSPENDED
    _end(tx, node, row, state=SUSPENDED, kind=kind, arguments=arguments, proposal=proposal)


def _partner_remove(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    row = _partner(tx, arguments)
    if row.state == REMOVED:
        raise ConflictError("this partner is removed already")
    _end(tx, node, row, state=REMOVED, kind=EventKind.PARTNER_REMOVED, arguments=arguments, proposal=proposal)


def _resume(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    partner = text_member(dict(arguments), "partner")
    lifted = tx.people.resume(partner or EVERYTHING)
    if partner:
        row = tx.people.partner(partner)
        if row.state == SUSPENDED:
            row.state = ACTIVE
            tx.people.put_partner(row)
            lifted = True
    if not lifted:
        raise ConflictError("nothing is paused or suspended here")
    details: dict[str, object] = {"partner": partner, "proposal": proposal} if partner else {"proposal": proposal}
    _log(tx, node, EventKind.RESUMED, partner, details)


def _administrator_add(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    name, key = _administrator(arguments)
    _put_administrator(tx, node, name, key, proposal=proposal)


def _put_administrator(tx: Transaction, node: Node, name: str, key: VerifyingKey, *, proposal: str) -> None:
    rows = tx.people.administrators()
    text = canonical.encode(key.to_json()).decode()
    if any(row.name == name for row in rows):
        raise ConflictError("an administrator of this name exists")
    if any(row.keys == text for row in rows):
        # One key under two names would be one person with two votes.
        raise ConflictError("this key is another administrator's")
    if len(rows) >= MAX_ADMINISTRATORS:
        raise ConflictError(f"there are {MAX_ADMINISTRATORS} administrators")
    tx.people.add_administrator(AdministratorRow(name=name, keys=text, added=node.clock()))
    details: dict[str, object] = {"administrator": name, "key_id": key.key_set_id, "quorum": node.settings.quorum}
    if proposal:
        details["proposal"] = proposal
    _log(tx, node, EventKind.ADMINISTRATOR_ADDED, name, details)


def _end(
    tx: Transaction,
    node: Node,
    row: PartnerRow,
    *,
    state: str,
    kind: EventKind,
    arguments: Arguments,
    proposal: str,
) -> None:
    """Shut a partner out from this moment: its tokens, feed heads and scheduled runs end in the same commit."""
    row.state = state
    tx.people.put_partner(row)
    _shut_out(tx, row.agency)
    tx.schedule.remove(row.agency)
    reason = text_member(dict(arguments), "reason")
    _log(tx, node, kind, row.agency, {"partner": row.agency, "reason": reason, "proposal": proposal})


def _shut_out(tx: Transaction, partner: str) -> None:
    tx.tokens.revoke(partner)
    tx.sets.drop_heads([partner])


def _log(tx: Transaction, node: Node, kind: EventKind, subject: str, details: dict[str, object]) -> None:
    tx.log.append([node.event(kind, actor=node.agency, subject=subject, details=details)])


# What arguments say


def _card_subject(arguments: Arguments) -> str:
    members = _members(arguments, {"card"})
    card = parse_card(text_member(members, "card").encode())
    log = VerifierKey.parse(card.log)
    # identity-card 2, rule 6: or a receipt of this partner could be signed in the name of another's log.
    own = log.kind is KeyKind.LOG and log.name.startswith(f"partner-exchange/{card.agency}/log/")
    require(own, "identity card: its log is not its agency's")
    witness = VerifierKey.parse(card.witness)
    own = witness.kind is KeyKind.COSIGNER and witness.name == witness_name(card.agency)
    require(own, "identity card: its witness is not its agency's")
    return card.agency


def _reasoned_subject(arguments: Arguments) -> str:
    members = _members(arguments, {"partner", "reason"})
    reason = text_member(members, "reason")
    require(0 < len(reason) <= MAX_TEXT_CHARS and reason.isprintable(), "a reason is one line, and needed")
    return _agency(members)


def _resume_subject(arguments: Arguments) -> str:
    members = _members(arguments, {"partner"})
    return _agency(members) if members["partner"] != "" else "everything"


def _administrator_subject(arguments: Arguments) -> str:
    return _administrator(arguments)[0]


def _administrator(arguments: Arguments) -> tuple[str, VerifyingKey]:
    members = _members(arguments, {"name", "keys"})
    name = text_member(members, "name")
    check_administrator_name(name)
    return name, VerifyingKey.from_json(members["keys"])


def check_administrator_name(name: str) -> None:
    """MalformedError for a name that no administrator can have."""
    require(
        ADMINISTRATOR.fullmatch(name),
        "an administrator's name is up to 32 small letters, digits, dots, hyphens and underscores",
    )


def _agency(members: dict[str, object]) -> str:
    agency = text_member(members, "partner")
    require(AGENCY.fullmatch(agency), "this is not an agency code such as XB-NCVI")
    return agency


def _partner(tx: Transaction, arguments: Arguments) -> PartnerRow:
    return tx.people.partner(text_member(dict(arguments), "partner"))


def _members(arguments: Arguments, names: set[str]) -> dict[str, object]:
    require(set(arguments) == names, "a guarded act with other arguments than it takes")
    return dict(arguments)


ACTS: Mapping[str, Act] = {
    "administrator_add": Act("make somebody an administrator", _administrator_subject, _administrator_add),
    "partner_add": Act("enrol a partner from its identity card", _card_subject, _partner_add),
    "partner_remove": Act("end the exchange with a partner for good", _reasoned_subject, _partner_remove),
    "partner_suspend": Act("shut a partner out until it is resumed", _reasoned_subject, _partner_suspend),
    "resume": Act("go on after a pause or a suspension", _resume_subject, _resume),
}
