"""Our own keys through their lives, and the identity card that tells partners of them.

    rotate       a successor is made and announced; partners learn of it at their next contact
    (seen)       each partner confirms which card and which signing key it knows
    switch       the successor is used once every active partner has confirmed it, or by two administrators
    retire       what was replaced is destroyed after the overlap (decryption keys: overlap and retention)
    revoke       a stolen key ends now; partners are told, and a list says what must be looked at again

Rules:

1. The keystore holds the private halves and says which is in use; the database says in which state each key is, and the
   log how it came there. Both change within one write transaction, the keystore first: a crash between the two leaves a
   private key that nobody was told of, which `reconcile` drops, or a key that is gone, which it records as destroyed.
2. At any moment one signing key signs for everybody. Its successor signs nothing but its succession until the switch,
   so a partner that was away needs nothing but the chain of statements, however long it has become.
3. The card is issued anew, under the next number, whenever what it says has changed. Partners confirm its number.
4. `maintain` does what is due by itself; it can run at any time, on any node, and twice.

A revoked signing key cannot name a successor: partners believe the new one only when it is enrolled by its fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from gateway.audit import EventKind, parse_event
from gateway.crypto import canonical, succession
from gateway.crypto.keys import OpeningKey, SealingKey, TokenKey, VerifyingKey
from gateway.crypto.revocation import Revocation, sign_revocation
from gateway.errors import ConflictError, DeniedError, MalformedError
from gateway.interchange import (
    HEAD_TYPE,
    MAIL_TYPE,
    MAX_CARD_OPENING_KEYS,
    MAX_CARD_TOKEN_KEYS,
    PAGE_TYPE,
    IdentityCard,
    parse_card,
    sign_card,
)
from gateway.keylife import DAY_SECONDS, KeyPurpose, KeyState, check_transition
from gateway.keystore import HeldOpeningKey, HeldSigningKey, HeldTokenKey
from gateway.node import Node, own_log, witness_name
from gateway.store import Transaction
from gateway.store.people import EVERYTHING
from gateway.store.tables import OwnCard, OwnKey
from gateway.tls import own_pins

SUCCESSION, REVOCATION = "succession", "revocation"
NAME_META = "name"
CARD_PAYLOADS = (HEAD_TYPE, MAIL_TYPE, PAGE_TYPE)
IN_USE = (KeyState.ACTIVE, KeyState.SUSPENDED)
STILL_OPENS = (KeyState.ACTIVE, KeyState.DEACTIVATED)

Held = HeldSigningKey | HeldTokenKey | HeldOpeningKey


@dataclass(frozen=True, slots=True)
class Affected:
    """Events of one kind with one partner that a compromised key casts doubt on: leaves from `first` to `last`."""

    kind: str
    subject: str
    actor: str
    count: int
    first: int
    last: int


# The identity card


def issued_card(node: Node) -> bytes:
    """Our identity card as it is true now, signed; issued with the next number if what it says has changed."""
    with node.store.reading() as tx:
        newest = tx.keys.card()
        if newest is not None and _is_listed(tx, node) and _says_the_same(newest, _content(tx, node)):
            return newest.card.encode()
    with node.store.transaction() as tx:
        reconcile(tx, node)
        return issue(tx, node)


def issue(tx: Transaction, node: Node, *, gap: int = 1) -> bytes:
    """The same within the transaction of the deed that changed a key.

    Args:
        gap: how far the next number is from the newest that is known here.
    """
    newest, content = tx.keys.card(), _content(tx, node)
    if newest is not None and _says_the_same(newest, content):
        return newest.card.encode()
    number = 1 if newest is None else newest.number + gap
    card = replace(content, number=number, created=node.clock())
    raw = sign_card(card, node.keystore.signing_key)
    digest = hashlib.sha256(raw).hexdigest()
    tx.keys.add_card(OwnCard(number=number, digest=digest, card=raw.decode(), created=card.created))
    named = {key.key_id for key in card.opening} | {_key_id_of(jwk) for jwk in card.tokens}
    for row in tx.keys.own():
        if row.key_id in named and not row.number:
            row.number = number
            tx.keys.put_own(row)
    # Heads are sealed for the partner by our present signing key; what was made before is made anew.
    tx.sets.drop_heads([row.agency for row in tx.people.partners()])
    details: dict[str, object] = {
        "number": number,
        "card_digest": digest,
        "key_ids": [*card.signing.key_ids, *(key.key_id for key in card.opening)],
    }
    tx.log.append([node.event(EventKind.CARD_ISSUED, actor=node.agency, subject=node.agency, details=details)])
    return raw


def _content(tx: Transaction, node: Node) -> IdentityCard:
    """What the card says now; its number and date are filled in when it is issued."""
    states = {row.key_id: KeyState(row.state) for row in tx.keys.own()}
    keystore, settings = node.keystore, node.settings
    signing = keystore.held_signing_key
    opening = [one.key.public for one in keystore.held_opening_keys if states.get(one.key_id) is KeyState.ACTIVE]
    usable = (KeyState.ACTIVE, KeyState.PRE_ACTIVE)
    tokens = [one.key.card_jwk() for one in keystore.held_token_keys if states.get(one.key_id) in usable]
    return IdentityCard(
        agency=node.agency,
        jurisdiction=settings.jurisdiction,
        name=tx.people.meta(NAME_META) or node.agency,
        url=settings.public_url,
        signing=signing.key.public,
        opening=tuple(opening[:MAX_CARD_OPENING_KEYS]),
        tokens=tuple(tokens[:MAX_CARD_TOKEN_KEYS]),
        log=str(own_log(node, tx).verifier),
        witness=str(keystore.witness_key(witness_name(node.agency)).verifier),
        payload_types=CARD_PAYLOADS,
        test=settings.demo,
        created=0,
        number=1,
        signing_number=signing.number,
        tls_pins=own_pins(settings),
    )


def _says_the_same(issued: OwnCard, content: IdentityCard) -> bool:
    return replace(content, number=issued.number, created=issued.created) == _parsed(issued.card)


@lru_cache(maxsize=16)
def _parsed(card: str) -> IdentityCard:
    return parse_card(card.encode())


def _key_id_of(jwk: dict[str, str]) -> str:
    return TokenKey.key_id_of_jwk(jwk)


# Which keys there are


def reconcile(tx: Transaction, node: Node, *, reason: str = "left by a deed that was cut off") -> None:
    """Make the list of keys and the keystore agree, whatever a crash left between the two.

    Args:
        reason: of a decryption key that the list does not name yet.
    """
    known = {row.key_id: row for row in tx.keys.own()}
    purposes = {row.purpose for row in known.values()}
    _use_what_is_recorded(node, list(known.values()))
    for purpose in KeyPurpose:
        for held in _held(node, purpose):
            if held.key_id in known:
                continue
            if purpose not in purposes:
                _list(tx, node, purpose, held, KeyState.ACTIVE, reason="founding")
            elif purpose is KeyPurpose.DECRYPTION:
                _list(tx, node, purpose, held, KeyState.ACTIVE, reason=reason)
            else:
                _drop(node, purpose, held.key_id)  # made by a deed that did not commit: nobody was told of it
    for row in known.values():
        gone = row.key_id not in {held.key_id for held in _held(node, KeyPurpose(row.purpose))}
        if gone and row.state != KeyState.DESTROYED:
            change_state(tx, node, row, KeyState.DESTROYED, reason="its private half is gone")


def _use_what_is_recorded(node: Node, rows: Sequence[OwnKey]) -> None:
    """Where a deed was cut off after it had switched keys in the keystore, switch back."""
    keystore = node.keystore
    for row in rows:
        if row.state not in IN_USE:
            continue
        if row.purpose == KeyPurpose.SIGNING and row.key_id != keystore.held_signing_key.key_id:
            keystore.activate_signing_key(row.key_id, random=node.random)
        if row.purpose == KeyPurpose.TOKEN and row.key_id != keystore.token_key.key_id:
            keystore.activate_token_key(row.key_id, random=node.random)


def change_state(
    tx: Transaction, node: Node, row: OwnKey, new: KeyState, *, reason: str, proposal: str = "", since: int = 0
) -> None:
    """Take one of our keys to another state, on record.

    Raises:
        ConflictError: no such transition.
    """
    old = KeyState(row.state)
    check_transition(old, new)
    row.state, row.reason, row.changed = new, reason, node.clock()
    if since:
        row.compromised_since = since
    tx.keys.put_own(row)
    _log(tx, node, row, old, proposal=proposal, since=since)


def opening_keys(node: Node) -> tuple[OpeningKey, ...]:
    """The keys that open envelopes now, newest first: not those that are suspended or compromised."""
    with node.store.reading() as tx:
        states = {row.key_id: row.state for row in tx.keys.own(KeyPurpose.DECRYPTION)}
    # A key that is not listed yet belongs to a gateway that has just been founded, or brought to this version.
    return tuple(one.key for one in node.keystore.held_opening_keys if states.get(one.key_id, "active") in STILL_OPENS)


def card_opening(node: Node) -> tuple[SealingKey, ...]:
    """The keys for which partners that hold our newest card seal."""
    with node.store.reading() as tx:
        newest = tx.keys.card()
    return (node.keystore.sealing_key,) if newest is None else _parsed(newest.card).opening


def token_key_for(node: Node, partner: str) -> TokenKey:
    """The key to call a partner with: the one in use if the partner may know it, else the newest that it knows."""
    keystore = node.keystore
    with node.store.reading() as tx:
        seen = tx.keys.seen().get(partner)
        card = tx.keys.card_number(seen.number) if seen is not None else None
    if card is None:
        return keystore.token_key
    known = {_key_id_of(jwk) for jwk in _parsed(card.card).tokens}
    if keystore.token_key.key_id in known:
        return keystore.token_key
    return next((one.key for one in keystore.held_token_keys if one.key_id in known), keystore.token_key)


# Rotation


def rotate(tx: Transaction, node: Node, purpose: KeyPurpose, *, reason: str, proposal: str = "") -> str:
    """Make a successor and announce it; returns its id. A decryption key is used at once, the others after the switch.

    Raises:
        ConflictError: a successor is announced already.
    """
    reconcile(tx, node)
    if any(row.state == KeyState.PRE_ACTIVE for row in tx.keys.own(purpose)):
        raise ConflictError(
            "a successor of this key is announced already", remedy="see `gateway key seen`; switch to it, or revoke it"
        )
    new: Held
    if purpose is KeyPurpose.SIGNING:
        new = _announce_signing_key(tx, node)
        state = KeyState.PRE_ACTIVE
    elif purpose is KeyPurpose.TOKEN:
        new = node.keystore.add_token_key(now=node.clock(), random=node.random)
        state = KeyState.PRE_ACTIVE
    else:
        new = node.keystore.add_opening_key(now=node.clock(), random=node.random)
        state = KeyState.ACTIVE
    _list(tx, node, purpose, new, state, reason=reason, proposal=proposal)
    issue(tx, node)
    return new.key_id


def _announce_signing_key(tx: Transaction, node: Node) -> HeldSigningKey:
    old, now = node.keystore.held_signing_key, node.clock()
    if tx.keys.own_key(old.key_id).state != KeyState.ACTIVE:
        raise DeniedError("the signing key in use is not active: it cannot name a successor")
    new = node.keystore.add_signing_key(now=now, random=node.random)
    statement = succession.sign_succession(node.agency, new.number, old=old.key, new=new.key, created=now)
    tx.keys.add_statement(SUCCESSION, new.number, statement, now)
    return new


def missing(tx: Transaction, row: OwnKey) -> list[str]:
    """The active partners that have not confirmed a key yet."""
    seen = tx.keys.seen()
    found = []
    for partner in tx.people.partners():
        if partner.state != "active":
            continue
        one = seen.get(partner.agency)
        reached = 0 if one is None else one.signing_number if row.purpose == KeyPurpose.SIGNING else one.number
        if not 0 < row.number <= reached:
            found.append(partner.agency)
    return found


def switch(tx: Transaction, node: Node, key_id: str, *, reason: str, proposal: str = "") -> None:
    """Use an announced key from now on; the one before it is deactivated. Who has not confirmed it learns of it later.

    Raises:
        ConflictError: the key is not one that waits for its use.
    """
    row = tx.keys.own_key(key_id)
    if row.state != KeyState.PRE_ACTIVE:
        raise ConflictError("this key does not wait to be used", remedy="`gateway key list` shows which does")
    purpose = KeyPurpose(row.purpose)
    before = [one for one in tx.keys.own(purpose) if one.state in IN_USE]
    if purpose is KeyPurpose.SIGNING:
        node.keystore.activate_signing_key(row.key_id, random=node.random)
    else:
        node.keystore.activate_token_key(row.key_id, random=node.random)
    row.expires = node.clock() + _lifetime_seconds(node, purpose)
    change_state(tx, node, row, KeyState.ACTIVE, reason=reason, proposal=proposal)
    for one in before:
        change_state(tx, node, one, KeyState.DEACTIVATED, reason="its successor is used", proposal=proposal)
    issue(tx, node)


# What is due by itself


def maintain(node: Node) -> list[str]:
    """Do what is due with our keys; says what was done. Nothing is written when nothing is due."""
    with node.store.reading() as tx:
        due = not _is_listed(tx, node) or _due(tx, node)
    if not due:
        return []
    done: list[str] = []
    with node.store.transaction() as tx:
        reconcile(tx, node)
        for what, row in _due(tx, node):
            if what == "rotate":
                rotate(tx, node, KeyPurpose.DECRYPTION, reason="its time is over")
            elif what == "switch":
                switch(tx, node, row.key_id, reason="every partner has confirmed it")
            elif what == "deactivate":
                change_state(tx, node, row, KeyState.DEACTIVATED, reason="the overlap with its successor is over")
            else:
                _drop(node, KeyPurpose(row.purpose), row.key_id)
                change_state(tx, node, row, KeyState.DESTROYED, reason="its retention is over")
            done.append(f"{what} {row.purpose}")
        issue(tx, node)
    return done


def _due(tx: Transaction, node: Node) -> list[tuple[str, OwnKey]]:
    now, settings = node.clock(), node.settings
    overlap = settings.key_overlap_days * DAY_SECONDS
    retention = settings.decryption_retention_days * DAY_SECONDS
    due: list[tuple[str, OwnKey]] = []
    rows = tx.keys.own()
    decryption = [one for one in rows if one.purpose == KeyPurpose.DECRYPTION and one.state == KeyState.ACTIVE]
    if decryption and now >= decryption[-1].created + settings.decryption_key_days * DAY_SECONDS:
        due.append(("rotate", decryption[-1]))
    for row, following in pairwise(decryption):
        if now >= following.created + overlap:
            due.append(("deactivate", row))
    for row in rows:
        if row.state == KeyState.PRE_ACTIVE and not missing(tx, row):
            due.append(("switch", row))
        kept = retention if row.purpose == KeyPurpose.DECRYPTION else overlap
        if row.state in (KeyState.DEACTIVATED, KeyState.COMPROMISED) and now >= row.changed + kept:
            due.append(("destroy", row))
    return due


# Compromise


def revoke(tx: Transaction, node: Node, key_id: str, *, since: int, reason: str, proposal: str = "") -> None:
    """End a key that somebody else may hold. What it is needed for goes on with a new key.

    Partners learn of a token or decryption key's end by the next card. Of a signing key's end they are told by a
    revocation, and believe the new one only after they have enrolled it by its fingerprint.

    Args:
        since: when it may have been lost, Unix seconds.

    Raises:
        ConflictError: the key is compromised or destroyed already. MalformedError: `since` lies in the future.
    """
    reconcile(tx, node)
    row = tx.keys.own_key(key_id)
    purpose, old = KeyPurpose(row.purpose), KeyState(row.state)
    if since > node.clock():
        raise MalformedError("the time of compromise lies in the future")
    check_transition(old, KeyState.COMPROMISED)
    if purpose is KeyPurpose.SIGNING:
        _revoke_signing_key(tx, node, row, since)
    elif old in IN_USE and purpose is KeyPurpose.TOKEN:
        new = node.keystore.add_token_key(now=node.clock(), random=node.random)
        node.keystore.activate_token_key(new.key_id, random=node.random)
        _list(tx, node, purpose, new, KeyState.ACTIVE, reason="in place of a compromised key", proposal=proposal)
    elif purpose is KeyPurpose.DECRYPTION and row.key_id == node.keystore.held_opening_keys[0].key_id:
        fresh = node.keystore.add_opening_key(now=node.clock(), random=node.random)
        _list(tx, node, purpose, fresh, KeyState.ACTIVE, reason="in place of a compromised key", proposal=proposal)
    change_state(tx, node, row, KeyState.COMPROMISED, reason=reason, proposal=proposal, since=since)
    issue(tx, node)


def _revoke_signing_key(tx: Transaction, node: Node, row: OwnKey, since: int) -> None:
    now, keystore = node.clock(), node.keystore
    held = {one.key_id: one for one in keystore.held_signing_keys}
    in_use = keystore.held_signing_key
    # The key itself says so while we hold it; of one that is destroyed its successor says it.
    signer = held.get(row.key_id, in_use) if row.number >= in_use.number else in_use
    statement = Revocation(node.agency, row.key_id, row.number, since, now)
    tx.keys.add_statement(REVOCATION, row.number, sign_revocation(statement, signer.key), now)
    if row.key_id != in_use.key_id:
        return
    for one in tx.keys.own(KeyPurpose.SIGNING):  # what it had announced is nobody's word any more
        if one.state == KeyState.PRE_ACTIVE:
            change_state(tx, node, one, KeyState.COMPROMISED, reason="its predecessor is compromised", since=since)
    new = keystore.add_signing_key(now=now, random=node.random)
    keystore.activate_signing_key(new.key_id, random=node.random)
    _list(tx, node, KeyPurpose.SIGNING, new, KeyState.ACTIVE, reason="in place of a compromised key")


def affected(node: Node, row: OwnKey) -> list[Affected]:
    """What must be looked at again since a key of ours was lost: by kind and partner, with the leaves of the log."""
    kinds = {
        KeyPurpose.SIGNING: _SIGNED_BY_US,
        KeyPurpose.DECRYPTION: _SEALED_FOR_US,
        KeyPurpose.TOKEN: _SIGNED_BY_US,
    }[KeyPurpose(row.purpose)]
    # What was sealed for a key can be opened by whoever has it, however long ago it was sealed.
    since = row.created if row.purpose == KeyPurpose.DECRYPTION else row.compromised_since
    return affected_events(node, kinds, since=since)


def affected_events(node: Node, kinds: Iterable[EventKind], *, since: int, actor: str | None = None) -> list[Affected]:
    """Events of some kinds since a time, summed up by kind, subject and actor."""
    wanted, found = set(kinds), dict[tuple[str, str, str], list[int]]()
    with node.store.reading() as tx:
        for leaf in tx.log.leaves():
            if leaf.event_bytes is None:
                continue
            event = parse_event(leaf.event_bytes)
            if event.kind in wanted and event.at >= since and actor in (None, event.actor):
                subject = str(event.details.get("partner", event.subject))
                found.setdefault((str(event.kind), subject, event.actor), []).append(leaf.index)
    return [
        Affected(kind, subject, who, len(leaves), leaves[0], leaves[-1])
        for (kind, subject, who), leaves in sorted(found.items())
    ]


_SIGNED_BY_US = (
    EventKind.PAGE_SENT,
    EventKind.PAGE_SERVED,
    EventKind.FEED_HEAD_ISSUED,
    EventKind.MAILBOX_SENT,
    EventKind.CARD_ISSUED,
)
_SEALED_FOR_US = (EventKind.PUSH_RECEIVED, EventKind.PAGE_APPLIED, EventKind.MAILBOX_RECEIVED)


# Suspension


def suspend(node: Node, key_id: str, *, by: str, reason: str) -> None:
    """Take a key out of use at once and alone; lifting that is guarded. Of a key that signs, all exchange stops too."""
    with node.store.transaction() as tx:
        reconcile(tx, node)
        row = tx.keys.own_key(key_id)
        change_state(tx, node, row, KeyState.SUSPENDED, reason=reason)
        if row.purpose != KeyPurpose.DECRYPTION:
            tx.people.pause(EVERYTHING, by, node.clock())
            tx.log.append(
                [node.event(EventKind.PAUSED, actor=by, subject="", details={"reason": "a key is suspended"})]
            )
        else:
            if not any(one.state == KeyState.ACTIVE for one in tx.keys.own(KeyPurpose.DECRYPTION)):
                rotate(tx, node, KeyPurpose.DECRYPTION, reason="the one before is suspended")
            issue(tx, node)


def reinstate(tx: Transaction, node: Node, key_id: str, *, reason: str, proposal: str) -> None:
    """Use a suspended key again."""
    row = tx.keys.own_key(key_id)
    if row.state != KeyState.SUSPENDED:
        raise ConflictError("this key is not suspended")
    change_state(tx, node, row, KeyState.ACTIVE, reason=reason, proposal=proposal)
    issue(tx, node)


# Inside


def _held(node: Node, purpose: KeyPurpose) -> Sequence[Held]:
    keystore = node.keystore
    if purpose is KeyPurpose.SIGNING:
        return keystore.held_signing_keys
    return keystore.held_token_keys if purpose is KeyPurpose.TOKEN else keystore.held_opening_keys


def _drop(node: Node, purpose: KeyPurpose, key_id: str) -> None:
    drops = {
        KeyPurpose.SIGNING: node.keystore.drop_signing_key,
        KeyPurpose.TOKEN: node.keystore.drop_token_key,
        KeyPurpose.DECRYPTION: node.keystore.drop_opening_key,
    }
    drops[purpose](key_id, random=node.random)


def _is_listed(tx: Transaction, node: Node) -> bool:
    known = {row.key_id for row in tx.keys.own() if row.state != KeyState.DESTROYED}
    return known == {held.key_id for purpose in KeyPurpose for held in _held(node, purpose)}


def _list(
    tx: Transaction,
    node: Node,
    purpose: KeyPurpose,
    held: Held,
    state: KeyState,
    *,
    reason: str,
    proposal: str = "",
) -> None:
    now = node.clock()
    row = OwnKey(
        key_id=held.key_id,
        purpose=purpose,
        number=held.number if isinstance(held, HeldSigningKey) else 0,
        state=state,
        public=_public(held),
        created=held.created,
        changed=now,
        expires=held.created + _lifetime_seconds(node, purpose),
        reason=reason,
    )
    tx.keys.put_own(row)
    _log(tx, node, row, None, proposal=proposal)


def _public(held: Held) -> str:
    if isinstance(held, HeldSigningKey):
        return canonical.encode(held.key.public.to_json()).decode()
    return held.key.thumbprint() if isinstance(held, HeldTokenKey) else str(held.key.public)


def _lifetime_seconds(node: Node, purpose: KeyPurpose) -> int:
    settings = node.settings
    days = {
        KeyPurpose.SIGNING: settings.signing_key_days,
        KeyPurpose.TOKEN: settings.token_key_days,
        KeyPurpose.DECRYPTION: settings.decryption_key_days + settings.key_overlap_days,
    }
    return days[purpose] * DAY_SECONDS


def _log(tx: Transaction, node: Node, row: OwnKey, old: KeyState | None, *, proposal: str = "", since: int = 0) -> None:
    details: dict[str, object] = {
        "owner": node.agency,
        "key_id": row.key_id,
        "purpose": str(row.purpose),
        "number": row.number,
        "old_state": "" if old is None else str(old),
        "new_state": str(row.state),
        "reason": row.reason,
    }
    if proposal:
        details["proposal"] = proposal
    if since:
        details["since"] = since
    tx.log.append([node.event(EventKind.KEY_CHANGED, actor=node.agency, subject=row.key_id, details=details)])


def signing_key_of(row: OwnKey) -> VerifyingKey:
    """The public pair of one of our signing keys, also of one that is destroyed."""
    return VerifyingKey.from_json(canonical.parse_json(row.public.encode(), max_bytes=8192))
