"""Damaged bytes for every parser that partners or files can reach.

    Fuzz(folder).run(seed, mutants)     # the same seed makes the same mutants

A parser may answer or refuse. Anything else is a failure: an exception that is no GatewayError, or an answer that takes
more than seconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

from factory import FakeClock, SeededRandom, befriend, card_of, drafts, make_node, make_set, signed_card_of
from gateway.adapters import READERS, read_hashes
from gateway.audit import verify_receipt
from gateway.columns import decode, parse_block
from gateway.crypto import age, canonical, checkpoint, dsse, envelope
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.interchange import MAX_PAGE_BYTES, START, FeedHead, parse_card, parse_mail, parse_page
from gateway.model import AdapterReport

SAMPLES = Path(__file__).parents[2] / "tests" / "data_adapters"
HUB, FOLLOWER = "XA-NCVI", "XB-NCVI"
MAX_SECONDS = 10.0  # of one mutant, on a busy machine: each has a few kilobytes
MAX_EDITS = 4  # a parser that survives one fault may stumble over two
TELLING = (
    b"\x00",
    b"\xff" * 8,
    b"-1",
    b"9" * 400,
    b'"',
    b"[" * 200,
    b"{",
    b"\n",
    b"\r\n",
    "\u202e\ud7ff".encode(),
    b"\xed\xa0\x80",
)


class Fuzz:
    """Valid documents of one small exchange, each with the parser that takes it."""

    def __init__(self, folder: Path) -> None:
        clock = FakeClock()
        nodes = [make_node(folder, name, clock=clock, random=SeededRandom(name)) for name in (HUB, FOLLOWER)]
        befriend(*nodes)
        self._nodes = nodes
        hub, follower = (Exchange(node) for node in nodes)
        name = make_set(hub, "identified", drafts(40, series="Blue Door", victim_ref="V-1"))
        head = hub.head_for(FOLLOWER, name)
        follower.take_head(HUB, head.body)
        page = hub.page_for(FOLLOWER, name, START)
        assert page is not None
        receipt = follower.accept(HUB, BytesIO(page.body)).body
        hub.mailbox.write(FOLLOWER, "note", {"subject": "a note"})
        mail = hub.mailbox_for(FOLLOWER, 0)
        assert mail is not None
        self._log = VerifierKey.parse(card_of(follower.node).log)
        with follower.node.store.reading() as tx:
            note = tx.log.latest_checkpoint()
        opened = {word: self._open(raw) for word, raw in (("head", head.body), ("page", page.body), ("mail", mail))}
        _, blocks = parse_page(BytesIO(opened["page"][1]))
        block = BytesIO()
        next(blocks).dump(block)
        self.documents: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
            "envelope": (page.body, self._open),
            "age": (head.body, lambda raw: age.open_stream(follower.node.keystore.opening_keys, BytesIO(raw)).read()),
            "dsse": (opened["head"][0], dsse.parse),
            "manifest": (dsse.parse(opened["page"][0]).unverified_payload, envelope.parse_manifest),
            "feed head": (opened["head"][1], FeedHead.parse),
            "page": (opened["page"][1], _whole_page),
            "block": (block.getvalue(), lambda raw: decode(parse_block(BytesIO(raw), max_bytes=MAX_PAGE_BYTES))),
            "mailbox": (opened["mail"][1], parse_mail),
            "identity card": (signed_card_of(nodes[0]), parse_card),
            "receipt": (receipt, lambda raw: verify_receipt(raw, self._log)),
            "checkpoint": (note, lambda raw: checkpoint.verify(raw, self._log, self._log.name)),
            "json": (opened["head"][1], lambda raw: canonical.parse_json(raw, max_bytes=1 << 20)),
            **_files(),
        }
        for word, (raw, parse) in self.documents.items():
            parse(raw)  # what is damaged below was sound
            assert raw, word

    def close(self) -> None:
        """Close the databases."""
        for node in self._nodes:
            node.store.close()

    def run(self, seed: int, mutants: int) -> Mapping[str, int]:
        """Damage every document so many times; returns how many mutants were taken all the same, by document."""
        source = random.Random(seed)
        taken = dict.fromkeys(self.documents, 0)
        for number in range(mutants):
            for word, (raw, parse) in self.documents.items():
                mutant = damaged(raw, source)
                start = time.monotonic()
                try:
                    parse(mutant)
                    taken[word] += 1
                except GatewayError:
                    pass
                except Exception as error:
                    raise AssertionError(f"{word}, mutant {number}: {type(error).__name__}: {error}") from error
                seconds = time.monotonic() - start
                assert seconds < MAX_SECONDS, f"{word}, mutant {number}: {seconds:.0f} s"
        return taken

    def _open(self, raw: bytes) -> tuple[bytes, bytes]:
        """(DSSE, payload) of an envelope for the follower."""
        hub, follower = self._nodes
        view = envelope.open_envelope(
            BytesIO(raw),
            follower.keystore.opening_keys,
            lambda _sender: (hub.keystore.signing_key.public,),
            now=follower.clock(),
            audiences=_Everybody(),
        )
        return view.dsse, view.read_payload(MAX_PAGE_BYTES)


class _Everybody(set[str]):
    """Every audience: what is for whom is not asked here."""

    def __contains__(self, _audience: object) -> bool:
        return True


def damaged(raw: bytes, source: random.Random) -> bytes:
    """The bytes after one or a few faults."""
    for _ in range(source.randrange(1, MAX_EDITS + 1)):
        at, to = sorted(source.randrange(len(raw) + 1) for _ in range(2))
        piece = raw[at : min(to, at + 64)]
        match source.randrange(7):
            case 0 if raw:
                at = min(at, len(raw) - 1)
                raw = raw[:at] + bytes([raw[at] ^ 1 << source.randrange(8)]) + raw[at + 1 :]
            case 1:
                raw = raw[:at] + raw[at + len(piece) :]
            case 2:
                raw = raw[:to] + piece + raw[to:]
            case 3:
                raw = raw[:at] + source.choice(TELLING) + raw[at:]
            case 4:
                raw = raw[:at] + source.choice(TELLING) + raw[at + len(piece) :]
            case 5:
                raw = raw[:at] + source.randbytes(len(piece)) + raw[at + len(piece) :]
            case 6 if not source.randrange(4):
                raw = raw[:at]
    return raw


def _whole_page(raw: bytes) -> None:
    _, blocks = parse_page(BytesIO(raw))
    for block in blocks:
        decode(block)


def _files() -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """A sample of each file format that can be imported."""
    samples = {
        "digest_list": "debian.md5sums",
        "gateway_csv": "hash-csv-1.csv",
        "icse_csv": "icse-export.csv",
        "stix": "stix-2.1-bundle.json",
        "vics": "vics-2.0-us.json",
    }
    assert samples.keys() == READERS.keys(), "a reader without a sample"

    def reader(form: str) -> Callable[[bytes], object]:
        return lambda raw: list(read_hashes(BytesIO(raw), form, AdapterReport(form)))

    return {form: ((SAMPLES / name).read_bytes(), reader(form)) for form, name in samples.items()}
