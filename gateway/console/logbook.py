"""The exchange log for auditors: search, one leaf with its proof, samples, what changed since. Read-only.

A page shows metadata; the details of an event only when they are asked for. Proofs are checked in the browser
(`assets/proofs.js`), with the log's key and the largest checkpoint that this browser has verified before: what a
gateway shows of itself proves nothing by itself.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from gateway.audit import EventKind, parse_event
from gateway.console.pages import READERS_OF_THE_LOG, Answer, Data, Desk, Download, Page, Route, Visit, get, post
from gateway.crypto import checkpoint
from gateway.errors import GatewayError, MalformedError, NotFoundError
from gateway.eventwords import FACETS, about, outcome
from gateway.evidencepack import build_pack
from gateway.interchange import parse_card
from gateway.logsearch import Found, LogSearch
from gateway.node import own_log
from gateway.store import Transaction
from gateway.witness import WitnessDesk

MAX_SAMPLE = 50
MAX_SEED_CHARS = 64
MAX_PACK_LEAVES = 500
NUMBER_CHARS = 16
SHOWN_FACETS = ("partner", "set", "rule", "kind", "outcome")


def log(desk: Desk, visit: Visit) -> Answer:
    """The search."""
    search = LogSearch(desk.node)
    wanted = {name: visit.query.get(name, "").strip() for name in FACETS}
    since, until = visit.query.get("since", ""), visit.query.get("until", "")
    results = search.find(wanted, since=since, until=until, before=visit.number("before", 0, most=10**15))
    values = {
        "results": [_row(one) for one in results.leaves],
        "older": results.older,
        "indexed": results.indexed,
        "size": results.size,
        "wanted": {**wanted, "since": since, "until": until},
        "choices": {name: search.values(name) for name in SHOWN_FACETS},
        "kinds": [str(kind) for kind in EventKind],
    }
    return Page("log.html", values)


def leaf(desk: Desk, visit: Visit) -> Answer:
    """One leaf."""
    index = _index(visit.path["index"])
    row = LogSearch(desk.node).leaf(index)
    if row is None:
        raise NotFoundError("the log has no such entry")
    event = None if row.event_bytes is None else parse_event(row.event_bytes)
    values = {
        "index": index,
        "entry": row.entry.hex(),
        "is_block": row.entry[0] == 2,
        "event": event,
        "outcome": outcome(event) if event else "",
        "raw": row.event_bytes.decode() if row.event_bytes else "",
    }
    return Page("log_leaf.html", values)


def proof(desk: Desk, visit: Visit) -> Answer:
    """All that it takes to prove a leaf: the event, its salt, the path to a signed tree head, the key."""
    index = _index(visit.path["index"])
    row = LogSearch(desk.node).leaf(index)
    if row is None:
        raise NotFoundError("the log has no such entry")
    with desk.node.store.reading() as tx:
        key = own_log(desk.node, tx).verifier
        note = _witnessed(desk, index) or tx.log.latest_checkpoint()
        head = checkpoint.verify(note, key, key.name)
        path = tx.log.inclusion_proof(index, head.size)
        witnesses = _witnesses(tx)
    return Data(
        {
            "index": index,
            "entry": row.entry.hex(),
            "event": row.event_bytes.decode() if row.event_bytes else None,
            "salt": row.salt.hex() if row.salt else None,
            "proof": [one.hex() for one in path],
            "note": note.decode(),
            "key": str(key),
            "witnesses": witnesses,
        }
    )


def since(desk: Desk, visit: Visit) -> Answer:
    """What it takes to prove that the log of now extends one that somebody has kept."""
    old = visit.number("old", 0, most=10**15)
    with desk.node.store.reading() as tx:
        key = own_log(desk.node, tx).verifier
        note = tx.log.latest_checkpoint()
        head = checkpoint.verify(note, key, key.name)
        if old > head.size:
            raise NotFoundError("the log is shorter than that", remedy="keep what you have: it is evidence")
        path = tx.log.consistency_proof(old, head.size) if 0 < old < head.size else ()
        witnesses = _witnesses(tx)
    values = {"note": note.decode(), "key": str(key), "proof": [one.hex() for one in path], "witnesses": witnesses}
    return Data(values)


def unaltered(desk: Desk, _visit: Visit) -> Answer:
    """The page on which a browser proves that nothing was altered."""
    with desk.node.store.reading() as tx:
        key = own_log(desk.node, tx).verifier
        size = tx.log.size()
        dated = [(row.partner, row.size, row.at) for row in tx.witness.cosignatures()]
    return Page("log_unaltered.html", {"key": str(key), "size": size, "cosigned": dated})


def sample(desk: Desk, visit: Visit) -> Answer:
    """Leaves drawn by a seed: whoever has the seed and the size draws the same."""
    seed = visit.query.get("seed", "").strip()[:MAX_SEED_CHARS]
    count = visit.number("count", 10, most=MAX_SAMPLE)
    search = LogSearch(desk.node)
    with desk.node.store.reading() as tx:
        size = tx.log.size()
    size = min(visit.number("size", size, most=10**15) or size, size)
    rows = []
    for index in drawn(seed, size, count) if seed else []:
        found = search.leaf(index)
        assert found is not None, "a drawn index lies within the log"
        event = None if found.event_bytes is None else parse_event(found.event_bytes)
        rows.append(_row(Found(index, found.entry, event)))
    return Page("log_sample.html", {"seed": seed, "count": count, "size": size, "rows": rows})


def pack(desk: Desk, visit: Visit) -> Answer:
    """Leaves with their proofs as one signed file, to be verified without any gateway."""
    named = [part for part in visit.filled("leaves").replace(",", " ").split() if part]
    if not named:
        raise MalformedError("no entry is named")
    if len(named) > MAX_PACK_LEAVES:
        raise MalformedError(f"more than {MAX_PACK_LEAVES} entries in one pack", remedy="make several")
    indexes = sorted({_index(part) for part in named})
    raw = build_pack(desk.node, indexes, by=visit.session.person)
    return Download(raw, "application/zip", f"evidence-{desk.node.agency}-{desk.node.clock()}.zip")


def drawn(seed: str, size: int, count: int) -> list[int]:
    """`count` different indexes below `size`: SHA-256 over "log sample 1", seed, size and a counter, taken in turn."""
    found: list[int] = []
    counter = 0
    while len(found) < min(count, size):
        raw = hashlib.sha256(f"log sample 1\n{seed}\n{size}\n{counter}".encode()).digest()
        index = int.from_bytes(raw[:16], "big") % size  # 128 bits: no index is likelier by more than 2^-64
        if index not in found:
            found.append(index)
        counter += 1
    return sorted(found)


def _row(found: Found) -> dict[str, object]:
    event = found.event
    if event is None:
        kind = "block" if found.entry[0] == 2 else "erased"
        return {"index": found.index, "at": 0, "kind": kind, "actor": "", "subject": "", "about": "", "outcome": ""}
    return {
        "index": found.index,
        "at": event.at,
        "kind": str(event.kind),
        "actor": event.actor,
        "subject": event.subject,
        "about": about(event.details),
        "outcome": outcome(event),
    }


def _index(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > NUMBER_CHARS:
        raise MalformedError("an entry of the log is named by its number")
    return int(text)


def _witnessed(desk: Desk, index: int) -> bytes | None:
    """The largest checkpoint that partners cosigned, if this leaf is under it."""
    with suppress(NotFoundError):
        note = WitnessDesk(desk.node).cosigned_note()
        if int(note.split(b"\n")[1]) > index:
            return note
    return None


def _witnesses(tx: Transaction) -> list[str]:
    """The keys by which partners cosign, from their identity cards."""
    found = []
    for row in tx.people.partners():
        with suppress(GatewayError):
            found.append(parse_card(row.card.encode()).witness)
    return found


ROUTES: tuple[Route, ...] = (
    get("/log", log, READERS_OF_THE_LOG),
    get("/log/unaltered", unaltered, READERS_OF_THE_LOG),
    get("/log/since", since, READERS_OF_THE_LOG, data=True),
    get("/log/sample", sample, READERS_OF_THE_LOG),
    get("/log/entry/{index}", leaf, READERS_OF_THE_LOG),
    get("/log/entry/{index}/proof", proof, READERS_OF_THE_LOG, data=True),
    post("/log/pack", pack, READERS_OF_THE_LOG),
)
