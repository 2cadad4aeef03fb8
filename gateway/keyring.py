"""Partners' keys: which of them count now, and how a partner's new ones come to count.

At each contact both sides compare what they know of each other's keys (contracts/key-statements-1.md): the successions
and revocations of signing keys and the restores of the gateway, in order, and the present identity card. Nobody has to
act on both sides in the same minute, and a partner that was away for ten rotations walks all ten at its next contact.

Rules:

1. A signing key counts when it came with an enrolled card, or was named by a key that counted (`succession`). A key
   whose successor is in use counts `key_overlap_days` longer, for what is on its way.
2. A newer card is taken when a key that counts signed it. Its number never falls, and one number has one card.
3. A card never moves a partner by itself: another address, log, witness, test flag or jurisdiction waits for two
   administrators (`partner add`), and raises an alarm. The log alone may also follow from a restore statement, which
   at least two administrators of the partner have signed (`restoring`).
4. A revocation ends a key at this place of our log. If the key in use says it of itself, its successors end with it,
   the partner is shut out, and only a card enrolled anew under four eyes lets it in: whoever stole the key could have
   signed all the rest.
5. Each row of the key table carries a MAC: whoever writes the database makes no key count.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache

from gateway import restoring
from gateway.alarms import AlarmKind, raise_alarm
from gateway.audit import EventKind
from gateway.crypto import canonical, dsse, restore, revocation, succession
from gateway.crypto.keys import VerifyingKey
from gateway.errors import AuditBrokenError, ConflictError, MalformedError, NotFoundError, VerificationError
from gateway.interchange import IdentityCard, KeyConfirmation, KeyNews, parse_card
from gateway.keylife import DAY_SECONDS, KeyPurpose, KeyState
from gateway.node import Node
from gateway.ownkeys import REVOCATION, Affected, affected_events, issued_card
from gateway.partners import card_in, get, put
from gateway.store import Transaction
from gateway.store.tables import KeySeen, PartnerKey, PartnerRow

ACTIVE = "active"
REVOKED = "revoked"  # the state of a partner whose signing key is compromised
_PROTECTED = ("agency", "jurisdiction", "url", "witness", "test")


# What we tell


def own_news(node: Node) -> KeyNews:
    """All that we say of our keys now."""
    card = issued_card(node)
    with node.store.reading() as tx:
        return KeyNews(card, tuple(row.statement for row in tx.keys.statements()))


def news_for(node: Node, partner: str, held: KeyConfirmation) -> KeyNews | None:
    """What a partner does not know yet; None when it knows everything. What it says that it holds is noted."""
    news = own_news(node)
    confirm(node, partner, held)
    with node.store.reading() as tx:
        number, revocations = _newest(tx)
    known = held == KeyConfirmation(hashlib.sha256(news.card).hexdigest(), number, revocations)
    return None if known else news


def confirm(node: Node, partner: str, held: KeyConfirmation) -> None:
    """Note which of our keys a partner says that it holds. A card that never was ours says nothing."""
    with node.store.reading() as tx:
        card = tx.keys.card_by_digest(held.card_digest)
        seen = tx.keys.seen().get(partner)
    number = 0 if card is None else card.number
    now = (number, held.signing_number, held.revocations)
    if seen is not None and (seen.number, seen.signing_number, seen.revocations) == now:
        return
    details: dict[str, object] = {"partner": partner, "number": number, "signing_number": held.signing_number}
    row = KeySeen(
        partner=partner,
        number=number,
        signing_number=held.signing_number,
        revocations=held.revocations,
        at=node.clock(),
    )
    with node.store.transaction() as tx:
        tx.keys.note_seen(row)
        tx.log.append([node.event(EventKind.KEY_SEEN, actor=partner, subject=partner, details=details)])


def has_all(node: Node, partner: str) -> bool:
    """Whether a partner has confirmed our present card, every signing key and every revocation."""
    issued_card(node)
    with node.store.reading() as tx:
        newest, seen = tx.keys.card(), tx.keys.seen().get(partner)
        number, revocations = _newest(tx)
    if newest is None or seen is None:
        return False
    return (seen.number, seen.signing_number, seen.revocations) == (newest.number, number, revocations)


def _newest(tx: Transaction) -> tuple[int, int]:
    """The number of our newest signing key, and how many revocations we handed out."""
    number = max((row.number for row in tx.keys.own(KeyPurpose.SIGNING)), default=1)
    return number, sum(row.kind == REVOCATION for row in tx.keys.statements())


# What counts


def verifying_keys(node: Node, tx: Transaction, card: IdentityCard) -> Sequence[VerifyingKey]:
    """The keys by which a partner's messages may be signed now."""
    rows = _rows(node, tx, card)
    return [_key(row) for row in rows if _counts(row, node.clock())]


def keys_of_evidence(node: Node, tx: Transaction, card: IdentityCard) -> Sequence[VerifyingKey]:
    """The keys by which a partner may have signed what is kept of it: all but those that were compromised."""
    return [_key(row) for row in _rows(node, tx, card) if row.state != KeyState.COMPROMISED]


def held_of(node: Node, partner: str) -> KeyConfirmation:
    """What we hold of a partner's keys, as we tell it."""
    with node.store.reading() as tx:
        row = get(node, tx, partner)
        return _confirmation(node, tx, row)


def enrol(node: Node, tx: Transaction, card: IdentityCard) -> None:
    """The signing key of a card that two administrators enrolled counts from now on; any other before it does not.

    Raises:
        ConflictError: the card is signed by a key that is known as replaced or compromised.
    """
    now = node.clock()
    for row in tx.keys.of_partner(card.agency):
        if row.key_set_id == card.signing.key_set_id:
            if row.state != KeyState.ACTIVE:
                raise ConflictError("this identity card is signed by a key that is replaced or compromised")
        elif row.state == KeyState.ACTIVE:
            row.state, row.until = KeyState.DEACTIVATED, now
            _put(node, tx, row)
    _put(node, tx, _row_of(card, now))


def revoke_partner(
    node: Node, tx: Transaction, partner: str, *, since: int, reason: str, proposal: str = ""
) -> list[PartnerKey]:
    """A partner told us by another way that its keys are lost: none of them counts any more."""
    row = get(node, tx, partner)
    rows = [one for one in _rows(node, tx, card_in(row)) if one.state != KeyState.COMPROMISED]
    if not rows:
        raise ConflictError("this partner's keys are revoked already")
    for one in rows:
        _compromise(node, tx, one, since=since, reason=reason, proposal=proposal)
    _shut_out(node, tx, row)
    return rows


def affected(node: Node, partner: str, since: int) -> list[Affected]:
    """What came from a partner since its key was lost, and must be looked at again."""
    kinds = (EventKind.PUSH_RECEIVED, EventKind.PAGE_APPLIED, EventKind.MAILBOX_RECEIVED)
    return affected_events(node, kinds, since=since, actor=partner)


# What a partner tells


def take(node: Node, partner: str, raw: bytes) -> KeyConfirmation:
    """Take what a partner says of its keys; returns what we hold of them then. The same again has no effect.

    Raises:
        MalformedError: not key statements.
        VerificationError: a statement that no key that counts has signed, or a card that contradicts one held.
        NotFoundError: the partner is not active.
    """
    news = KeyNews.parse(raw)
    with node.store.reading() as tx:
        row = get(node, tx, partner)
        if row.card.encode() == news.card and not _unknown(node, tx, row, news):
            return _confirmation(node, tx, row)
    with node.store.transaction() as tx:
        row = get(node, tx, partner)
        if row.state != ACTIVE:
            raise NotFoundError("no such partner")
        if not tx.keys.of_partner(partner):
            _put(node, tx, _row_of(card_in(row), row.added))
        for one in _unknown(node, tx, row, news):
            _take_statement(node, tx, row, one)
        if row.state == ACTIVE:
            _take_card(node, tx, row, news.card)
        return _confirmation(node, tx, row)


def _unknown(node: Node, tx: Transaction, row: PartnerRow, news: KeyNews) -> list[bytes]:
    """The statements that may say something new, in their order."""
    rows = _rows(node, tx, card_in(row))
    known = {one.key_set_id for one in rows}
    revoked = {one.key_set_id for one in rows if one.state == KeyState.COMPROMISED}
    first = min(one.number for one in rows)
    found = []
    for raw in news.statements:
        kind = dsse.parse(raw).payload_type
        if kind == succession.PAYLOAD_TYPE:
            said = succession.parse_unverified(raw)
            if said.key.key_set_id not in known and said.number > first:  # else from before the partner was enrolled
                found.append(raw)
        elif kind == revocation.PAYLOAD_TYPE:
            if revocation.parse_unverified(raw).key_set_id not in revoked:
                found.append(raw)
        elif kind == restore.PAYLOAD_TYPE:
            if restoring.is_new(node, tx, row, raw):
                found.append(raw)
        else:
            raise MalformedError("key statements: a statement of unknown type")
    return found


def _take_statement(node: Node, tx: Transaction, row: PartnerRow, raw: bytes) -> None:
    kind = dsse.parse(raw).payload_type
    if kind == succession.PAYLOAD_TYPE:
        _take_succession(node, tx, row, raw)
    elif kind == revocation.PAYLOAD_TYPE:
        _take_revocation(node, tx, row, raw)
    else:
        restoring.take(node, tx, row, raw, _key(_newest_active(node, tx, row)))


def _newest_active(node: Node, tx: Transaction, row: PartnerRow) -> PartnerKey:
    """The newest signing key of a partner that counts without an end."""
    active = [one for one in _rows(node, tx, card_in(row)) if one.state == KeyState.ACTIVE]
    if not active:
        raise VerificationError("key statements: no key of this agency counts")
    return max(active, key=lambda one: one.number)


def _take_succession(node: Node, tx: Transaction, row: PartnerRow, raw: bytes) -> None:
    newest, claimed = _newest_active(node, tx, row), succession.parse_unverified(raw)
    if claimed.number < newest.number:
        return  # a key that was given up before the one that was enrolled
    if claimed.number == newest.number:
        raise VerificationError("succession: the key before has another successor already")
    statement = succession.verify_succession(raw, agency=row.agency, held=_key(newest), held_number=newest.number)
    added = PartnerKey(
        agency=row.agency,
        key_set_id=statement.key.key_set_id,
        number=statement.number,
        keys=canonical.encode(statement.key.to_json()).decode(),
        state=KeyState.ACTIVE,
        accepted=node.clock(),
    )
    _put(node, tx, added)
    _log(node, tx, added, old="", reason="named by its predecessor")


def _take_revocation(node: Node, tx: Transaction, row: PartnerRow, raw: bytes) -> None:
    rows, now = _rows(node, tx, card_in(row)), node.clock()
    claimed = revocation.parse_unverified(raw)
    known = next((one for one in rows if one.key_set_id == claimed.key_set_id), None)
    if known is None:
        return  # of a key that never counted here
    held = [revocation.HeldKey(one.number, _key(one), _counts(one, now)) for one in rows]
    statement, by_itself = revocation.verify_revocation(raw, agency=row.agency, held=held)
    # What it named while it counted may be a thief's: the whole branch goes. Of a key long replaced only itself.
    branch = by_itself and _counts(known, now)
    in_use = card_in(row).signing.key_set_id
    for one in rows:
        follows = branch and one.number > statement.number and one.state == KeyState.ACTIVE
        if one is known or follows:
            _compromise(node, tx, one, since=statement.since, reason="revoked by its owner")
            if one.key_set_id == in_use:
                _shut_out(node, tx, row)


def _take_card(node: Node, tx: Transaction, row: PartnerRow, raw: bytes) -> None:
    held = card_in(row)
    if raw == row.card.encode():
        return
    card = parse_card(raw)
    signer = next((one for one in _rows(node, tx, held) if one.key_set_id == card.signing.key_set_id), None)
    if signer is None or signer.state != KeyState.ACTIVE or signer.number != card.signing_number:
        raise VerificationError("identity card: signed by a key that does not count for this agency")
    if card.number < held.number:
        return  # an old answer; the card held is newer
    if card.number == held.number:
        raise VerificationError("identity card: another card under the number of the one held")
    protected = any(getattr(card, name) != getattr(held, name) for name in _PROTECTED)
    if protected or (card.log != held.log and not restoring.follow(node, tx, row.agency, card.log)):
        _wait_for_people(node, tx, row, raw)
        return
    row.card = raw.decode()
    put(node, tx, row)
    if not _token_ids(held) <= _token_ids(card):
        tx.tokens.revoke(row.agency)  # what was issued to a key that the partner does not use any more
    tx.sets.drop_heads([row.agency])  # they are sealed for the keys of the card before
    _deactivate_older(node, tx, row.agency, signer)
    details: dict[str, object] = {
        "partner": row.agency,
        "number": card.number,
        "card_digest": hashlib.sha256(raw).hexdigest(),
        "key_ids": [*card.signing.key_ids, *(key.key_id for key in card.opening)],
    }
    event = node.event(EventKind.PARTNER_CARD_CHANGED, actor=row.agency, subject=row.agency, details=details)
    tx.log.append([event])


def _wait_for_people(node: Node, tx: Transaction, row: PartnerRow, raw: bytes) -> None:
    detail = "its new identity card changes more than keys: compare it by voice, then `gateway partner add` it"
    raise_alarm(tx, node, AlarmKind.PARTNER_CARD_WAITS, row.agency, detail, evidence=raw.decode())


def _deactivate_older(node: Node, tx: Transaction, agency: str, signer: PartnerKey) -> None:
    until = node.clock() + node.settings.key_overlap_days * DAY_SECONDS
    for one in tx.keys.of_partner(agency):
        if one.number < signer.number and one.state == KeyState.ACTIVE:
            one.state, one.until = KeyState.DEACTIVATED, until
            _put(node, tx, one)
            _log(node, tx, one, old=KeyState.ACTIVE, reason="its successor is used")


def _compromise(node: Node, tx: Transaction, row: PartnerKey, *, since: int, reason: str, proposal: str = "") -> None:
    old, row.state, row.compromised_since = row.state, KeyState.COMPROMISED, since
    _put(node, tx, row)
    _log(node, tx, row, old=old, reason=reason, since=since, proposal=proposal)


def _shut_out(node: Node, tx: Transaction, row: PartnerRow) -> None:
    """Nothing that this partner signs or asks is believed until it is enrolled anew."""
    row.state = REVOKED
    put(node, tx, row)
    tx.tokens.revoke(row.agency)
    tx.sets.drop_heads([row.agency])
    tx.schedule.remove(row.agency)
    detail = "its signing key is compromised: it is shut out until its new card is enrolled by its fingerprint"
    raise_alarm(tx, node, AlarmKind.PARTNER_KEY_REVOKED, row.agency, detail)


# Rows


def _rows(node: Node, tx: Transaction, card: IdentityCard) -> list[PartnerKey]:
    """The keys known of a partner, newest number first; of one enrolled before keys were kept, its card's."""
    rows = tx.keys.of_partner(card.agency)
    for one in rows:
        if not hmac.compare_digest(one.mac, _mac(node, one)):
            raise AuditBrokenError("a partner's key in the database is not as this gateway wrote it")
    return rows or [_row_of(card, card.created)]


def _row_of(card: IdentityCard, now: int) -> PartnerKey:
    keys = canonical.encode(card.signing.to_json()).decode()
    return PartnerKey(
        agency=card.agency,
        key_set_id=card.signing.key_set_id,
        number=card.signing_number,
        keys=keys,
        state=KeyState.ACTIVE,
        accepted=now,
    )


def _put(node: Node, tx: Transaction, row: PartnerKey) -> None:
    row.mac = _mac(node, row)
    tx.keys.put_partner_key(row)


def _mac(node: Node, row: PartnerKey) -> bytes:
    said = [row.agency, row.key_set_id, row.number, row.keys, str(row.state), row.until, row.compromised_since]
    return node.keystore.row_mac(canonical.encode(["partner key", *said]))


def _key(row: PartnerKey) -> VerifyingKey:
    return _parsed_key(row.keys)


@lru_cache(maxsize=256)
def _parsed_key(keys: str) -> VerifyingKey:
    return VerifyingKey.from_json(canonical.parse_canonical(keys.encode(), max_bytes=8192))


def _counts(row: PartnerKey, now: int) -> bool:
    return row.state == KeyState.ACTIVE or (row.state == KeyState.DEACTIVATED and now < row.until)


def _token_ids(card: IdentityCard) -> set[str]:
    return {canonical.encode(dict(jwk)).decode() for jwk in card.tokens}


def _confirmation(node: Node, tx: Transaction, row: PartnerRow) -> KeyConfirmation:
    rows = _rows(node, tx, card_in(row))
    number = max((one.number for one in rows if one.state != KeyState.COMPROMISED), default=0)
    revoked = sum(one.state == KeyState.COMPROMISED for one in rows)
    return KeyConfirmation(hashlib.sha256(row.card.encode()).hexdigest(), number, revoked)


def _log(
    node: Node,
    tx: Transaction,
    row: PartnerKey,
    *,
    old: str,
    reason: str,
    since: int = 0,
    proposal: str = "",
) -> None:
    details: dict[str, object] = {
        "owner": row.agency,
        "key_id": row.key_set_id,
        "purpose": str(KeyPurpose.SIGNING),
        "number": row.number,
        "old_state": str(old),
        "new_state": str(row.state),
        "reason": reason,
    }
    if since:
        details["since"] = since
    if proposal:
        details["proposal"] = proposal
    tx.log.append([node.event(EventKind.KEY_CHANGED, actor=node.agency, subject=row.agency, details=details)])
