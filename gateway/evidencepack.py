"""An evidence pack: leaves of the audit log with all that proves them, in one signed file.

    manifest.dsse     what is in the pack (canonical JSON: names and SHA-256), signed by the agency's signing key
    leaves.jsonl      index, entry, event and salt (unless erased), inclusion proof of each leaf
    checkpoint        the signed tree head to which the proofs lead
    cosigned          the largest tree head that partners cosigned, if there is any, and
    consistency.json  the proof that the checkpoint extends it
    log.vkey          the log's verifier string
    card.json         the agency's identity card, with the public half of its signing key

Contract: contracts/evidence-pack-1.md; verifier: scripts/verify_evidence.py, which no pack brings along, since whoever
is to be convinced takes it from elsewhere. What a pack shows is what the log says; that the log was never another one
is what cosignatures, and checkpoints kept elsewhere, show.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence

from gateway.audit import EventKind
from gateway.crypto import canonical, checkpoint, dsse
from gateway.errors import NotFoundError
from gateway.node import Node, own_log
from gateway.ownkeys import issued_card
from gateway.store import Transaction
from gateway.witness import largest_cosigned

MANIFEST_TYPE = "application/vnd.partner-exchange.evidence-pack+1"
VERSION = "evidence pack 1"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the one date of all files: a pack of the same leaves has the same bytes


def build_pack(node: Node, indexes: Sequence[int], *, by: str) -> bytes:
    """The pack of these leaves, as a ZIP file; that it was made is logged.

    Raises:
        NotFoundError: the log has no such leaf.
    """
    card = issued_card(node)
    with node.store.reading() as tx:
        key = own_log(node, tx).verifier
        note = tx.log.latest_checkpoint()
        head = checkpoint.verify(note, key, key.name)
        files = {
            "leaves.jsonl": b"".join(_line(tx, index, head.size) for index in indexes),
            "checkpoint": note,
            "log.vkey": f"{key}\n".encode(),
            "card.json": card,
            **_cosigned(tx, head.size),
        }
    digests = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    manifest = canonical.encode(
        {
            "pack": VERSION,
            "agency": node.agency,
            "log": key.name,
            "size": head.size,
            "leaves": len(indexes),
            "made": node.clock(),
            "files": digests,
        }
    )
    files["manifest.dsse"] = dsse.sign(MANIFEST_TYPE, manifest, node.keystore.signing_key)
    details: dict[str, object] = {
        "leaves": len(indexes),
        "size": head.size,
        "manifest_digest": hashlib.sha256(manifest).hexdigest(),
    }
    event = node.event(EventKind.EVIDENCE_PACKED, actor=by, subject=key.name, details=details)
    with node.store.transaction() as tx:
        tx.log.append([event])
    return _zipped(files)


def _line(tx: Transaction, index: int, size: int) -> bytes:
    row = next(iter(tx.log.leaves(index, index + 1)), None)
    if row is None or index >= size:
        raise NotFoundError("the log has no such entry", remedy="entries are named by their numbers, from 0 on")
    value = {
        "index": index,
        "entry": row.entry.hex(),
        "event": row.event_bytes.decode() if row.event_bytes else None,
        "salt": row.salt.hex() if row.salt else None,
        "proof": [one.hex() for one in tx.log.inclusion_proof(index, size)],
    }
    return canonical.encode(value) + b"\n"


def _cosigned(tx: Transaction, size: int) -> dict[str, bytes]:
    note = largest_cosigned(tx)
    if note is None:
        return {}
    old = int(note.split(b"\n")[1])
    proof = tx.log.consistency_proof(old, size) if old < size else ()
    return {"cosigned": note, "consistency.json": canonical.encode({"proof": [one.hex() for one in proof]})}


def _zipped(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), raw, zipfile.ZIP_DEFLATED)
    return sink.getvalue()
