"""Certificates for courts: issued by two people, only for what we assert ourselves, and revoked when we lower it.

The signed statement, the event of our log and the proof make one file (`gateway.certificates`). It is kept sealed,
since it names digests and a court's reference; the log names its id and its digest alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.approvals import Act, Arguments, Change
from gateway.audit import EventKind
from gateway.cases import lines
from gateway.cases.lines import Line
from gateway.cases.subjects import ENTRY, Marks, of_entries
from gateway.certificates import (
    CERTIFICATE_TYPE,
    REVOCATION_TYPE,
    Certificate,
    Proof,
    Revocation,
    bind,
    digest,
    digest_in,
    sign,
    statement_in,
)
from gateway.errors import ConflictError, DeniedError, NotFoundError
from gateway.exchange.shelf import Shelf
from gateway.model import MAX_TEXT_CHARS, require, text_member
from gateway.node import Node, own_log
from gateway.statuses import ID, Assertion, is_line
from gateway.store import Transaction
from gateway.store.tables import CertificateRow

ID_BYTES = 16
LOWERED = "the agency has lowered the status that it certified"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate of ours. `revoked`: when, 0 while it stands."""

    id: str
    assertion: str
    court_reference: str
    issued: int
    revoked: int
    file: bytes
    revocation: bytes


class Certificates:
    """What we have certified."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def issue(self, shelf: Shelf, set_name: str, entry: str, court_reference: str) -> tuple[str, Arguments]:
        """The act that certifies what we assert of an entry.

        Raises:
            ConflictError: we do not assert ourselves that the child is identified.
        """
        with self._node.store.reading() as tx:
            line = _of_entry(tx, self._node, shelf, set_name, entry)
        return "certificate_issue", {
            "assertion": line.id,
            "set": set_name,
            "entry": entry,
            "court_reference": court_reference,
        }

    def issue_for(self, assertion: str, court_reference: str) -> tuple[str, Arguments]:
        """The act that certifies all that an assertion of ours speaks of."""
        with self._node.store.reading() as tx:
            row = tx.statuses.beginning(assertion)
            line = _found(self._node, tx, row.number)
        return "certificate_issue", {"assertion": line.id, "set": "", "entry": "", "court_reference": court_reference}

    def all(self, prefix: str = "") -> list[Issued]:
        """Every certificate, or those whose id begins so, the newest first."""
        with self._node.store.reading() as tx:
            return [_opened(self._node, row) for row in tx.statuses.certificates(prefix)]

    def get(self, prefix: str) -> Issued:
        """The one certificate whose id begins so."""
        found = self.all(prefix)
        if len(found) != 1:
            raise NotFoundError("no such certificate", remedy="`gateway certificate list` names them")
        return found[0]

    def revoke(self, prefix: str, reason: str, *, actor: str) -> Issued:
        """Say of a certificate that it holds no more. One person does it: it takes nothing from anybody.

        Raises:
            ConflictError: it is revoked already.
        """
        require(is_line(reason), "a reason is one line, and needed")
        with self._node.store.transaction() as tx:
            rows = tx.statuses.certificates(prefix)
            if len(rows) != 1:
                raise NotFoundError("no such certificate", remedy="`gateway certificate list` names them")
            if rows[0].revoked:
                raise ConflictError("this certificate is revoked already")
            _revoke(tx, self._node, rows[0], reason, actor)
        return self.get(rows[0].id)

    def follow(self, tx: Transaction, assertion: Assertion) -> tuple[str, ...]:
        """What was certified on the strength of an assertion of ours is revoked, where it says less now; the ids."""
        if assertion.is_found:
            return ()
        rows = [row for row in tx.statuses.certificates(of=(assertion.id,)) if not row.revoked]
        for row in rows:
            _revoke(tx, self._node, row, LOWERED, self._node.agency)
        return tuple(row.id for row in rows)


def _issue(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    line = _asked(tx, node, arguments)
    digests = _digests(tx, node, arguments, line)
    now, one = node.clock(), line.assertion
    certificate = Certificate(
        node.random.bytes(ID_BYTES).hex(),
        node.agency,
        one.id,
        one.version,
        one.status,
        one.at,
        now,
        text_member(dict(arguments), "court_reference"),
        digests,
    )
    statement = certificate.dump()
    signed = sign(statement, CERTIFICATE_TYPE, node.keystore.signing_key)
    details: dict[str, object] = {
        "certificate": certificate.id,
        "assertion": one.id,
        "version": one.version,
        "digest": digest(statement),
        "digests": len(digests),
        "proposal": proposal,
    }
    file = _bound(tx, node, signed, EventKind.CERTIFICATE_ISSUED, (node.agency, details))
    sealed = node.keystore.master_key.seal(file, _context(certificate.id, "certificate"), node.random)
    tx.statuses.add_certificate(CertificateRow(id=certificate.id, number=one.id, issued=now, sealed=sealed))


def _revoke(tx: Transaction, node: Node, row: CertificateRow, reason: str, actor: str) -> None:
    statement = Revocation(row.id, digest_in(_opened(node, row).file), node.agency, node.clock(), reason).dump()
    signed = sign(statement, REVOCATION_TYPE, node.keystore.signing_key)
    details: dict[str, object] = {"certificate": row.id, "assertion": row.number, "digest": digest(statement)}
    file = _bound(tx, node, signed, EventKind.CERTIFICATE_REVOKED, (actor, details))
    sealed = node.keystore.master_key.seal(file, _context(row.id, "revocation"), node.random)
    tx.statuses.revoke_certificate(row.id, node.clock(), sealed)


def _bound(tx: Transaction, node: Node, signed: bytes, kind: EventKind, said: tuple[str, dict[str, object]]) -> bytes:
    """The file of a signed statement, once its event stands in the log."""
    actor, details = said
    event = node.event(kind, actor=actor, subject=node.agency, details=details)
    index = tx.log.append([event])
    leaf, size = next(tx.log.leaves(index, index + 1)), tx.log.size()
    assert leaf.salt is not None, "an event has a salt"
    proof = Proof(
        own_log(node, tx).name, index, size, tx.log.inclusion_proof(index, size), tx.log.checkpoint(), leaf.salt
    )
    return bind(signed, event, proof)


def _asked(tx: Transaction, node: Node, arguments: Arguments) -> Line:
    members = dict(arguments)
    return _found(node, tx, text_member(members, "assertion"))


def _digests(tx: Transaction, node: Node, arguments: Arguments, line: Line) -> tuple[tuple[str, str], ...]:
    """The digests that a certificate speaks of: of the entry that it names, or of the whole subject."""
    set_name, entry = (text_member(dict(arguments), name) for name in ("set", "entry"))
    assert line.subject is not None
    pairs = line.subject.digests
    if entry:
        shelf = Shelf(node.keystore.master_key, node.random)
        own = of_entries(tx, shelf, set_name, [entry]).subject.digests
        if not own <= pairs:
            raise ConflictError(
                "the entry has digests that our assertion does not speak of",
                remedy="assert its status again: `gateway status set`",
            )
        pairs = own
    if not pairs:
        raise ConflictError("there is no cryptographic digest to certify")
    return tuple(sorted((name, value.hex()) for name, value in pairs))


def _found(node: Node, tx: Transaction, number: str) -> Line:
    line = lines.find(node, tx, node.agency, number)
    if line is None or line.subject is None:
        raise DeniedError("only what this agency asserts itself is certified")
    if not line.assertion.is_found:
        raise ConflictError("we do not assert that this child is identified", remedy="`gateway status show`")
    return line


def _of_entry(tx: Transaction, node: Node, shelf: Shelf, set_name: str, entry: str) -> Line:
    marks = Marks(node.keystore)
    subject = of_entries(tx, shelf, set_name, [entry]).subject
    wanted = {mark for mark, kind in marks.of_subject(subject).items() if kind == ENTRY}
    found = [number for _, agency, number in tx.statuses.meeting(wanted) if agency == node.agency]
    if not found:
        raise ConflictError(
            "this agency asserts nothing of this entry", remedy="`gateway status set`, if you have identified the child"
        )
    return _found(node, tx, found[0])


def _issue_subject(arguments: Arguments) -> str:
    names = {"assertion", "set", "entry", "court_reference"}
    require(set(arguments) == names, "a guarded act with other arguments than it takes")
    number, _, _, reference = (
        text_member(dict(arguments), name) for name in ("assertion", "set", "entry", "court_reference")
    )
    require(ID.fullmatch(number), "certificate: the assertion is not 32 hex digits")
    require(is_line(reference) and len(reference) <= MAX_TEXT_CHARS, "the court's reference is one line, and needed")
    return f"assertion {number[:12]}"


def _issue_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    line = _asked(tx, node, arguments)
    digests = _digests(tx, node, arguments, line)
    return [
        Change("certified", "", f"a child is {line.assertion.status} behind {len(digests)} digests"),
        Change("for", "", text_member(dict(arguments), "court_reference")),
        *([Change("entry", "", f"{arguments['entry']} of {arguments['set']}")] if arguments["entry"] else []),
    ]


def _opened(node: Node, row: CertificateRow) -> Issued:
    key = node.keystore.master_key
    file = key.open(row.sealed, _context(row.id, "certificate"))
    revocation = key.open(row.sealed_revocation, _context(row.id, "revocation")) if row.revoked else b""
    reference = str(statement_in(file)["court_reference"])
    return Issued(row.id, row.number, reference, row.issued, row.revoked, file, revocation)


def _context(number: str, what: str) -> str:
    return f"{what} {number}"


CERTIFICATE_ACTS: Mapping[str, Act] = {
    "certificate_issue": Act(
        "certify for a court that a child is identified", _issue_subject, _issue, _issue_difference
    ),
}
