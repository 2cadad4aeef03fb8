"""What the audit log records, and how anyone can prove it: entries, checkpoints, the whole-log check, receipts.

Each change in the gateway and its log entries commit in one transaction, and one checkpoint is signed for each such
transaction. A log entry, which is what a leaf of the RFC 6962 tree hashes, is 33 bytes:

    0x01 ‖ SHA-256( "event 1" 0x0A ‖ salt(32) ‖ canonical event )     a commitment: the event itself lies beside the log
    0x02 ‖ block digest                                               the content is the block

Because the entry is a salted commitment, an event can be erased by law, and every proof goes on holding. Erasing is
itself recorded (`event_erased`), so that a missing event without such a record is a fault.

An event, in canonical JSON, with the members that `contracts/audit-events.md` lists for its kind:

    {"actor":"XA-NCVI","at":1795000000,"details":{"changes":3,…},"kind":"push_received","subject":"XA-NCVI/found"}

A checkpoint of this log carries one extension line, `previous N`: the size of the checkpoint signed before it. So no
row of the checkpoint table can vanish unseen, though any later checkpoint would still verify.

`verify_log` reads the three tables once, in order, in constant memory, and names the first leaf that does not hold.
`verify_receipt` needs nothing but the receipt and the log's verifier key; `scripts/verify_receipt.py` does the same
without this program.

What this cannot show: a rewrite by someone who holds the log's signing key, unless a checkpoint or a receipt from
before is kept outside. That is what receipts and witnesses are for.

Contracts: contracts/log-1.md, contracts/receipt-1.md, contracts/audit-events.md.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.crypto import canonical, checkpoint, merkle
from gateway.crypto.checkpoint import Checkpoint, CheckpointKey, VerifierKey
from gateway.errors import AuditBrokenError, GatewayError, MalformedError, VerificationError
from gateway.model import int_member, require, text_member, texts_member

SALT_BYTES = 32
ENTRY_BYTES = 33
MAX_EVENT_BYTES = 64 * 1024  # counts, ids and rule names; whoever needs more is logging content
MAX_RECEIPT_BYTES = 256 * 1024  # an event in JSON in JSON, a proof of 63 hashes, a checkpoint
MAX_EVENT_TEXT_CHARS = 256  # actor and subject: an agency code, a set, a key id
MAX_EVENT_TIME = 253_402_300_799  # the last second of the year 9999: what can be shown as a date
RECEIPT_VERSION = "receipt 1"

_EVENT_DOMAIN = b"event 1\n"
_EVENT_TYPE, _BLOCK_TYPE = 0x01, 0x02
_HEX32 = re.compile(r"[0-9a-f]{64}")


class EventKind(StrEnum):
    """All that is recorded. The list is closed: a new kind is a new line here and in contracts/audit-events.md."""

    GATEWAY_INITIALISED = "gateway_initialised"
    ADMINISTRATOR_ADDED = "administrator_added"
    PROPOSAL_MADE = "proposal_made"
    PROPOSAL_SIGNED = "proposal_signed"
    PROPOSAL_EXECUTED = "proposal_executed"
    PROPOSAL_REFUSED = "proposal_refused"
    PARTNER_ADDED = "partner_added"
    PARTNER_SUSPENDED = "partner_suspended"
    PARTNER_REMOVED = "partner_removed"
    SET_CREATED = "set_created"
    ENTRIES_IMPORTED = "entries_imported"
    ENTRIES_WITHDRAWN = "entries_withdrawn"
    PAGE_SENT = "page_sent"
    PAGE_SERVED = "page_served"
    SURFACE_PAGE_SERVED = "surface_page_served"
    SURFACE_VALUE_SERVED = "surface_value_served"
    OBJECTS_RECEIVED = "objects_received"
    OPINION_RECEIVED = "opinion_received"
    OPINION_GIVEN = "opinion_given"
    ALLOW_LIST_CHANGED = "allow_list_changed"
    CATEGORY_TABLE_ACTIVATED = "category_table_activated"
    OPINION_HEARD = "opinion_heard"
    LARGE_VALUE_KEPT = "large_value_kept"
    LARGE_VALUES_DROPPED = "large_values_dropped"
    PAGE_APPLIED = "page_applied"
    PUSH_RECEIVED = "push_received"
    RECEIPT_STORED = "receipt_stored"
    ROWS_REFUSED = "rows_refused"
    MESSAGE_REFUSED = "message_refused"
    FEED_HEAD_ISSUED = "feed_head_issued"
    VIEW_CHANGED = "view_changed"
    SHARE_DECIDED = "share_decided"
    LOOK_UP = "look_up"
    MAILBOX_SENT = "mailbox_sent"
    MAILBOX_RECEIVED = "mailbox_received"
    PAUSED = "paused"
    RESUMED = "resumed"
    POLICY_ACTIVATED = "policy_activated"
    LEGAL_HOLD_SET = "legal_hold_set"
    LEGAL_HOLD_KEEPS = "legal_hold_keeps"
    LEGAL_HOLD_ENDED = "legal_hold_ended"
    POLICY_SCHEDULED = "policy_scheduled"
    POLICY_UNSCHEDULED = "policy_unscheduled"
    SYNC_FAILED = "sync_failed"
    SOURCE_FAILED = "source_failed"
    TOKEN_REFUSED = "token_refused"  # noqa: S105 - a word of the log, not a secret
    KEY_CHANGED = "key_changed"
    CHECKPOINT_COSIGNED = "checkpoint_cosigned"
    LOG_VERIFIED = "log_verified"
    EVENT_ERASED = "event_erased"
    ADMINISTRATOR_REMOVED = "administrator_removed"
    QUORUM_CHANGED = "quorum_changed"
    PARTNER_TEST_LIFTED = "partner_test_lifted"
    PARTNER_CARD_CHANGED = "partner_card_changed"
    CARD_ISSUED = "card_issued"
    KEY_SEEN = "key_seen"
    ALARM_RAISED = "alarm_raised"
    ALARM_CLOSED = "alarm_closed"
    LOG_FORKED = "log_forked"
    SURFACE_CHANGED = "surface_changed"
    SECRET_CHANGED = "secret_changed"  # noqa: S105 - a word of the log, not a secret
    BACKUP_CREATED = "backup_created"
    BACKUP_RESTORED = "backup_restored"
    GATEWAY_RESTORED = "gateway_restored"
    PARTNER_RESTORED = "partner_restored"
    SET_COMPARED = "set_compared"
    SUMS_CORRECTED = "sums_corrected"
    ENTRIES_RECOVERED = "entries_recovered"
    EPOCH_BEGUN = "epoch_begun"
    ENTRIES_ERASED = "entries_erased"
    ENTRIES_PURGED = "entries_purged"
    NEVER_AGAIN_CHANGED = "never_again_changed"
    BLOCKS_COMPACTED = "blocks_compacted"
    ONWARD_COPIED = "onward_copied"
    FILE_EXPORTED = "file_exported"
    WITHDRAWAL_BEGUN = "withdrawal_begun"
    WITHDRAWAL_ANSWERED = "withdrawal_answered"
    CASE_CHANGED = "case_changed"
    PASSKEY_ADDED = "passkey_added"
    PASSKEY_REMOVED = "passkey_removed"
    CONSOLE_CHANGED = "console_changed"
    CONSOLE_SESSION = "console_session"
    CONSOLE_REFUSED = "console_refused"
    CASE_SENT = "case_sent"
    CASE_HEARD = "case_heard"
    EVIDENCE_PACKED = "evidence_packed"
    STATUS_ASSERTED = "status_asserted"
    STATUS_SHARED = "status_shared"
    STATUS_RECEIVED = "status_received"
    SEARCH_RESUMED = "search_resumed"
    CLAIM_CONFLICT = "claim_conflict"
    CLAIM_ANSWERED = "claim_answered"
    SERIES_MERGED = "series_merged"
    SERIES_SPLIT = "series_split"
    SERIES_OFFERED = "series_offered"
    SERIES_DECLINED = "series_declined"
    CERTIFICATE_ISSUED = "certificate_issued"
    CERTIFICATE_REVOKED = "certificate_revoked"
    CASE_RELEASED = "case_released"


_MESSAGE = ("sender", "message_id", "manifest_digest")
_PAGE = ("set", "epoch", "from_seq", "until_seq", "view", "page_digest", "changes")

_CASE_MAIL = (
    *("case", "partner", "thread", "message", "sequence", "word"),
    *("version", "report_digest", "groups", "purpose", "urgency"),
)

# Which details an event of each kind may hold. An allow-list, so that no entry digest, case text or name of a person
# can slip into a record that outlives the data.
MEMBERS: Mapping[EventKind, frozenset[str]] = {
    EventKind.GATEWAY_INITIALISED: frozenset({"agency", "jurisdiction", "origin", "key_ids", "quorum", "demo"}),
    EventKind.ADMINISTRATOR_ADDED: frozenset({"administrator", "key_id", "quorum", "proposal"}),
    EventKind.PASSKEY_ADDED: frozenset({"administrator", "key_id", "proposal"}),
    EventKind.PASSKEY_REMOVED: frozenset({"administrator", "key_id", "proposal"}),
    EventKind.CONSOLE_CHANGED: frozenset({"person", "deed", "roles", "key_id", "expires"}),
    EventKind.CONSOLE_SESSION: frozenset({"session", "deed", "key_id", "reason"}),
    EventKind.EVIDENCE_PACKED: frozenset({"leaves", "size", "manifest_digest"}),
    EventKind.CONSOLE_REFUSED: frozenset({"person", "reason", "count"}),
    EventKind.PROPOSAL_MADE: frozenset({"proposal", "deed", "digest", "expires"}),
    EventKind.PROPOSAL_SIGNED: frozenset({"proposal", "deed", "digest", "key_id", "signatures", "quorum"}),
    EventKind.PROPOSAL_EXECUTED: frozenset({"proposal", "deed", "digest", "key_ids"}),
    EventKind.PROPOSAL_REFUSED: frozenset({"proposal", "deed", "digest", "key_id", "reason"}),
    EventKind.PARTNER_ADDED: frozenset({"partner", "jurisdiction", "card_digest", "key_ids", "test", "proposal"}),
    EventKind.PARTNER_SUSPENDED: frozenset({"partner", "reason", "proposal"}),
    EventKind.PARTNER_REMOVED: frozenset({"partner", "reason", "proposal"}),
    EventKind.SET_CREATED: frozenset({"set", "epoch", "purpose"}),
    EventKind.ENTRIES_IMPORTED: frozenset(
        {"set", "epoch", "from_seq", "until_seq", "format", "read", "accepted", "refused", "dropped", "blocks"}
    ),
    EventKind.ENTRIES_WITHDRAWN: frozenset(
        {"set", "epoch", "from_seq", "until_seq", "changes", "reason", "order_ref", "proposal", "blocks"}
    ),
    EventKind.BLOCKS_COMPACTED: frozenset({"set", "epoch", "old", "new", "changes", "forgotten"}),
    EventKind.WITHDRAWAL_BEGUN: frozenset(
        {"withdrawal", "kind", "set", "epoch", "until_seq", "entries", "holders", "due", "order_ref"}
    ),
    EventKind.CASE_CHANGED: frozenset({"case", "deed", "version", "state", "missing", "format", "stated", "partner"}),
    EventKind.CASE_SENT: frozenset({*_CASE_MAIL, "proposal"}),
    EventKind.CASE_HEARD: frozenset({*_CASE_MAIL, "outcome", "reason"}),
    EventKind.CASE_RELEASED: frozenset({"case", "form", "digest", "proposal"}),
    EventKind.WITHDRAWAL_ANSWERED: frozenset({"withdrawal", "holder", "via", "outcome", "entries"}),
    EventKind.ONWARD_COPIED: frozenset({"set", "epoch", "from_seq", "until_seq", "changes", "blocks"}),
    EventKind.PAGE_SENT: frozenset({"partner", "message_id", "manifest_digest", "withheld", *_PAGE}),
    EventKind.PAGE_SERVED: frozenset({"partner", "message_id", "manifest_digest", "withheld", *_PAGE}),
    EventKind.SURFACE_PAGE_SERVED: frozenset(
        {"partner", "surface", "sets", "after", "until", "start", "entries", "deleted", "page_digest", "policy"}
    ),
    EventKind.SURFACE_VALUE_SERVED: frozenset(
        {"partner", "surface", "set", "entry", "version", "algorithm", "octets", "policy"}
    ),
    EventKind.LARGE_VALUE_KEPT: frozenset({"set", "octets"}),
    EventKind.LARGE_VALUES_DROPPED: frozenset({"set", "values"}),
    EventKind.OBJECTS_RECEIVED: frozenset(
        {"partner", "surface", "set", "objects", "taken", "withdrawn", "refused", "reasons", "body_digest", "policy"}
    ),
    EventKind.STATUS_ASSERTED: frozenset({"assertion", "version", "status", "marks"}),
    EventKind.STATUS_SHARED: frozenset({"assertion", "version", "partner", "outcome", "groups", "rules", "policy"}),
    EventKind.STATUS_RECEIVED: frozenset({"assertion", "version", "status", "marks", "entries"}),
    EventKind.SEARCH_RESUMED: frozenset({"assertion", "version", "partner"}),
    EventKind.CLAIM_CONFLICT: frozenset({"claim", "partner", "outcome"}),
    EventKind.CLAIM_ANSWERED: frozenset({"claim", "partner", "outcome"}),
    EventKind.SERIES_MERGED: frozenset({"merge", "version", "origin", "proposal"}),
    EventKind.SERIES_SPLIT: frozenset({"merge", "version", "origin", "proposal"}),
    EventKind.SERIES_OFFERED: frozenset({"merge", "version", "origin"}),
    EventKind.SERIES_DECLINED: frozenset({"merge", "version", "origin"}),
    EventKind.CERTIFICATE_ISSUED: frozenset({"certificate", "assertion", "version", "digest", "digests", "proposal"}),
    EventKind.CERTIFICATE_REVOKED: frozenset({"certificate", "assertion", "digest"}),
    EventKind.OPINION_RECEIVED: frozenset(
        {"partner", "surface", "set", "entry", "version", "algorithm", "verdict", "reasons"}
    ),
    EventKind.ALLOW_LIST_CHANGED: frozenset(
        {"list", "name", "state", "digests", "refused", "list_head", "reason", "proposal"}
    ),
    EventKind.CATEGORY_TABLE_ACTIVATED: frozenset({"scheme", "version", "table", "previous", "proposal"}),
    EventKind.OPINION_GIVEN: frozenset({"set", "verdict", "reason", "number", "entries", "entry"}),
    EventKind.OPINION_HEARD: frozenset({"partner", "set", "verdict", "reason", "number", "entries", "taken"}),
    EventKind.PAGE_APPLIED: frozenset({*_MESSAGE, "refused", "blocks", *_PAGE}),
    EventKind.SET_COMPARED: frozenset(
        {"set", "partner", "labels", "differing", "only_here", "only_there"}
        | {"arrived", "offered", "corrected", "outcome", "entries"}
    ),
    EventKind.SUMS_CORRECTED: frozenset({"set", "corrected"}),
    EventKind.ENTRIES_RECOVERED: frozenset(
        {*_MESSAGE, "set", "epoch", "from_seq", "until_seq", "blocks"}
        | {"recovered", "joined", "withdrawn", "known", "refused", "reasons"}
    ),
    EventKind.EPOCH_BEGUN: frozenset({"set", "epoch", "carried", "blocks"}),
    EventKind.PUSH_RECEIVED: frozenset({*_MESSAGE, "refused", "blocks", *_PAGE}),
    EventKind.RECEIPT_STORED: frozenset(
        {"partner", "message_id", "manifest_digest", "origin", "leaf_index", "tree_size"}
    ),
    EventKind.ROWS_REFUSED: frozenset({"set", "partner", "message_id", "format", "refused", "reasons", "policy"}),
    EventKind.MESSAGE_REFUSED: frozenset({*_MESSAGE, "payload_type", "error", "reason"}),
    EventKind.FEED_HEAD_ISSUED: frozenset({"partner", "set", "epoch", "seq", "view", "head_digest", "expires"}),
    EventKind.VIEW_CHANGED: frozenset({"partner", "set", "old_view", "new_view", "started", "stopped"}),
    EventKind.SHARE_DECIDED: frozenset(
        {"partner", "surface", "set", "action", "label", "outcome", "groups", "rules", "obligations", "policy"}
        | {"case", "purpose"}
    ),
    EventKind.LOOK_UP: frozenset(
        {"partner", "purpose", "case_ref", "asked", "answered", "distance", "policy", "rules"}
    ),
    EventKind.MAILBOX_SENT: frozenset({"partner", "sequence", "message_id", "manifest_digest", "payload_type"}),
    EventKind.MAILBOX_RECEIVED: frozenset({*_MESSAGE, "sequence", "payload_type", "report_digest"}),
    EventKind.PAUSED: frozenset({"partner", "reason"}),
    EventKind.RESUMED: frozenset({"partner", "reason", "proposal"}),
    EventKind.POLICY_ACTIVATED: frozenset({"policy", "previous", "key_ids", "started", "stopped", "proposal"}),
    EventKind.LEGAL_HOLD_SET: frozenset({"hold", "set", "entries", "order_ref", "reason", "until", "proposal"}),
    EventKind.LEGAL_HOLD_KEEPS: frozenset({"hold", "set", "entries"}),
    EventKind.LEGAL_HOLD_ENDED: frozenset({"hold", "set", "entries", "reason", "proposal"}),
    EventKind.POLICY_SCHEDULED: frozenset({"policy", "on", "key_ids", "proposal"}),
    EventKind.POLICY_UNSCHEDULED: frozenset({"policy", "on", "proposal", "reason"}),
    EventKind.SOURCE_FAILED: frozenset({"set", "error", "reason", "attempts", "next_run"}),
    EventKind.SYNC_FAILED: frozenset({"partner", "set", "error", "reason", "attempts", "next_run"}),
    EventKind.TOKEN_REFUSED: frozenset({"partner", "error", "reason"}),
    EventKind.KEY_CHANGED: frozenset(
        {"owner", "key_id", "purpose", "number", "old_state", "new_state", "reason", "since", "proposal"}
    ),
    EventKind.CHECKPOINT_COSIGNED: frozenset({"origin", "size", "witness"}),
    EventKind.LOG_VERIFIED: frozenset({"size", "checkpoints", "outside", "erased"}),
    EventKind.EVENT_ERASED: frozenset({"first", "last", "reason", "order_ref", "proposal"}),
    EventKind.ADMINISTRATOR_REMOVED: frozenset({"administrator", "key_id", "quorum", "proposal"}),
    EventKind.QUORUM_CHANGED: frozenset({"old", "new", "proposal"}),
    EventKind.PARTNER_TEST_LIFTED: frozenset({"partner", "proposal"}),
    EventKind.PARTNER_CARD_CHANGED: frozenset({"partner", "number", "card_digest", "key_ids"}),
    EventKind.CARD_ISSUED: frozenset({"number", "card_digest", "key_ids"}),
    EventKind.KEY_SEEN: frozenset({"partner", "number", "signing_number"}),
    EventKind.ALARM_RAISED: frozenset({"alarm", "kind", "level"}),
    EventKind.ALARM_CLOSED: frozenset({"alarm", "kind"}),
    EventKind.LOG_FORKED: frozenset(
        {"partner", "origin", "held_size", "shown_size", "held_note", "shown_note", "reason"}
    ),
    EventKind.SURFACE_CHANGED: frozenset({"partner", "surface", "open", "proposal"}),
    EventKind.SECRET_CHANGED: frozenset({"partner", "surface", "secret", "state", "expires"}),
    EventKind.ENTRIES_ERASED: frozenset({"set", "epoch", "entries", "rows", "rewritten", "order_ref", "proposal"}),
    EventKind.ENTRIES_PURGED: frozenset({"set", "epoch", "entries", "rows", "rewritten", "labels", "duties"}),
    EventKind.NEVER_AGAIN_CHANGED: frozenset(
        {"deed", "listings", "listed", "list_head", "set", "order_ref", "reason", "proposal"}
    ),
    EventKind.BACKUP_CREATED: frozenset({"size", "digest", "origin", "log_size", "recipients"}),
    EventKind.BACKUP_RESTORED: frozenset({"created", "digest", "origin", "log_size"}),
    EventKind.GATEWAY_RESTORED: frozenset(
        {"agency", "origin", "old_origin", "old_size", "old_root", "old_note"}
        | {"witnessed_size", "witnessed_note", "proposal", "key_ids", "standing"}
    ),
    EventKind.FILE_EXPORTED: frozenset(
        {"set", "partner", "form", "surface", "policy", "epoch", "seq", "entries", "left_out", "labels", "withheld"}
        | {"size", "digest", "manifest_digest"}
    ),
    EventKind.PARTNER_RESTORED: frozenset(
        {"partner", "origin", "old_origin", "old_size", "held_size", "held_note", "statement", "key_ids"}
    ),
}

RECEIPT_KINDS = (EventKind.PUSH_RECEIVED, EventKind.PAGE_APPLIED, EventKind.MAILBOX_RECEIVED)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `at` is Unix seconds; `actor` who did it; `subject` what it was done to.

    An event that was read may hold details that only a newer program knows; one that is written may not.

    Raises:
        MalformedError: a time out of range, or a text that is empty or too long.
    """

    kind: EventKind
    at: int
    actor: str
    subject: str
    details: dict[str, object]

    def __post_init__(self) -> None:
        require(0 <= self.at <= MAX_EVENT_TIME, "event: the time is out of range")
        require(0 < len(self.actor) <= MAX_EVENT_TEXT_CHARS, "event: actor is empty or too long")
        require(len(self.subject) <= MAX_EVENT_TEXT_CHARS, "event: subject is too long")

    def encode(self) -> bytes:
        """The canonical bytes that an entry commits to.

        Raises:
            MalformedError: a detail that the kind does not know, a value that canonical JSON cannot hold, too large.
        """
        unknown = sorted(set(self.details) - MEMBERS[self.kind])
        require(not unknown, f"event: {self.kind} has no detail named {', '.join(map(str, unknown))}")
        raw = canonical.encode(
            {
                "kind": str(self.kind),
                "at": self.at,
                "actor": self.actor,
                "subject": self.subject,
                "details": self.details,
            }
        )
        require(len(raw) <= MAX_EVENT_BYTES, "event: too large")
        return raw


@dataclass(frozen=True, slots=True)
class LeafRow:
    """One row of the leaf table. `event_bytes` and `salt` are None for a block, and after erasure."""

    index: int
    entry: bytes
    event_bytes: bytes | None = None
    salt: bytes | None = None


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One row of the checkpoint table: the size under which it is kept, and the signed note."""

    size: int
    note: bytes


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a whole-log check found in order. `erased` counts events that were erased on record."""

    size: int
    root: bytes
    events: int
    blocks: int
    erased: int
    checkpoints: int
    outside: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A verified receipt: the log with this origin holds, at `leaf_index`, that the message was taken in."""

    origin: str
    message_id: str
    manifest_digest: str
    sender: str
    event: Event
    leaf_index: int
    leaf_hash: bytes
    checkpoint: Checkpoint


def parse_event(raw: bytes) -> Event:
    """The event whose canonical bytes these are; another spelling, another member beside `details`, or an unknown kind
    is refused."""
    value = canonical.parse_canonical(raw, max_bytes=MAX_EVENT_BYTES)
    if not isinstance(value, dict) or set(value) != {"kind", "at", "actor", "subject", "details"}:
        raise MalformedError("event: members are not those of the contract")
    members: dict[str, object] = dict(value)
    details = value["details"]
    if not isinstance(details, dict):
        raise MalformedError("event: details is not an object")
    try:
        kind = EventKind(text_member(members, "kind"))
    except ValueError as error:
        raise MalformedError("event: an unknown kind") from error
    actor, subject = text_member(members, "actor"), text_member(members, "subject")
    return Event(kind, int_member(members, "at"), actor, subject, dict(details))


def event_entry(event: Event | bytes, salt: bytes) -> bytes:
    """The log entry that commits to an event (or to its canonical bytes) without showing it."""
    require(len(salt) == SALT_BYTES, "event: the salt is not 32 bytes long")
    raw = event.encode() if isinstance(event, Event) else event
    return bytes([_EVENT_TYPE]) + hashlib.sha256(_EVENT_DOMAIN + salt + raw).digest()


def block_entry(digest: bytes) -> bytes:
    """The log entry that stands for a column block."""
    require(len(digest) == merkle.HASH_BYTES, "block: the digest is not 32 bytes long")
    return bytes([_BLOCK_TYPE]) + digest


def publish(origin: str, size: int, root: bytes, key: CheckpointKey, *, previous: int) -> bytes:
    """The checkpoint for one transaction, to store in that transaction; `previous` is the size before it."""
    require(0 <= previous < size, "checkpoint: it does not continue the one before")
    return checkpoint.sign(origin, size, root, key, extensions=(_previous_line(previous),))


# The whole log -------------------------------------------------------------------------------------------------------


def verify_log(
    rows: Iterable[LeafRow],
    nodes: Iterable[merkle.Node],
    checkpoints: Iterable[CheckpointRow],
    key: VerifierKey,
    outside: Iterable[bytes] = (),
) -> LogReport:
    """Returns what the log holds if every row of its three tables is in place and unaltered.

    Constant memory in the size of the log (it grows with `outside` and with the number of erased ranges).

    Args:
        rows: the leaf table, by index.
        nodes: the node table as (level, index, hash), by ((index + 1) << level, level): the order in which nodes come
            to be. Level 0 repeats the leaf hashes.
        checkpoints: the checkpoint table, by size.
        key: the log's verifier key; its name is the log's origin.
        outside: signed notes and receipts of this log that were kept elsewhere.

    Raises:
        AuditBrokenError: something was edited, deleted, moved, put back or cut off; `index` is the first leaf that
            does not hold, or the first of the range in which the fault lies, as the message then says.
        MalformedError, VerificationError: what was kept outside is itself no evidence.
    """
    evidence = _Evidence(outside, key)
    heads = _Heads(checkpoints, key)
    stored = _StoredNodes(nodes)
    erasures = _Erasures()
    frontier = merkle.Frontier()
    events = blocks = 0
    for row in rows:
        index = frontier.size
        _verify_row(row, index)
        if row.entry[0] == _BLOCK_TYPE:
            blocks += 1
        else:
            events += 1
            erasures.note(row)
        leaf = merkle.leaf_hash(row.entry)
        evidence.verify_leaf(index, leaf)
        for node in frontier.append(leaf):
            stored.verify(node)
        heads.verify(frontier)
        evidence.verify_root(frontier)
    stored.finish(frontier.size)
    heads.finish(frontier.size)
    evidence.finish(frontier.size)
    erasures.finish()
    return LogReport(frontier.size, frontier.root(), events, blocks, erasures.count, heads.verified, evidence.count)


def _verify_row(row: LeafRow, index: int) -> None:
    if row.index != index:
        raise AuditBrokenError("audit log: a leaf is missing, repeated or out of order", index=index)
    if len(row.entry) != ENTRY_BYTES or row.entry[0] not in (_EVENT_TYPE, _BLOCK_TYPE):
        raise AuditBrokenError("audit log: the entry of a leaf has no known form", index=index)
    if row.event_bytes is None and row.salt is None:
        return
    if row.event_bytes is None or row.salt is None or len(row.salt) != SALT_BYTES:
        raise AuditBrokenError("audit log: an event without its salt, or a salt without its event", index=index)
    if not hmac.compare_digest(event_entry(row.event_bytes, row.salt), row.entry):
        raise AuditBrokenError("audit log: the event is not the one its leaf commits to", index=index)


class _StoredNodes:
    """Compares the node table with the nodes that the leaves ask for."""

    def __init__(self, nodes: Iterable[merkle.Node]) -> None:
        self._nodes = iter(nodes)

    def verify(self, expected: merkle.Node) -> None:
        found = next(self._nodes, None)
        if found is not None and tuple(found) == expected:
            return
        level, index, _ = expected
        if level == 0:
            raise AuditBrokenError("audit log: a leaf and its tree node differ", index=index)
        raise AuditBrokenError(
            f"audit log: tree node {index} of level {level} is missing or altered; the fault lies in the nodes over "
            f"leaves {index << level} to {((index + 1) << level) - 1}",
            index=index << level,
        )

    def finish(self, size: int) -> None:
        if next(self._nodes, None) is not None:
            raise AuditBrokenError("audit log: the tree has nodes beyond the last leaf", index=size)


class _Heads:
    """Compares the checkpoint table with the roots on the way; reads one checkpoint ahead."""

    def __init__(self, rows: Iterable[CheckpointRow], key: VerifierKey) -> None:
        self._rows = iter(rows)
        self._key = key
        self._covered = 0  # size of the last checkpoint that held
        self.verified = 0
        self._next = self._read()

    def verify(self, frontier: merkle.Frontier) -> None:
        """Compare at the sizes that have a checkpoint."""
        head = self._next
        if head is None or head.size != frontier.size:
            return
        if not hmac.compare_digest(head.root, frontier.root()):
            raise AuditBrokenError(
                f"audit log: leaves and nodes agree with each other but not with the signed checkpoint of size "
                f"{head.size}; the first altered leaf lies in {self._covered} to {head.size - 1}",
                index=self._covered,
            )
        self._covered = head.size
        self.verified += 1
        self._next = self._read()

    def finish(self, size: int) -> None:
        if self._next is not None:
            raise AuditBrokenError(
                f"audit log: it ends before the signed checkpoint of size {self._next.size}; the first leaf that is "
                f"missing or altered lies in {self._covered} to {size}",
                index=self._covered,
            )
        if size > self._covered:
            raise AuditBrokenError("audit log: no checkpoint covers the leaves at the end", index=self._covered)

    def _read(self) -> Checkpoint | None:
        row = next(self._rows, None)
        if row is None:
            return None
        try:
            head = checkpoint.verify(row.note, self._key, self._key.name)
        except GatewayError as error:
            raise AuditBrokenError(
                f"audit log: the checkpoint after size {self._covered} does not verify", index=self._covered
            ) from error
        if head.size != row.size or head.extensions != (_previous_line(self._covered),):
            raise AuditBrokenError(
                f"audit log: a checkpoint after size {self._covered} is missing, repeated or out of order",
                index=self._covered,
            )
        return head


class _Evidence:
    """Checkpoints and receipts kept outside, verified first, then compared with the log on the way."""

    def __init__(self, outside: Iterable[bytes], key: VerifierKey) -> None:
        heads: list[Checkpoint] = []
        self._leaves: dict[int, bytes] = {}
        for raw in outside:
            if raw.startswith(b"{"):
                receipt = verify_receipt(raw, key)
                heads.append(receipt.checkpoint)
                known = self._leaves.setdefault(receipt.leaf_index, receipt.leaf_hash)
                if known != receipt.leaf_hash:
                    raise AuditBrokenError(
                        "audit log: two receipts of this log differ in one leaf", index=receipt.leaf_index
                    )
            else:
                heads.append(checkpoint.verify(raw, key, key.name))
        self.count = len(heads)
        self._heads = sorted((head for head in heads if head.size), key=lambda head: head.size, reverse=True)
        self._agreed = 0

    def verify_leaf(self, index: int, leaf: bytes) -> None:
        expected = self._leaves.get(index) if self._leaves else None
        if expected is not None and not hmac.compare_digest(expected, leaf):
            raise AuditBrokenError("audit log: a leaf differs from a receipt kept outside", index=index)

    def verify_root(self, frontier: merkle.Frontier) -> None:
        while self._heads and self._heads[-1].size == frontier.size:
            if not hmac.compare_digest(self._heads.pop().root, frontier.root()):
                raise AuditBrokenError(
                    f"audit log: rewritten since a checkpoint of size {frontier.size} was kept outside; the first "
                    f"altered leaf lies in {self._agreed} to {frontier.size - 1}",
                    index=self._agreed,
                )
            if not self._heads or self._heads[-1].size != frontier.size:
                self._agreed = frontier.size

    def finish(self, size: int) -> None:
        if self._heads:
            raise AuditBrokenError(
                f"audit log: cut off; a checkpoint kept outside shows {self._heads[0].size} leaves", index=size
            )


class _Erasures:
    """Missing events must each be covered by a later `event_erased`."""

    _MARK = b'"kind":"' + EventKind.EVENT_ERASED.encode() + b'"'

    def __init__(self) -> None:
        self.count = 0
        self._gone: list[list[int]] = []  # [first, last], ascending, never touching
        self._recorded: list[tuple[int, int]] = []

    def note(self, row: LeafRow) -> None:
        if row.event_bytes is None:
            self.count += 1
            if self._gone and self._gone[-1][1] == row.index - 1:
                self._gone[-1][1] = row.index
            else:
                self._gone.append([row.index, row.index])
        elif self._MARK in row.event_bytes:
            self._record(row.index, row.event_bytes)

    def finish(self) -> None:
        recorded = _merged(self._recorded)
        for first, last in self._gone:
            unexplained = _first_outside(first, last, recorded)
            if unexplained is not None:
                raise AuditBrokenError("audit log: an event is gone, and no record says why", index=unexplained)

    def _record(self, index: int, raw: bytes) -> None:
        try:
            event = parse_event(raw)
            if event.kind is not EventKind.EVENT_ERASED:
                return
            first, last = int_member(event.details, "first"), int_member(event.details, "last")
        except MalformedError as error:
            raise AuditBrokenError("audit log: the record of an erasure cannot be read", index=index) from error
        if first <= last < index:  # a record cannot excuse its own absence, nor what is yet to happen
            self._recorded.append((first, last))


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers as ascending ranges that do not touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _first_outside(first: int, last: int, ranges: list[tuple[int, int]]) -> int | None:
    """The first number of first..last that no range holds."""
    for begin, end in ranges:
        if begin <= first <= end:
            return None if last <= end else end + 1
    return first


def _previous_line(size: int) -> str:
    return f"previous {size}"


# Receipts ------------------------------------------------------------------------------------------------------------


def build_receipt(
    event: Event, salt: bytes, *, origin: str, leaf_index: int, tree_size: int, proof: Sequence[bytes], note: bytes
) -> bytes:
    """The receipt for a message that was taken in.

    Args:
        event: the `push_received` or `page_applied` event, as logged; it names sender, message and manifest.
        salt: the salt of its entry.
        origin: the log.
        leaf_index, tree_size, proof: where the entry stands in the tree that `note` is the checkpoint of.
        note: the signed checkpoint of the same transaction, or of a later one.
    """
    require(event.kind in RECEIPT_KINDS, "receipt: no receipt is given for an event of this kind")
    return canonical.encode(
        {
            "receipt": RECEIPT_VERSION,
            "origin": origin,
            "message_id": text_member(event.details, "message_id"),
            "manifest_digest": text_member(event.details, "manifest_digest"),
            "sender": text_member(event.details, "sender"),
            "event": event.encode().decode(),
            "salt": salt.hex(),
            "leaf_index": leaf_index,
            "tree_size": tree_size,
            "proof": [value.hex() for value in proof],
            "checkpoint": note.decode(),
        }
    )


def verify_receipt(raw: bytes, key: VerifierKey, *, manifest_digest: str | None = None) -> Receipt:
    """The receipt, once it is proved that this log holds the event and that the event speaks of this message.

    Args:
        raw: the receipt as received.
        key: the log's verifier key, from the partner's identity card and not from the receipt.
        manifest_digest: lower hex SHA-256 of the manifest that was sent, if at hand.

    Raises:
        MalformedError: not a receipt.
        VerificationError: of another log, another message, or not signed by the log.
        ProofError: the log does not hold the event.
    """
    members = _parse_receipt(raw)  # 1 the form
    origin = text_member(members, "origin")
    head = checkpoint.verify(text_member(members, "checkpoint").encode(), key, origin)  # 2 the log signed the tree
    if head.size != int_member(members, "tree_size"):
        raise VerificationError("receipt: the checkpoint is of a tree of another size")
    event_bytes = text_member(members, "event").encode()
    leaf = merkle.leaf_hash(event_entry(event_bytes, _hex(members, "salt")))  # 3 the leaf commits to the event
    proof = [_parse_hex(value, "proof") for value in texts_member(members, "proof")]
    index = int_member(members, "leaf_index")
    merkle.verify_inclusion(leaf, index, head.size, proof, head.root)  # 4 the tree holds the leaf
    event = parse_event(event_bytes)
    _verify_same_message(members, event)  # 5 the event speaks of the message that the receipt names
    digest = text_member(members, "manifest_digest")
    if manifest_digest is not None and not hmac.compare_digest(digest, manifest_digest):  # 6 and that is ours
        raise VerificationError("receipt: for another message")
    message_id, sender = text_member(members, "message_id"), text_member(members, "sender")
    return Receipt(origin, message_id, digest, sender, event, index, leaf, head)


def origin_of_receipt(raw: bytes) -> str:
    """The log that a receipt names; nothing is verified.

    Raises:
        MalformedError: not a receipt.
    """
    return text_member(_parse_receipt(raw), "origin")


_RECEIPT_MEMBERS = frozenset(
    {"receipt", "origin", *_MESSAGE, "event", "salt", "leaf_index", "tree_size", "proof", "checkpoint"}
)


def _parse_receipt(raw: bytes) -> dict[str, object]:
    value = canonical.parse_canonical(raw, max_bytes=MAX_RECEIPT_BYTES)
    if not isinstance(value, dict) or set(value) != _RECEIPT_MEMBERS:
        raise MalformedError("receipt: members are not those of the contract")
    if value["receipt"] != RECEIPT_VERSION:
        raise MalformedError("receipt: of a version that is not known here")
    members: dict[str, object] = dict(value)
    _hex(members, "manifest_digest")
    return members


def _verify_same_message(members: dict[str, object], event: Event) -> None:
    if event.kind not in RECEIPT_KINDS:
        raise VerificationError("receipt: the event is not that of a message taken in")
    for name in _MESSAGE:
        if event.details.get(name) != members[name]:
            raise VerificationError("receipt: the event speaks of another message")


def _hex(members: dict[str, object], name: str) -> bytes:
    return _parse_hex(text_member(members, name), name)


def _parse_hex(text: str, name: str) -> bytes:
    require(_HEX32.fullmatch(text), f"receipt: {name} is not 32 bytes in lower-case hex")
    return bytes.fromhex(text)
