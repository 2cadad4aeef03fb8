"""Restore statements: what an agency says when its gateway lives on from a backup, and what its partners make of it.

A restored gateway has lost the end of its log, and its partners have seen that end. So its log ends where the backup
has it, and another begins, with another key. Partners take that from nobody but the agency itself, by a statement that
its administrators have signed (contracts/restore-1.md). Rules:

1. It is signed by the signing key of the agency that counts now, and brings the proposal that at least two different
   administrators have signed; of an agency whose card says that its data are invented, one.
2. It continues exactly the log that the receiver has enrolled. So statements are walked one by one, and a second
   restore of one log, like a backup that was restored twice, is refused.
3. The old head that it names does not contradict what was witnessed of the old log.
4. The new log begins with one leaf, the event that names the signed proposal: its checkpoint of one leaf comes along,
   and is what every later checkpoint must extend (`witness`). So a log that begins otherwise is a fork.
5. Then, and only then, the card is taken although it names another log (`keyring`). Feed heads of the next epoch are
   covered by it: a set's epoch is never above the number of its owner's log (`accepted_epoch`).

How far each set was at the backup stands in the statement so that only its followers can read it: names and sizes of
sets are nobody else's business, so each is hidden under the set's digest key, which comes with its feed heads.

`beginning` is the agency's own side.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.alarms import AlarmKind, raise_alarm
from gateway.audit import EventKind, event_entry, origin_of_receipt, parse_event
from gateway.crypto import checkpoint, merkle, restore
from gateway.crypto.checkpoint import Checkpoint, KeyKind, VerifierKey, number_of_log
from gateway.crypto.keys import VerifyingKey
from gateway.crypto.restore import Restore
from gateway.errors import AuditBrokenError, VerificationError
from gateway.interchange import HEX_DIGEST, IdentityCard
from gateway.model import require, text_member, texts_member
from gateway.node import Node, log_origin
from gateway.partners import card_in, length_prefixed
from gateway.proposals import STATEMENT_TYPE, Arguments, Statement
from gateway.store import Transaction
from gateway.store.tables import HashSet, PartnerRestore, PartnerRow

ACT = "gateway_restore"
RESTORE = "restore"  # the kind of the statement among an agency's own
MIN_ADMINISTRATORS = 2  # four eyes; an agency with invented data may do with one
MAX_NAMED_SETS = 1024  # what fits into a proposal; of any other its followers know no more than its epoch
_POSITION = struct.Struct(">HQ")  # epoch, seq
_ID_BYTES = 16
_NAMED_SET = re.compile(f"[0-9a-f]{{{2 * (_ID_BYTES + _POSITION.size)}}}")
_SET_CONTEXT = b"restore 1 set\n"
_MEMBERS = {"log", "old_log", "old_note", "sets", "standing", "witnessed_note"}

Positions = Mapping[str, tuple[int, int]]  # set -> (epoch before the restore, seq at the backup)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the administrators signed: which log ends where, and which begins.

    `witnessed`: the largest head that a partner had cosigned, as the backup has it; None for none.
    """

    old: VerifierKey
    old_note: str
    old_head: Checkpoint
    witnessed_note: str
    witnessed: Checkpoint | None
    new: VerifierKey
    sets: tuple[str, ...]
    standing: str

    @property
    def number(self) -> int:
        """The number of the log that begins."""
        return number_of_log(self.new.name)

    def arguments(self) -> Arguments:
        """As the proposal has them."""
        return {
            "log": str(self.new),
            "old_log": str(self.old),
            "old_note": self.old_note,
            "sets": list(self.sets),
            "standing": self.standing,
            "witnessed_note": self.witnessed_note,
        }

    def leaf_details(self, agency: str, proposal: str, key_ids: Iterable[str]) -> dict[str, object]:
        """What leaf 0 of the new log says, but for the digest of what is carried over."""
        details: dict[str, object] = {
            "agency": agency,
            "origin": self.new.name,
            "old_origin": self.old.name,
            "old_size": self.old_head.size,
            "old_root": self.old_head.root.hex(),
            "old_note": self.old_note,
            "proposal": proposal,
            "key_ids": sorted(key_ids),
        }
        if self.witnessed is not None:
            details |= {"witnessed_size": self.witnessed.size, "witnessed_note": self.witnessed_note}
        return details


def parse_terms(agency: str, arguments: Arguments) -> Terms:
    """The terms in a proposal of `agency`, each signed by the log that it speaks of.

    Raises:
        MalformedError: not such terms. VerificationError: a head that its log did not sign.
    """
    members = dict(arguments)
    require(set(members) == _MEMBERS, "restore: members of the proposal are not those of the contract")
    old, new = (VerifierKey.parse(text_member(members, name)) for name in ("old_log", "log"))
    require({old.kind, new.kind} == {KeyKind.LOG}, "restore: a key that is not a log's")
    number = number_of_log(old.name)
    names = (log_origin(agency, number), log_origin(agency, number + 1))
    require((old.name, new.name) == names, "restore: the logs are not one of the agency's and the next")
    require(old.public != new.public, "restore: the new log has the old one's key")
    old_note, witnessed_note = text_member(members, "old_note"), text_member(members, "witnessed_note")
    old_head = checkpoint.verify(old_note.encode(), old, old.name)
    witnessed = checkpoint.verify(witnessed_note.encode(), old, old.name) if witnessed_note else None
    require(witnessed is None or witnessed.size <= old_head.size, "restore: more was witnessed than there is")
    sets, standing = texts_member(members, "sets"), text_member(members, "standing")
    require(len(sets) <= MAX_NAMED_SETS and all(map(_NAMED_SET.fullmatch, sets)), "restore: sets that are none")
    require(list(sets) == sorted(set(sets)), "restore: sets are not sorted")
    require(HEX_DIGEST.fullmatch(standing), "restore: standing is not a digest")
    return Terms(old, old_note, old_head, witnessed_note, witnessed, new, sets, standing)


# What a partner makes of it


def is_new(node: Node, tx: Transaction, row: PartnerRow, raw: bytes) -> bool:
    """Whether a statement may lead on from the newest log that is known of a partner."""
    return _claimed_terms(raw).number > number_of_log(_newest_log(node, tx, row).name)


def take(node: Node, tx: Transaction, row: PartnerRow, raw: bytes, key: VerifyingKey) -> None:
    """The statement is kept, on record and an alarm; the card of the new log may follow.

    Args:
        key: the newest signing key of the partner that counts.

    Raises:
        MalformedError: not a restore statement.
        VerificationError: it is not signed as it must be, or does not continue the log that is enrolled.
    """
    held = card_in(row)
    least = 1 if held.test else MIN_ADMINISTRATORS
    statement = restore.verify_restore(raw, agency=row.agency, keys=(key,), signed_as=STATEMENT_TYPE, least=least)
    terms = read(statement)
    if terms.old != _newest_log(node, tx, row):
        raise VerificationError("restore: it does not continue the log that is enrolled here")
    details = _compare_witnessed(tx, row, terms)
    digest = hashlib.sha256(raw).hexdigest()
    kept = PartnerRestore(agency=row.agency, digest=digest, number=terms.number, statement=raw, accepted=node.clock())
    kept.mac = _mac(node, kept)
    tx.keys.add_restore(kept)
    details |= {
        "partner": row.agency,
        "origin": terms.new.name,
        "old_origin": terms.old.name,
        "old_size": terms.old_head.size,
        "statement": digest,
        "key_ids": sorted(one.key.key_set_id for one in statement.administrators),
    }
    event = node.event(EventKind.PARTNER_RESTORED, actor=row.agency, subject=row.agency, details=details)
    tx.log.append([event])
    told = "its gateway goes on from a backup, as its administrators have signed: what it lost is offered to it again"
    raise_alarm(tx, node, AlarmKind.PARTNER_RESTORED, row.agency, told, evidence=raw.decode())


def follow(node: Node, tx: Transaction, partner: str, log: str) -> bool:
    """From now on the partner's log is one that a statement led to: its one leaf is what was witnessed of it.

    Returns:
        False when no statement leads to `log` (a verifier string); then nothing is changed.
    """
    for one, terms in _taken(node, tx, partner):
        if str(terms.new) == log:
            tx.witness.begin(partner, terms.new.name, one.checkpoint, node.clock())
            return True
    return False


def accepted_epoch(tx: Transaction, hub: str) -> int:
    """The highest epoch that a partner's sets may have here: the number of its log, which only a restore statement or
    two administrators change. 1 for whoever was never restored, or is not known."""
    row = tx.people.find_partner(hub)
    return 1 if row is None else number_of_log(VerifierKey.parse(card_in(row).log).name)


def restored_at(node: Node, tx: Transaction, hub: str) -> Positions:
    """Where a partner's sets stood at the backup from which its present log began, as far as we follow them."""
    row = tx.people.find_partner(hub)
    log = "" if row is None else card_in(row).log
    for _, terms in _taken(node, tx, hub):
        if str(terms.new) == log:
            return _positions(node, terms, [one for one in tx.sets.all() if one.hub == hub])
    return {}


def log_of_receipt(node: Node, tx: Transaction, card: IdentityCard, receipt: bytes) -> VerifierKey:
    """The log of a partner that a receipt is of: the one in its card, or one that ended with a restore, as its
    statements name them. What that proved stays proved.

    Raises:
        MalformedError: not a receipt.
    """
    origin = origin_of_receipt(receipt)
    ended = {terms.old.name: terms.old for _, terms in _taken(node, tx, card.agency)}
    present = VerifierKey.parse(card.log)
    return present if origin == present.name else ended.get(origin, present)


@dataclass(frozen=True, slots=True)
class OwnRestore:
    """A restore of this gateway. `number`: of the log that began with it; `at`: Unix seconds; `sets`: our own."""

    number: int
    at: int
    sets: Positions


def own_restores(node: Node, tx: Transaction) -> list[OwnRestore]:
    """The restores that this gateway has been through, oldest first."""
    own = [one for one in tx.sets.all() if not one.hub]
    found = []
    for row in tx.keys.statements():
        if row.kind == RESTORE:
            terms = _claimed_terms(row.statement)
            found.append(OwnRestore(terms.number, row.created, _positions(node, terms, own)))
    return found


def read(statement: Restore) -> Terms:
    """The terms of a statement whose signatures were verified, once proposal, leaf and checkpoint say the same.

    Raises:
        MalformedError, VerificationError: they do not.
    """
    proposal = Statement.parse(statement.proposal)
    if (proposal.act, proposal.agency) != (ACT, statement.agency):
        raise VerificationError("restore: the administrators signed something else")
    terms = parse_terms(statement.agency, proposal.arguments)
    event = parse_event(statement.event)
    identifier = hashlib.sha256(statement.proposal).hexdigest()
    key_ids = [one.key.key_set_id for one in statement.administrators]
    said = {name: value for name, value in event.details.items() if name != "standing"}
    same = said == terms.leaf_details(statement.agency, identifier, key_ids)
    if event.kind is not EventKind.GATEWAY_RESTORED or not same:
        raise VerificationError("restore: the new log does not begin with what the administrators signed")
    head = checkpoint.verify(statement.checkpoint, terms.new, terms.new.name)
    leaf = merkle.leaf_hash(event_entry(statement.event, statement.salt))
    if head.size != 1 or not hmac.compare_digest(head.root, leaf):
        raise VerificationError("restore: the new log does not begin with the leaf that the statement shows")
    return terms


def _claimed_terms(raw: bytes) -> Terms:
    statement = restore.parse_unverified(raw)
    return parse_terms(statement.agency, Statement.parse(statement.proposal).arguments)


def _newest_log(node: Node, tx: Transaction, row: PartnerRow) -> VerifierKey:
    """The log of the card that is held, or the one to which statements lead from there."""
    log = VerifierKey.parse(card_in(row).log)
    for _, terms in _taken(node, tx, row.agency):
        log = terms.new if terms.old == log else log
    return log


def _taken(node: Node, tx: Transaction, partner: str) -> list[tuple[Restore, Terms]]:
    """The statements of a partner that were taken, oldest first."""
    found = []
    for row in tx.keys.restores(partner):
        if not hmac.compare_digest(row.mac, _mac(node, row)):
            raise AuditBrokenError("a restore statement in the database was not kept by this gateway", place=partner)
        found.append((restore.parse_unverified(row.statement), _claimed_terms(row.statement)))
    return found


def _mac(node: Node, row: PartnerRestore) -> bytes:
    return node.keystore.row_mac(length_prefixed("partner restore 1", row.agency, row.digest, str(row.accepted)))


def _compare_witnessed(tx: Transaction, row: PartnerRow, terms: Terms) -> dict[str, object]:
    """What we held of the old log, for the record.

    Raises:
        VerificationError: the backup's head and ours are of one size, and not the same.
    """
    seen = tx.witness.log(row.agency)
    if seen is None or not seen.note or seen.origin != terms.old.name:
        return {}
    head = checkpoint.verify(seen.note.encode(), terms.old, terms.old.name)
    if head.size == terms.old_head.size and not hmac.compare_digest(head.root, terms.old_head.root):
        raise VerificationError("restore: the log in the backup is not the one that was witnessed")
    return {"held_size": head.size, "held_note": seen.note}


# Sets, hidden from all but their followers


def hidden(node: Node, origin: str, sets: Sequence[HashSet]) -> list[str]:
    """Where sets stand, as a statement for the log `origin` names them; of very many those that changed most."""
    largest = sorted(sets, key=lambda one: (-one.seq, one.name))[:MAX_NAMED_SETS]
    found = []
    for one in largest:
        name, mask = _veil(node, origin, one)
        position = _POSITION.pack(one.epoch, one.seq)
        found.append((name + bytes(a ^ b for a, b in zip(position, mask, strict=True))).hex())
    return sorted(found)


def _positions(node: Node, terms: Terms, sets: Iterable[HashSet]) -> Positions:
    named = {raw[:_ID_BYTES]: raw[_ID_BYTES:] for raw in map(bytes.fromhex, terms.sets)}
    found = {}
    for one in sets:
        if not one.sealed_digest_key:
            continue  # its hub has announced no head yet
        name, mask = _veil(node, terms.new.name, one)
        if name in named:
            epoch, seq = _POSITION.unpack(bytes(a ^ b for a, b in zip(named[name], mask, strict=True)))
            found[one.name] = (epoch, seq)
    return found


def _veil(node: Node, origin: str, one: HashSet) -> tuple[bytes, bytes]:
    """The name of a set in one statement, and what its position is hidden under: used once."""
    from gateway.exchange.labels import digest_key  # noqa: PLC0415  the exchange itself imports this module

    message = _SET_CONTEXT + f"{origin}\n{one.name}".encode()
    raw = hmac.digest(digest_key(node, one), message, hashlib.sha256)
    return raw[:_ID_BYTES], raw[_ID_BYTES : _ID_BYTES + _POSITION.size]
