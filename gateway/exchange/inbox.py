"""What a TAXII client sends us: STIX objects into an own set of ours that is for what this partner sends.

Rules:

1. There is such a set only where people here have created it: `AGENCY/from-xb-ncvi`, or `AGENCY/test-from-xb-ncvi` for
   invented data, which is all that moves while the partner is under test. They gave it its purpose and legal basis.
2. Each object is read by `adapters.stix` and judged by `receive` of policy, over TLS alone, as the partner's own: for
   each label that it comes under there is a decision receipt before anything is taken. What is refused is refused by
   itself, named in the status, and counted in the log: one leaf for each request.
3. What is taken stands under embargo: it is looked up here, and goes to nobody. Who has looked at it imports it into
   another set.
4. An object that the partner sends revoked, or deletes, is withdrawn. Only its own can be met: a set has one sender. It
   is not listed as never again, or a partner could keep our own lists from listing something.
5. Sending the same again changes nothing. A crash between import and status loses the status alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO

from gateway.adapters import stix
from gateway.audit import EventKind
from gateway.columns.block import decode
from gateway.columns.rows import EXISTENCE, LOCAL_GROUP, Rows, grouped, same_values
from gateway.crypto import canonical
from gateway.errors import MalformedError, NotFoundError, OverloadedError
from gateway.exchange.collections import SURFACE, inbox_id, inboxes
from gateway.exchange.decisions import RECEIVE, Decisions, Site
from gateway.exchange.importing import ImportTally
from gateway.exchange.labels import LabelBook, SetDefaults
from gateway.exchange.ledger import Ledger
from gateway.exchange.shelf import Shelf, block_id
from gateway.model import AdapterReport, EntryDraft, Label, Restriction, Surface
from gateway.node import Node
from gateway.partners import active, active_card
from gateway.policy import Decision, LabelInSet, PartnerRef
from gateway.store import Transaction
from gateway.store.tables import HashSet, TaxiiStatus

MAX_OBJECTS = 5_000  # of one request
MAX_BODY_BYTES = 8 << 20
STATUS_SECONDS = 86_400  # for so long a client may ask what became of what it sent
STATUS_BYTES = 16
FORM = "stix"
MAX_VERSION_CHARS = 40
UNKNOWN_VERSION = "1970-01-01T00:00:00.000Z"  # where an object says none, as a status has to


@dataclass(slots=True)
class _Sent:
    """The objects of one request, sorted."""

    digest: str  # of the body, SHA-256
    count: int = 0
    drafts: list[EntryDraft] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)  # those of them that were listed until now
    versions: dict[str, str] = field(default_factory=dict)
    failures: list[dict[str, object]] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    def refuse(self, name: str, message: str, reason: str) -> None:
        """Note an object that was not taken, for the sender with its message, for the log by its reason."""
        version = self.versions.get(name, UNKNOWN_VERSION)
        self.failures.append({"id": name, "version": version, "message": message})
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


class Inbox:
    """Takes what TAXII clients send."""

    def __init__(self, node: Node, shelf: Shelf, ledger: Ledger) -> None:
        self._node = node
        self._shelf = shelf
        self._ledger = ledger
        self._decisions = Decisions(node)

    def take(self, partner: str, identifier: str, body: bytes) -> bytes:
        """Take the objects of an envelope; returns the status in canonical JSON.

        Raises:
            NotFoundError: the partner may write no such collection.
            MalformedError: the body is no envelope, or has too many objects.
        """
        now, hash_set = self._node.clock(), self._set(partner, identifier)
        # 1. Read, each object by itself.
        sent = _read(body)
        # 2. What policy does not let us take from this partner is left out; either way it is on record.
        taken = self._judged(partner, hash_set, sent)
        # 3. In one commit: the entries. A crash after this line loses the status: the client sends again.
        under_embargo = (one._replace(restrictions=_with_embargo(one)) for one in taken)
        tally = self._ledger.import_entries(hash_set.name, under_embargo, actor=partner, form=FORM)
        _leave_out_barred(sent, taken, tally)
        sent.gone = self._withdraw(partner, hash_set, sent.revoked)
        for name in sent.revoked:
            if name not in sent.gone:
                sent.refuse(name, "is revoked, and was never taken or is gone already", "revoked")
        # 4. What became of them.
        failed = {str(one["id"]) for one in sent.failures}
        names = [*(one.source_ref for one in taken if one.source_ref not in failed), *sorted(sent.gone)]
        return self._keep_status(partner, hash_set, now, sent, names)

    def status(self, partner: str, identifier: str) -> bytes:
        """What became of what a partner sent; NotFoundError for what it did not send, or too long ago."""
        with self._node.store.reading() as tx:
            active_card(self._node, tx, partner)
            row = tx.shown.status(identifier, partner)
        if row is None or row.at + STATUS_SECONDS < self._node.clock():
            raise NotFoundError("no such status")
        return row.content.encode()

    def delete(self, partner: str, identifier: str, name: str) -> None:
        """Withdraw an object that the partner sent; NotFoundError without one."""
        if not self._withdraw(partner, self._set(partner, identifier), [name]):
            raise NotFoundError("no such object")

    def _set(self, partner: str, identifier: str) -> HashSet:
        with self._node.store.reading() as tx:
            own = inboxes(self._node, tx, partner)
        hash_set = next((one for one in own if inbox_id(one.name) == identifier), None)
        if hash_set is None:
            raise NotFoundError("no such collection")
        return hash_set

    def _judged(self, partner: str, hash_set: HashSet, sent: _Sent) -> list[EntryDraft]:
        """Those of the drafts that policy lets us take."""
        defaults = SetDefaults.from_json(hash_set.defaults)
        with self._node.store.reading() as tx:
            ref = PartnerRef(partner, active_card(self._node, tx, partner).jurisdiction)
        words = list(dict.fromkeys(one.words for one in sent.drafts))
        labels = {
            number: LabelInSet(
                hash_set.name,
                replace(defaults.label(self._node, word), originator=ref.agency, jurisdiction=ref.jurisdiction),
            )
            for number, word in enumerate(words)
        }
        policy = self._node.policy
        decided = policy.receivable(ref, Surface.TLS_ONLY, labels)
        site = Site(hash_set.id or 0, hash_set.name, partner, RECEIVE, policy.digest, Surface.TLS_ONLY)
        self._record(site, {number: held.label for number, held in labels.items()}, decided)
        allowed = {word for number, word in enumerate(words) if decided[number].allowed}
        for one in sent.drafts:
            if one.words not in allowed:
                sent.refuse(one.source_ref, "policy does not let us take this", "policy")
        return [one for one in sent.drafts if one.words in allowed]

    def _record(self, site: Site, labels: Mapping[int, Label], decided: Mapping[int, Decision]) -> None:
        """What was decided of each label is on record; the policy that decided is still the one in force."""
        with self._node.store.transaction() as tx:
            active(self._node, tx, site.partner)
            if self._node.policy.digest != site.policy:
                raise OverloadedError("the policy is being changed", retry_after_seconds=1)
            book = LabelBook(self._node, tx, site.set_id, offered=True)
            numbers = book.numbers(labels.values())
            answers = {number: (book.digest(number), decided[at]) for number, at in zip(numbers, labels, strict=True)}
            self._decisions.record(tx, site, answers)

    def _withdraw(self, partner: str, hash_set: HashSet, names: Sequence[str]) -> set[str]:
        """Withdraw the entries that came under these names; returns the names of those that were listed."""
        if not names:
            return set()
        with self._shelf.reading(self._node.store) as tx:
            held = self._held(tx, hash_set, names)
        if held:
            self._ledger.take_back(hash_set.name, list(held.values()), actor=partner, reason="its sender took it back")
        return set(held)

    def _held(self, tx: Transaction, hash_set: HashSet, names: Sequence[str]) -> dict[str, int]:
        """The entries that are listed under these names."""
        assert hash_set.id is not None, "a stored set has an id"
        wanted = Rows.of(len(names), {"source_ref": list(names)})
        with self._shelf.index(tx, hash_set.id) as index:
            found = index.find("source_ref", wanted.text("source_ref"))
        places = dict(grouped(found.block_no.astype("uint64")))
        held: dict[str, int] = {}
        stored = list(tx.blocks.some(list(places)).values())
        for row, block in zip(stored, self._shelf.get_all(tx, stored, [EXISTENCE, LOCAL_GROUP]), strict=True):
            where = places[block_id(row)]
            rows = decode(block, ["entry_id", "source_ref"]).take(found.row[where])
            rows = rows.take(same_values(rows, wanted.take(found.query[where]), "source_ref"))
            held.update(zip(rows.text("source_ref").to_list(), rows.ints("entry_id").tolist(), strict=True))
        return held

    def _keep_status(self, partner: str, hash_set: HashSet, now: int, sent: _Sent, names: Iterable[str]) -> bytes:
        successes = [{"id": name, "version": sent.versions[name]} for name in dict.fromkeys(names)]
        identifier = _uuid(self._node.random.bytes(STATUS_BYTES))
        content: dict[str, object] = {
            "id": identifier,
            "status": "complete",
            "request_timestamp": f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%S}.000000Z",
            "total_count": len(successes) + len(sent.failures),
            "success_count": len(successes),
            "successes": successes,
            "failure_count": len(sent.failures),
            "failures": sent.failures,
            "pending_count": 0,
            "pendings": [],
        }
        raw = canonical.encode(content)
        with self._node.store.transaction() as tx:
            tx.shown.keep_status(
                TaxiiStatus(id=identifier, partner=partner, at=now, content=raw.decode()), now - STATUS_SECONDS
            )
            details: dict[str, object] = {
                "partner": partner,
                "surface": SURFACE,
                "set": hash_set.name,
                "objects": sent.count,
                "taken": len(successes) - len(sent.gone),
                "withdrawn": len(sent.gone),
                "refused": len(sent.failures),
                "reasons": dict(sorted(sent.reasons.items())),
                "body_digest": sent.digest,
                "policy": self._node.policy.digest,
            }
            kind, subject = EventKind.OBJECTS_RECEIVED, hash_set.name
            tx.log.append([self._node.event(kind, actor=partner, subject=subject, details=details)])
        return raw


def _read(body: bytes) -> _Sent:
    """The objects of an envelope, sorted into what is to be listed, what is to be withdrawn, and what is neither."""
    sent, report = _Sent(hashlib.sha256(body).hexdigest()), AdapterReport(FORM)
    for number, record in stix.objects_in(BytesIO(body), report):
        if number > MAX_OBJECTS:
            raise MalformedError("too many objects in one request", remedy=f"send at most {MAX_OBJECTS} at once")
        sent.count = number
        members = record if isinstance(record, dict) else {}
        name, version = members.get("id"), members.get("modified", members.get("created"))
        shown = name if isinstance(name, str) and stix.STIX_ID.fullmatch(name) else f"object {number}"
        fits = isinstance(version, str) and version.isprintable() and len(version) <= MAX_VERSION_CHARS
        sent.versions[shown] = str(version) if fits else UNKNOWN_VERSION
        if members.get("revoked") is True and shown == name:
            sent.revoked.append(shown)
            continue
        try:
            sent.drafts.append(stix.draft(record, report))
        except MalformedError as error:
            sent.refuse(shown, f"{error.place}: {error.message}", "object")
    if not sent.count and report.dropped_fields:
        raise MalformedError("this is no envelope", place="objects", remedy='send {"objects": […]}')
    return sent


def _leave_out_barred(sent: _Sent, taken: Sequence[EntryDraft], tally: ImportTally) -> None:
    """Of what was listed as never again the sender is told that it was not taken, and no more."""
    for one in tally.refusals:
        sent.refuse(taken[one.row - 1].source_ref, "is not taken here", "never_again")


def _with_embargo(one: EntryDraft) -> tuple[Restriction, ...]:
    return tuple(sorted({*one.restrictions, Restriction.EMBARGO}))


def _uuid(raw: bytes) -> str:
    """Random octets in the form of a UUIDv4 (RFC 9562 5.4)."""
    text = bytearray(raw)
    text[6], text[8] = text[6] & 0x0F | 0x40, text[8] & 0x3F | 0x80
    return f"{text[:4].hex()}-{text[4:6].hex()}-{text[6:8].hex()}-{text[8:10].hex()}-{text[10:].hex()}"
