"""Witnessing: partners keep each other's audit logs from being rewritten, cut off or shown in two versions.

At each contact, for the log of one partner:

    contact = desk.begin(partner)                what the next checkpoint must extend, read before it is asked for
    shown = desk.read(contact, note)             signed by the log of its card; not smaller; one root for one size
    wanted = shown.wanted                        (old, new) sizes between which the partner owes a consistency proof
    body = desk.take(contact, shown, proofs)     kept as the newest, and cosigned (C2SP tlog-cosignature): to be posted
    desk.note_posted(contact, shown)             the partner has our cosignature of this size

A checkpoint must extend the largest one that we verified before, and every *claim*: a head of this log that reached us
by another way, in a receipt or through a third partner (`hear`). So a log that shows one history to us and another to
others is found by the second of us to look.

What does not fit is a fork: the log forks (two roots, no proof), was rolled back (a smaller tree), or is signed by
another key than the one enrolled. Then, in one transaction, both signed heads go on record and into an alarm, and all
exchange with this partner is paused; the caller gets a VerificationError. Two administrators resume, and with that
`begin_anew` makes the head last shown the new beginning. A partner that does not answer, answers something that is no
checkpoint, or owes a proof, is no fork: the run fails, and is tried again.

Cosigning is not recorded in either log: a log that grew by being witnessed would be witnessed for ever.

Contract: contracts/log-1.md, "Witnesses".
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from gateway.alarms import AlarmKind, close_alarm, raise_alarm
from gateway.audit import MAX_RECEIPT_BYTES, EventKind
from gateway.crypto import canonical, checkpoint, merkle
from gateway.crypto.checkpoint import Checkpoint, VerifierKey
from gateway.errors import GatewayError, MalformedError, NotFoundError, ProofError, TooLargeError, VerificationError
from gateway.gossip import MAX_HEAD_BYTES, MAX_TOLD_LOGS, ToldLog
from gateway.model import require, text_member
from gateway.node import Node, own_log, witness_name
from gateway.partners import active_card, card_in, get
from gateway.store import Transaction
from gateway.store.tables import CosignatureRow, WitnessedLog

MAX_CLAIMS = 4  # each costs one proof at the next contact
MAX_NOTE_LINES = 64  # cosignatures in a note that we serve; C2SP allows a hundred lines in all
WITNESS = "witness"  # who pauses, in the list of pauses

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Contact:
    """What was known of a partner's log before it was asked.

    `held` and `claims` are signed notes, "" for none; `cosigned`: the size whose cosignature the partner has.
    """

    partner: str
    key: VerifierKey
    held: str = ""
    claims: tuple[str, ...] = ()
    cosigned: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """A checkpoint that the partner showed: signed by its log, and not contradicting what was known by itself."""

    note: bytes
    head: Checkpoint
    wanted: tuple[Pair, ...]


class WitnessDesk:
    """Witnesses the logs of partners for one node, and takes their cosignatures of its own."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # Ours of theirs

    def begin(self, partner: str) -> Contact:
        """What the partner's next checkpoint must extend. Read it before the checkpoint is asked for."""
        with self._node.store.reading() as tx:
            key = VerifierKey.parse(active_card(self._node, tx, partner).log)
            row = tx.witness.log(partner)
        return Contact(partner, key) if row is None else Contact(partner, key, row.note, _claims(row), row.cosigned)

    def read(self, contact: Contact, note: bytes) -> Shown:
        """The checkpoint, with the proofs that its log owes us for it.

        Raises:
            MalformedError: it is none.
            VerificationError: it contradicts what was known; this is on record, and the partner paused.
        """
        key = contact.key
        try:
            head = checkpoint.verify(note, key, key.name)
        except VerificationError as error:
            self._fork(contact, contact.held, note, f"not signed by the log of its identity card ({error.message})")
        note = _own_part(note, key)
        wanted = []
        for known in self._known(contact, note):
            before = _head(known, key)
            if before.size > head.size:
                self._fork(contact, known, note, "rolled back: the log is smaller than it was")
            elif before.size == head.size:
                if not hmac.compare_digest(before.root, head.root):
                    self._fork(contact, known, note, "forked: two roots for one size")
            elif before.size:
                wanted.append((before.size, head.size))
        return Shown(note, head, tuple(dict.fromkeys(wanted)))

    def take(self, contact: Contact, shown: Shown, proofs: Mapping[Pair, Sequence[bytes]]) -> bytes | None:
        """The checkpoint is kept as the newest; returns the note with our cosignature, None if the partner has that.

        Raises:
            VerificationError: a proof does not hold; this is on record, and the partner paused.
        """
        for known in (contact.held, *contact.claims):
            if known:
                self._prove(contact, known, shown, proofs)
        # Kept before it is cosigned (C2SP tlog-witness): a crash between the two leaves a cosignature to be made.
        if not self._keep(contact, shown) or shown.head.size <= contact.cosigned:
            return None
        key = self._node.keystore.witness_key(witness_name(self._node.agency))
        return checkpoint.add_signature(shown.note, checkpoint.cosign(shown.head, key, self._node.clock()))

    def note_posted(self, contact: Contact, shown: Shown) -> None:
        """The partner has our cosignature of this checkpoint."""
        with self._node.store.transaction() as tx:
            row = tx.witness.log(contact.partner)
            if row is not None and row.note == shown.note.decode():
                row.cosigned = shown.head.size
                tx.witness.put_log(row)

    # What reaches us by another way

    def hear_receipt(self, partner: str, receipt: bytes) -> None:
        """The head in a verified receipt of a partner is one that its log must extend from now on."""
        value = canonical.parse_canonical(receipt, max_bytes=MAX_RECEIPT_BYTES)
        require(isinstance(value, dict), "receipt: not an object")
        assert isinstance(value, dict)
        self._hear(self.begin(partner), text_member(dict(value), "checkpoint").encode())

    def hear_others(self, teller: str, told: Iterable[ToldLog]) -> None:
        """What a partner witnessed of others' logs, and of our own, is compared with what we know of them.

        A log with two histories is a fork as in `read`, but no fault of the teller: nothing is raised.
        """
        for one in told:
            if one.agency == self._node.agency:
                self._compare_own(teller, one.note)
            elif one.agency != teller:
                with suppress(VerificationError):
                    self._hear_told(one)

    def told_logs(self, partner: str) -> list[ToldLog]:
        """The logs that we witnessed, for a partner to compare with what it was shown, its own among them."""
        with self._node.store.reading() as tx:
            active_card(self._node, tx, partner)
            active = {row.agency for row in tx.people.partners() if row.state == "active"}
            rows = [row for row in tx.witness.logs() if row.note and row.partner in active]
        return [ToldLog(row.partner, row.note.encode(), row.at) for row in rows[:MAX_TOLD_LOGS]]

    # Theirs of ours

    def take_cosignature(self, partner: str, body: bytes) -> None:
        """Keep a partner's cosignature of a checkpoint of ours. The same one again changes nothing.

        Raises:
            MalformedError: not a note with exactly one line of this partner's witness.
            VerificationError: not the partner's, or not over a checkpoint of this log.
        """
        if len(body) > MAX_HEAD_BYTES:
            raise TooLargeError("cosignature: the note is too large")
        with self._node.store.reading() as tx:
            key = VerifierKey.parse(active_card(self._node, tx, partner).witness)
            origin = own_log(self._node, tx).name
        signed = checkpoint.verify_cosignature(body, key, origin)
        lines = _lines_of(body, key.name)
        require(len(lines) == 1, "cosignature: not exactly one line of this witness")
        size = signed.checkpoint.size
        with self._node.store.reading() as tx:
            stored = _stored_note(tx, size)
            kept = {row.partner: row.line for row in tx.witness.cosignatures(size)}
        # The text, not the root alone: a line stands under our note, whose every letter it signs.
        if stored is None or _text(stored) != signed.checkpoint.text():
            self._compare_own(partner, body)
            raise VerificationError("cosignature: not over a checkpoint of this log")
        if kept.get(partner) == lines[0]:
            return
        with self._node.store.transaction() as tx:
            tx.witness.put_cosignature(CosignatureRow(partner=partner, size=size, line=lines[0], at=signed.at))

    def note_of(self, size: int | None = None) -> bytes:
        """The newest checkpoint (or that of `size`) with every cosignature that we hold for it."""
        with self._node.store.reading() as tx:
            note = tx.log.latest_checkpoint() if size is None else _stored_note(tx, size)
            if note is None:
                raise NotFoundError("there is no checkpoint of this size")
            return _with_lines(tx, note)

    def cosigned_note(self) -> bytes:
        """The largest checkpoint that a partner cosigned, with every cosignature that we hold for it."""
        with self._node.store.reading() as tx:
            note = largest_cosigned(tx)
        if note is None:
            raise NotFoundError("no checkpoint is cosigned yet")
        return note

    # Inside

    def _known(self, contact: Contact, shown: bytes) -> list[str]:
        """What the log must extend. A head of before that its card's key does not verify is another key's."""
        known = [one for one in (contact.held, *contact.claims) if one]
        for one in known:
            try:
                _head(one, contact.key)
            except VerificationError:
                self._fork(contact, one, shown, "the log of the identity card is another one than before")
        return known

    def _keep(self, contact: Contact, shown: Shown) -> bool:
        """Keep what was verified; False when another node has kept something else meanwhile."""
        head, now = shown.head, self._node.clock()
        if contact.held and not contact.claims and head.size == _head(contact.held, contact.key).size:
            return True  # as before
        with self._node.store.transaction() as tx:
            row = tx.witness.log(contact.partner) or _new_row(contact.partner)
            if row.note != contact.held:
                return False
            row.origin, row.size, row.note, row.at = head.origin, head.size, shown.note.decode(), now
            row.since = row.since or now
            row.claims = _dump_claims(claim for claim in _claims(row) if claim not in contact.claims)
            tx.witness.put_log(row)
        return True

    def _prove(self, contact: Contact, known: str, shown: Shown, proofs: Mapping[Pair, Sequence[bytes]]) -> None:
        before, head = _head(known, contact.key), shown.head
        pair = before.size, head.size
        if pair not in shown.wanted:
            return  # `read` compared it: the same size, or an empty tree
        try:
            merkle.verify_consistency(*pair, before.root, head.root, proofs[pair])
        except ProofError as error:
            self._fork(contact, known, shown.note, f"forked: {error.message}")

    def _hear_told(self, told: ToldLog) -> None:
        try:
            contact = self.begin(told.agency)
            checkpoint.verify(told.note, contact.key, contact.key.name)
        except GatewayError:
            return  # nobody that we exchange with, or not its log: proves nothing against anybody
        with self._node.store.reading() as tx:
            row = tx.witness.log(told.agency)
        # Two administrators may have let a log begin anew: what was seen before that is settled.
        if row is None or told.at >= row.since:
            self._hear(contact, told.note)

    def _hear(self, contact: Contact, note: bytes) -> None:
        """A head that this log signed is compared where that is possible now, else kept for the next contact."""
        head = checkpoint.verify(note, contact.key, contact.key.name)
        note = _own_part(note, contact.key)
        for known in self._known(contact, note):
            before = _head(known, contact.key)
            if before.size == head.size:
                if not hmac.compare_digest(before.root, head.root):
                    self._fork(contact, known, note, "forked: two roots for one size")
                return
        with self._node.store.transaction() as tx:
            row = tx.witness.log(contact.partner) or _new_row(contact.partner)
            claims = sorted({*_claims(row), note.decode()}, key=lambda one: _head(one, contact.key).size)
            while len(claims) > MAX_CLAIMS:
                claims.pop(len(claims) // 2)  # the oldest and the newest reach farthest
            row.claims = _dump_claims(claims)
            tx.witness.put_log(row)

    def _compare_own(self, teller: str, note: bytes) -> None:
        """A head of our own log that our log does not hold raises an alarm: entries were lost, or the key was."""
        with self._node.store.reading() as tx:
            key = own_log(self._node, tx).verifier
        try:
            head = checkpoint.verify(note, key, key.name)
        except GatewayError:
            return  # we never signed it, or it is of a log that ended with a restore
        with self._node.store.reading() as tx:
            stored = _stored_note(tx, head.size)
        if stored is not None and _text(stored) == head.text():
            return
        with self._node.store.transaction() as tx:
            evidence = canonical.encode({"shown": _own_part(note, key).decode(), "told_by": teller}).decode()
            detail = "a partner holds a checkpoint of our log, signed by our key, that our log does not hold"
            raise_alarm(tx, self._node, AlarmKind.OWN_LOG, key.name, detail, evidence=evidence)

    def _fork(self, contact: Contact, held: str, shown: bytes, reason: str) -> NoReturn:
        """Put both heads on record, raise the alarm and pause the partner: together or not at all."""
        node, partner = self._node, contact.partner
        shown_text = shown[:MAX_HEAD_BYTES].decode("utf-8", "replace")  # of a foreign log it may be of any length
        notes = {"held_note": held, "shown_note": shown_text}
        sizes = {name: _size(note) for name, note in (("held_size", held), ("shown_size", shown_text))}
        details: dict[str, object] = {"partner": partner, "origin": contact.key.name, "reason": reason}
        details |= {name: value for name, value in (notes | sizes).items() if value not in ("", None)}
        evidence = canonical.encode(details).decode()
        with node.store.transaction() as tx:
            detail = f"the partner's audit log does not extend what was seen of it: {reason}"
            if raise_alarm(tx, node, AlarmKind.LOG_FORK, partner, detail, evidence=evidence) is not None:
                events = [node.event(EventKind.LOG_FORKED, actor=node.agency, subject=partner, details=details)]
                if tx.people.pause(partner, WITNESS, node.clock()):
                    why: dict[str, object] = {"partner": partner, "reason": "log_fork"}
                    events.append(node.event(EventKind.PAUSED, actor=node.agency, subject=partner, details=why))
                tx.log.append(events)
        error = VerificationError(f"the partner's audit log does not extend what was seen of it: {reason}")
        error.remedy = "exchange is paused; keep the evidence (`gateway alarm list`) and ask the partner"
        raise error


def largest_cosigned(tx: Transaction) -> bytes | None:
    """The largest checkpoint of ours that a partner cosigned, with every cosignature that we hold for it."""
    size = tx.witness.largest_cosigned()
    note = _stored_note(tx, size) if size else None
    return None if note is None else _with_lines(tx, note)


def is_forked(tx: Transaction, partner: str) -> bool:
    """Whether the partner's log was found forked and no two administrators have resumed the exchange since."""
    return tx.alarms.open(AlarmKind.LOG_FORK, partner) is not None


def begin_anew(tx: Transaction, node: Node, partner: str) -> None:
    """After a fork, the head last shown is what the partner's log must extend from now on; the alarm is closed.

    For the act by which two administrators resume the exchange: they have seen the evidence. Without a fork nothing
    changes. Where the head shown is not of the log in the partner's present card, the next one begins.
    """
    alarm = tx.alarms.open(AlarmKind.LOG_FORK, partner)
    if alarm is None:
        return
    tx.witness.forget(partner)
    evidence = canonical.parse_json(alarm.evidence.encode(), max_bytes=MAX_RECEIPT_BYTES)
    note = evidence.get("shown_note", "") if isinstance(evidence, dict) else ""
    try:
        key = VerifierKey.parse(card_in(get(node, tx, partner)).log)
        head = _head(str(note), key)
    except (MalformedError, VerificationError):
        pass
    else:
        now = node.clock()
        row = WitnessedLog(
            partner=partner, origin=head.origin, size=head.size, note=str(note), at=now, since=now, claims="[]"
        )
        tx.witness.put_log(row)
    close_alarm(tx, node, AlarmKind.LOG_FORK, partner)


def forget(tx: Transaction, node: Node, partner: str) -> None:
    """Nothing is held of the log of a partner that is removed; a fork of it is nobody's alarm any more."""
    tx.witness.forget(partner)
    close_alarm(tx, node, AlarmKind.LOG_FORK, partner)


def _head(note: str, key: VerifierKey) -> Checkpoint:
    return checkpoint.verify(note.encode(), key, key.name)


def _text(note: bytes) -> str:
    return note.decode().rpartition("\n\n")[0] + "\n"


def _lines_of(note: bytes, name: str) -> list[str]:
    """The signature lines of a key name, each with its line end."""
    lines = note.decode("utf-8", "replace").rpartition("\n\n")[2]
    return [f"{line}\n" for line in lines.split("\n") if line.startswith(f"— {name} ")]


def _own_part(note: bytes, key: VerifierKey) -> bytes:
    """The note without the lines of others: what is kept as evidence.

    Raises:
        TooLargeError: it is still larger than a head can be.
    """
    text, _, _ = note.decode("utf-8", "replace").rpartition("\n\n")
    own = f"{text}\n\n{''.join(_lines_of(note, key.name))}".encode()
    if len(own) > MAX_HEAD_BYTES:
        raise TooLargeError("checkpoint: larger than a head of a log can be")
    return own


def _size(note: str) -> int | None:
    """The tree size in a note that may be anything."""
    lines = note.split("\n", 2)
    number = lines[1] if len(lines) > 1 else ""
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 16 else None


def _new_row(partner: str) -> WitnessedLog:
    return WitnessedLog(partner=partner, origin="", size=0, note="", at=0, since=0, claims="[]", cosigned=0)


def _claims(row: WitnessedLog) -> tuple[str, ...]:
    value = canonical.parse_json(row.claims.encode(), max_bytes=MAX_RECEIPT_BYTES)
    return tuple(str(one) for one in value) if isinstance(value, list) else ()


def _dump_claims(claims: Iterable[str]) -> str:
    return canonical.encode(list(claims)).decode()


def _stored_note(tx: Transaction, size: int) -> bytes | None:
    found = next(tx.log.checkpoints(size - 1, size), None) if size else None
    return None if found is None else found.note


def _with_lines(tx: Transaction, note: bytes) -> bytes:
    size = _size(note.decode()) or 0
    for row in tx.witness.cosignatures(size)[:MAX_NOTE_LINES]:
        note = checkpoint.add_signature(note, row.line.encode())
    return note
