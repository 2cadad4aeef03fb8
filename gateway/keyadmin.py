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
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from gateway import keyring, partners, restoring
from gateway.addresses import base_url
from gateway.alarms import AlarmKind, close_alarm
from gateway.approvals import Act, Approvals, Arguments, Change
from gateway.audit import EventKind
from gateway.beginning import RESTORE_ACTS, acts_for
from gateway.callers import secret_event
from gateway.cases.acts import CASE_ACTS
from gateway.cases.certificate import CERTIFICATE_ACTS
from gateway.cases.merging import SERIES_ACTS
from gateway.crypto import canonical
from gateway.crypto.checkpoint import KeyKind, VerifierKey, number_of_log
from gateway.crypto.keys import VerifyingKey
from gateway.errors import ConflictError, DeniedError, MalformedError, PartnerError
from gateway.exchange.categories import CATEGORY_ACTS
from gateway.exchange.erasing import ENTRY_ACTS
from gateway.exchange.holding import HOLD_ACTS
from gateway.exchange.knowngood import ALLOW_LIST_ACTS
from gateway.home import QUORUM_META
from gateway.interchange import IdentityCard, parse_card
from gateway.keyacts import KEY_ACTS
from gateway.model import AGENCY, MAX_TEXT_CHARS, int_member, require, text_member
from gateway.node import Node, log_origin, witness_name
from gateway.ownkeys import issued_card
from gateway.partners import ACTIVE, REMOVED, SUSPENDED, card_in
from gateway.passkeyacts import PASSKEY_ACTS
from gateway.policyacts import POLICY_ACTS
from gateway.standing import founder_mac, keep, roster
from gateway.store import Transaction
from gateway.store.people import EVERYTHING
from gateway.store.tables import AdministratorRow, PartnerRow
from gateway.witness import begin_anew
from gateway.witness import forget as forget_log

ADMINISTRATOR = re.compile(r"[a-z][a-z0-9._-]{0,31}")  # it is a file name, too
MAX_ADMINISTRATORS = 64
MAX_OPENING_KEYS = 8  # identity-card 2: a partner seals for all of them, newest first
MIN_SIGNATURES = 2  # four eyes; a demo may do with one
SHOWN_SETS = 8  # of those that a difference names


# The identity card


def own_card(node: Node) -> IdentityCard:
    """Who this gateway is, with all its public keys."""
    return parse_card(export_card(node))


def export_card(node: Node) -> bytes:
    """The card as it is handed to partners: signed by the keys that it names."""
    return issued_card(node)


# What is put before the administrators


def approvals(node: Node) -> Approvals:
    """The proposals of this gateway, with every act that is guarded."""
    return Approvals(node, acts_for(node, ACTS))


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


def remove_administrator(name: str, reason: str) -> tuple[str, Arguments]:
    """The act that ends somebody's time as administrator. The name is not given again."""
    return "administrator_remove", {"name": name, "reason": reason}


def set_quorum(quorum: int) -> tuple[str, Arguments]:
    """The act that sets how many administrators must sign."""
    return "quorum_set", {"quorum": quorum}


def lift_test(partner: str) -> tuple[str, Arguments]:
    """The act after which real data may move to and from a partner."""
    return "partner_test_lift", {"partner": partner}


def resume(partner: str = "") -> tuple[str, Arguments]:
    """The act that lifts a pause, or a suspension; of everything if no partner is named."""
    return "resume", {"partner": partner}


# What is done at once


def bootstrap_administrator(node: Node, name: str, key: VerifyingKey) -> None:
    """Add one of the first administrators, without anyone's signature.

    Raises:
        DeniedError: there are as many as must sign: from now on it is a guarded act.
        ConflictError: the name or the key is an administrator's already, or was one's.
        AuditBrokenError: who is an administrator cannot be told.
    """
    check_administrator_name(name)
    with node.store.transaction() as tx:
        people = roster(tx, node)
        # The signed number: whoever may edit the settings makes nobody a founder.
        if len(people.administrators) >= people.signed:
            raise DeniedError(
                "another administrator is a guarded act now", remedy="add --admin NAME of one who proposes it"
            )
        _put_administrator(tx, node, name, key, proposal="")
        keep(tx, node)


def pause(node: Node, partner: str = "", *, by: str = "") -> bool:
    """Stop all exchange with a partner, or with everybody, from this moment. False when it was stopped already.

    Args:
        by: the administrator who stops it; the agency where nobody is named, since stopping must never wait.
    """
    actor = by or node.agency
    with node.store.transaction() as tx:
        if partner:
            tx.people.partner(partner)
        if by and by not in roster(tx, node).administrators:
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
    known = partners.find(node, tx, card.agency)
    added, contacted = node.clock(), 0
    if known is not None:
        held = card_in(known)
        # Whoever lost all its keys begins its numbers anew; `keyring.enrol` refuses the keys of before.
        again = known.state in (REMOVED, keyring.REVOKED)
        if not again and (card.number, card.created) < (held.number, held.created):
            raise ConflictError("this identity card is older than the one held", remedy="ask the partner for a new one")
        if known.state == SUSPENDED:
            raise ConflictError("this partner is suspended: a new card does not lift that", remedy="resume it first")
        added, contacted = known.added, known.contacted
        if card.log != held.log:  # another log: what was witnessed of the one before says nothing about it
            tx.witness.forget(card.agency)
    _shut_out(tx, card.agency)  # what was issued to keys of an older card ends with it
    test = _test_after(node, card, known)
    row = PartnerRow(
        agency=card.agency,
        jurisdiction=card.jurisdiction,
        state=ACTIVE,
        card=raw,
        added=added,
        contacted=contacted,
        test=test,
    )
    partners.put(node, tx, row)
    keyring.enrol(node, tx, card)
    close_alarm(tx, node, AlarmKind.PARTNER_CARD_WAITS, card.agency)
    if known is not None and card_in(known).log != card.log:
        forget_log(tx, node, card.agency)  # two people have looked: what was seen of another log binds this one not
        restoring.follow(node, tx, card.agency, card.log)
    details: dict[str, object] = {
        "partner": card.agency,
        "jurisdiction": card.jurisdiction,
        "card_digest": hashlib.sha256(raw.encode()).hexdigest(),
        "key_ids": [*card.signing.key_ids, *(key.key_id for key in card.opening)],
        "test": test,
        "proposal": proposal,
    }
    _log(tx, node, EventKind.PARTNER_ADDED, card.agency, details)


def _test_after(node: Node, card: IdentityCard, known: PartnerRow | None) -> bool:
    """Whether a partner is under test with this card: when it is new here, until that is lifted, and if the card says
    so itself. All data of a demo are invented, so it tests nobody."""
    if node.settings.demo:
        return False
    return card.test or known is None or known.state == REMOVED or known.test


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
    row = _partner(tx, node, arguments)
    if row.state != ACTIVE:
        raise ConflictError("this partner is not active")
    kind = EventKind.PARTNER_SUSPENDED
    _end(tx, node, row, state=SUSPENDED, kind=kind, arguments=arguments, proposal=proposal)


def _partner_remove(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    row = _partner(tx, node, arguments)
    if row.state == REMOVED:
        raise ConflictError("this partner is removed already")
    _end(tx, node, row, state=REMOVED, kind=EventKind.PARTNER_REMOVED, arguments=arguments, proposal=proposal)
    ended = [secret_event(node, secret, "revoked", node.agency) for secret in tx.secrets.end(row.agency)]
    tx.log.append(ended)
    tx.keys.forget_seen(row.agency)
    forget_log(tx, node, row.agency)


def _partner_test_lift(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    row = _partner(tx, node, arguments)
    if row.state != ACTIVE:
        raise ConflictError("this partner is not active")
    if not row.test:
        raise ConflictError("this partner is not under test")
    if card_in(row).test:
        raise DeniedError(
            "the partner's own identity card says that its data are invented", remedy="ask it for a card that does not"
        )
    row.test = False
    partners.put(node, tx, row)
    tx.sets.drop_heads([row.agency])
    details: dict[str, object] = {"partner": row.agency, "proposal": proposal}
    _log(tx, node, EventKind.PARTNER_TEST_LIFTED, row.agency, details)


def _resume(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    partner = text_member(dict(arguments), "partner")
    lifted = tx.people.resume(partner or EVERYTHING)
    if partner:
        row = partners.get(node, tx, partner)
        if row.state == SUSPENDED:
            row.state = ACTIVE
            partners.put(node, tx, row)
            lifted = True
        begin_anew(tx, node, partner)
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
        # Also of one who was removed: the log and old signatures speak of one person under each name.
        raise ConflictError("an administrator of this name exists, or there was one")
    if any(row.keys == text for row in rows):
        # One key under two names would be one person with two votes.
        raise ConflictError("this key is another administrator's")
    people = roster(tx, node)
    if len(people.administrators) >= MAX_ADMINISTRATORS:
        raise ConflictError(f"there are {MAX_ADMINISTRATORS} administrators")
    row = AdministratorRow(name=name, keys=text, added=node.clock(), proposal=proposal)
    if not proposal:
        row.mac = founder_mac(node, row)
    tx.people.put_administrator(row)
    details: dict[str, object] = {"administrator": name, "key_id": key.key_set_id, "quorum": people.signed}
    if proposal:
        details["proposal"] = proposal
    _log(tx, node, EventKind.ADMINISTRATOR_ADDED, name, details)


def _administrator_remove(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    name, people = text_member(dict(arguments), "name"), roster(tx, node)
    key = people.administrators.get(name)
    if key is None:
        raise ConflictError("there is no administrator of this name")
    if len(people.administrators) <= people.quorum:
        raise ConflictError(
            f"{people.quorum} must sign, so there must be as many administrators", remedy="add another one first"
        )
    details: dict[str, object] = {
        "administrator": name,
        "key_id": key.key_set_id,
        "quorum": people.signed,
        "proposal": proposal,
    }
    _log(tx, node, EventKind.ADMINISTRATOR_REMOVED, name, details)


def _quorum_set(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    new, people = _quorum(arguments), roster(tx, node)
    if new == people.signed:
        raise ConflictError(f"{new} must sign already")
    if new < MIN_SIGNATURES and not node.settings.demo:
        raise DeniedError("four eyes are two people at least")
    if new > len(people.administrators):
        raise ConflictError(f"there are {len(people.administrators)} administrators", remedy="add others first")
    details: dict[str, object] = {"old": people.signed, "new": new, "proposal": proposal}
    _log(tx, node, EventKind.QUORUM_CHANGED, node.agency, details)
    # The settings may follow it down, no further; the signed number counts whatever they say.
    if new < int(tx.people.meta(QUORUM_META) or 0):
        tx.people.set_meta(QUORUM_META, str(new))


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
    """Shut a partner out from this moment: its tokens, feeds, scheduled runs and what is on its way end in the same
    commit."""
    row.state = state
    partners.put(node, tx, row)
    _shut_out(tx, row.agency)
    tx.schedule.remove(row.agency)
    tx.mail.end(row.agency, f"the partner is {state}")
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
    own = log.kind is KeyKind.LOG and log.name == log_origin(card.agency, number_of_log(log.name))
    require(own, "identity card: its log is not its agency's")
    witness = VerifierKey.parse(card.witness)
    own = witness.kind is KeyKind.COSIGNER and witness.name == witness_name(card.agency)
    require(own, "identity card: its witness is not its agency's")
    return card.agency


def _reasoned_subject(arguments: Arguments) -> str:
    members = _members(arguments, {"partner", "reason"})
    _check_reason(members)
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


def _quorum(arguments: Arguments) -> int:
    quorum = int_member(_members(arguments, {"quorum"}), "quorum")
    require(1 <= quorum <= MAX_ADMINISTRATORS, f"the quorum is between 1 and {MAX_ADMINISTRATORS}")
    return quorum


def _quorum_subject(arguments: Arguments) -> str:
    return str(_quorum(arguments))


def _leaver_subject(arguments: Arguments) -> str:
    members = _members(arguments, {"name", "reason"})
    _check_reason(members)
    name = text_member(members, "name")
    check_administrator_name(name)
    return name


def _partner_subject(arguments: Arguments) -> str:
    return _agency(_members(arguments, {"partner"}))


def _check_reason(members: dict[str, object]) -> None:
    reason = text_member(members, "reason")
    require(0 < len(reason) <= MAX_TEXT_CHARS and reason.isprintable(), "a reason is one line, and needed")


def _agency(members: dict[str, object]) -> str:
    agency = text_member(members, "partner")
    require(AGENCY.fullmatch(agency), "this is not an agency code such as XB-NCVI")
    return agency


def _partner(tx: Transaction, node: Node, arguments: Arguments) -> PartnerRow:
    return partners.get(node, tx, text_member(dict(arguments), "partner"))


def _members(arguments: Arguments, names: set[str]) -> dict[str, object]:
    require(set(arguments) == names, "a guarded act with other arguments than it takes")
    return dict(arguments)


# What acts would change


def _card_difference(tx: Transaction, node: Node, arguments: Arguments) -> list[Change]:
    """Old and new card side by side; of a new partner, what its card says."""
    card = parse_card(text_member(dict(arguments), "card").encode())
    known = partners.find(node, tx, card.agency)
    then, test = _card_words(card), _test_after(node, card, known)
    if known is None:
        changes = [Change(what, "", word) for what, word in then.items()]
        return [*changes, Change("may exchange", "", _test_word(test=test))]
    now = _card_words(card_in(known))
    changes = [Change(what, now[what], word) for what, word in then.items() if now[what] != word]
    if known.state != ACTIVE:
        changes.append(Change("state", known.state, ACTIVE))
    if known.test != test:
        changes.append(Change("may exchange", _test_word(test=known.test), _test_word(test=test)))
    return [*changes, *_ending(tx, card.agency, {"access tokens": "tokens", "feeds served": "feeds"})]


def _card_words(card: IdentityCard) -> dict[str, str]:
    """What people compare of a card. Lists are in order: a partner says them newest first."""
    return {
        "name": card.name,
        "address": card.url,
        "fingerprint": card.fingerprint,
        "signing key": f"number {card.signing_number}: {card.signing.key_set_id}",
        "decryption keys": ", ".join(key.key_id for key in card.opening),
        "token keys": ", ".join(_jwk_word(jwk) for jwk in card.tokens),
        "TLS pins": ", ".join(card.tls_pins),
        "audit log": card.log,
        "witness": card.witness,
        "payload types": ", ".join(card.payload_types),
        "its data": "invented" if card.test else "real",
        "card": f"number {card.number}",
    }


def _jwk_word(jwk: dict[str, str]) -> str:
    return f"{jwk.get('alg', '')} {hashlib.sha256(canonical.encode(jwk)).hexdigest()[:16]}"


def _test_word(*, test: bool) -> str:
    return "sets of invented data only (test-)" if test else "what policy permits"


_ISSUED = {
    "access tokens": "tokens",
    "feeds served": "feeds",
    "scheduled jobs": "jobs",
    "pages on their way": "pushes",
}


def _suspend_difference(tx: Transaction, node: Node, arguments: Arguments) -> list[Change]:
    row = _partner(tx, node, arguments)
    return [Change("state", row.state, SUSPENDED), *_stopping(tx, row.agency, _ISSUED)]


def _remove_difference(tx: Transaction, node: Node, arguments: Arguments) -> list[Change]:
    row = _partner(tx, node, arguments)
    issued = {**_ISSUED, "secrets of stock clients": "secrets"}
    return [Change("state", row.state, REMOVED), *_stopping(tx, row.agency, issued)]


def _stopping(tx: Transaction, partner: str, issued: Mapping[str, str]) -> list[Change]:
    """What ends at once, and the sets of the partner that are followed here no more."""
    followed = [row.name for row in tx.sets.all() if row.hub == partner]
    changes = _ending(tx, partner, issued)
    if followed:
        more = f" and {len(followed) - SHOWN_SETS} more" if len(followed) > SHOWN_SETS else ""
        names = ", ".join(followed[:SHOWN_SETS]) + more
        changes.append(Change("its sets, followed here", f"{len(followed)}: {names}", "they stay as they are"))
    return changes


def _ending(tx: Transaction, partner: str, issued: Mapping[str, str]) -> list[Change]:
    found = tx.people.issued(partner)._asdict()
    return [Change(what, str(found[member]), "0") for what, member in issued.items() if found[member]]


def _test_difference(tx: Transaction, node: Node, arguments: Arguments) -> list[Change]:
    row = _partner(tx, node, arguments)
    return [Change("may exchange", _test_word(test=row.test), _test_word(test=False))]


def _resume_difference(tx: Transaction, node: Node, arguments: Arguments) -> list[Change]:
    partner = text_member(dict(arguments), "partner")
    changes = [
        Change("paused", f"by {by}, {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z", "no")
        for scope, by, at in tx.people.pauses()
        if scope == (partner or EVERYTHING)
    ]
    row = partners.find(node, tx, partner) if partner else None
    if row is not None and row.state == SUSPENDED:
        changes.append(Change("state", SUSPENDED, ACTIVE))
    return changes


def _joiner_difference(tx: Transaction, node: Node, arguments: Arguments) -> list[Change]:
    name, key = _administrator(arguments)
    now = roster(tx, node)
    changes = _roster_changes(now.administrators, [*now.administrators, name], now.quorum)
    return [*changes, Change("key", "", key.key_set_id)]


def _leaver_difference(tx: Transaction, node: Node, arguments: Arguments) -> list[Change]:
    name, now = text_member(dict(arguments), "name"), roster(tx, node)
    return _roster_changes(now.administrators, [one for one in now.administrators if one != name], now.quorum)


def _roster_changes(now: Iterable[str], then: Iterable[str], quorum: int) -> list[Change]:
    before, after = sorted(now), sorted(then)
    must = f"{quorum} of"
    return [
        Change("administrators", ", ".join(before), ", ".join(after)),
        Change("must sign", f"{must} {len(before)}", f"{must} {len(after)}"),
    ]


def _quorum_difference(tx: Transaction, node: Node, arguments: Arguments) -> list[Change]:
    now = roster(tx, node)
    of = f"of {len(now.administrators)}"
    return [Change("must sign", f"{now.quorum} {of}", f"{max(_quorum(arguments), node.settings.quorum)} {of}")]


ACTS: Mapping[str, Act] = {
    "administrator_add": Act(
        "make somebody an administrator", _administrator_subject, _administrator_add, _joiner_difference
    ),
    "administrator_remove": Act(
        "end somebody's time as administrator", _leaver_subject, _administrator_remove, _leaver_difference
    ),
    "partner_add": Act("enrol a partner from its identity card", _card_subject, _partner_add, _card_difference),
    "partner_remove": Act(
        "end the exchange with a partner for good", _reasoned_subject, _partner_remove, _remove_difference
    ),
    "partner_suspend": Act(
        "shut a partner out until it is resumed", _reasoned_subject, _partner_suspend, _suspend_difference
    ),
    "partner_test_lift": Act(
        "let real data move to and from a partner", _partner_subject, _partner_test_lift, _test_difference
    ),
    "quorum_set": Act("set how many administrators must sign", _quorum_subject, _quorum_set, _quorum_difference),
    "resume": Act("go on after a pause or a suspension", _resume_subject, _resume, _resume_difference),
    **KEY_ACTS,
    **PASSKEY_ACTS,
    **CASE_ACTS,
    **HOLD_ACTS,
    **SERIES_ACTS,
    **CERTIFICATE_ACTS,
    **POLICY_ACTS,
    **ENTRY_ACTS,
    **ALLOW_LIST_ACTS,
    **CATEGORY_ACTS,
    **RESTORE_ACTS,
}
