#!/usr/bin/env python3
"""Check an evidence pack with nothing but this file, verify_receipt.py beside it, Python 3.11 and `cryptography`.

    verify_evidence.py PACK --log-key VERIFIER-STRING [--fingerprint HEX] [--checkpoint FILE]
                       [--witness VERIFIER-STRING …] [--show]

PACK            the pack as it was handed over (contracts/evidence-pack-1.md): a ZIP file.
--log-key       the log's verifier string, from the agency's identity card that you hold: origin+hex+base64.
--fingerprint   the fingerprint of that identity card, as read aloud; without it the card in the pack is taken as it is.
--checkpoint    a checkpoint of the same log that you kept: the pack's must be of the same size, and say the same.
--witness       a partner's witness key, from its identity card: the pack's `cosigned` tree must bear its signature.
--show          print each event that the pack proves.

Each step prints one line. Exit 0: everything holds. Exit 4: it does not, and the last line says why. Exit 2: the
command line is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import struct
import sys
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from verify_receipt import (
    EVENT_MEMBERS,
    LAST_SECOND,
    LogKey,
    NotVerified,
    Printer,
    TreeHead,
    canonical,
    decoded,
    fail,
    hash_of,
    number,
    parse_base64,
    parse_canonical,
    parse_log_key,
    printable,
    read,
    require,
    text,
    verify_checkpoint,
    verify_consistency,
    verify_inclusion,
)

MAX_PACK_BYTES = 64 << 20
MAX_FILE_BYTES = 64 << 20
MAX_RATIO = 200  # of a file to its compressed form; text of hex digits is packed to a third
NAMES = {"manifest.dsse", "leaves.jsonl", "checkpoint", "log.vkey", "card.json"}
MAY_BE = {"cosigned", "consistency.json"}
MANIFEST_TYPE = "application/vnd.partner-exchange.evidence-pack+1"
CARD_TYPE = "application/vnd.partner-exchange.identity-card+2"
MANIFEST_MEMBERS = {"pack", "agency", "log", "size", "leaves", "made", "files"}
LEAF_MEMBERS = {"index", "entry", "event", "salt", "proof"}
ENTRY = re.compile(r"0[12][0-9a-f]{64}")
LOCAL_BYTES, END_BYTES = 30, 22  # of a ZIP file: what stands before a file, and at the end of all
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Keys(NamedTuple):
    """The two public keys of an agency, and what they are called by."""

    ed25519: bytes
    mldsa65: bytes

    @property
    def ids(self) -> tuple[str, str]:
        return key_id("Ed25519", self.ed25519), key_id("ML-DSA-65", self.mldsa65)


def key_id(algorithm: str, public: bytes) -> str:
    parts = (algorithm.encode(), public)
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()


def open_pack(path: Path) -> dict[str, bytes]:
    raw = read(path, MAX_PACK_BYTES, "pack")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            require(len(names) == len(set(names)), "a file stands twice in the pack")
            require(NAMES <= set(names) <= NAMES | MAY_BE, "the pack has not the files of the contract")
            for entry in entries:
                small = entry.file_size <= MAX_FILE_BYTES and entry.file_size <= MAX_RATIO * max(1, entry.compress_size)
                require(small, "a file of the pack is too large")
            require_plain(raw, archive)
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise NotVerified("the pack is not a ZIP file that can be read") from error


def require_plain(raw: bytes, archive: zipfile.ZipFile) -> None:
    """Whoever opens the pack with another tool sees the same files: nothing stands before, between or behind them."""
    at = 0
    for entry in sorted(archive.infolist(), key=lambda one: one.header_offset):
        plain = entry.compress_type in PLAIN and not entry.flag_bits and not entry.extra and not entry.comment
        require(plain and entry.header_offset == at, "the pack holds more than its files")
        names, extra = struct.unpack("<HH", raw[at + 26 : at + LOCAL_BYTES])
        require(extra == 0, "the pack holds more than its files")
        at += LOCAL_BYTES + names + entry.compress_size
    end = raw[-END_BYTES:]
    size, start, comment = struct.unpack("<IIH", end[12:])
    whole = start == archive.start_dir == at and start + size + END_BYTES == len(raw) and comment == 0
    require(whole and end.startswith(b"PK\x05\x06"), "the pack holds more than its files")


def verify_dsse(raw: bytes, kind: str, what: str, keys: Keys | None) -> tuple[bytes, Keys]:
    """The payload, signed by exactly these two keys; of a card (`keys` None) by the two that it names itself."""
    envelope = parse_canonical(raw, what)
    require(set(envelope) == {"payload", "payloadType", "signatures"}, f"the {what} is no signed document")
    require(envelope["payloadType"] == kind, f"the {what} was signed as something else")
    payload = parse_base64(text(envelope, "payload"), f"the {what}")
    if keys is None:
        named = parse_canonical(payload, what).get("signing")
        if not isinstance(named, dict) or set(named) != {"Ed25519", "ML-DSA-65"}:
            fail(f"the {what} names no signing keys")
        keys = Keys(parse_base64(text(named, "Ed25519"), "a key"), parse_base64(text(named, "ML-DSA-65"), "a key"))
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    found = envelope["signatures"]
    if not isinstance(found, list) or len(found) != 2:
        fail(f"the {what} has not exactly two signatures")
    formed = all(isinstance(one, dict) and set(one) == {"keyid", "sig"} for one in found)
    require(formed, f"a signature of the {what} has not the members of the contract")
    by_id = {text(one, "keyid"): parse_base64(text(one, "sig"), "a signature") for one in found}
    require(set(by_id) == set(keys.ids), f"the {what} is signed by other keys")
    try:
        Ed25519PublicKey.from_public_bytes(keys.ed25519).verify(by_id[keys.ids[0]], message)
        MLDSA65PublicKey.from_public_bytes(keys.mldsa65).verify(by_id[keys.ids[1]], message)
    except (InvalidSignature, ValueError) as error:
        raise NotVerified(f"a signature of the {what} is wrong") from error
    return payload, keys


def verify_leaf(line: bytes, head: TreeHead) -> tuple[int, str]:
    """The index, and what is to be shown, of a leaf that the tree holds."""
    leaf = parse_canonical(line, "leaf")
    require(set(leaf) == LEAF_MEMBERS, "a leaf has not the members of the contract")
    index = number(leaf, "index")
    require(ENTRY.fullmatch(text(leaf, "entry")), f"the entry of leaf {index} has no known form")
    entry = bytes.fromhex(text(leaf, "entry"))
    words = "a block of hash entries" if entry[0] == 2 else "an event that the pack does not show: erased, it says"
    if leaf["event"] is None:
        require(leaf["salt"] is None, f"leaf {index} has a salt for no event")
    else:
        raw = text(leaf, "event").encode()
        commitment = hashlib.sha256(b"event 1\n" + hash_of(leaf["salt"], "salt") + raw).digest()
        require(entry == b"\x01" + commitment, f"the event of leaf {index} is not the one that its entry commits to")
        words = shown(parse_canonical(raw, "event"))
    proof = leaf["proof"]
    if not isinstance(proof, list):
        fail("proof is not a list")
    hashes = [hash_of(value, "a hash of the proof") for value in proof]
    verify_inclusion(hashlib.sha256(b"\x00" + entry).digest(), index, head, hashes)
    return index, words


def verify(options: argparse.Namespace, printer: Printer) -> None:
    key = parse_log_key(options.log_key)
    files = open_pack(options.pack)

    card_payload, keys = verify_dsse(files["card.json"], CARD_TYPE, "identity card", None)
    card = parse_canonical(card_payload, "identity card")
    require({"agency", "signing", "log", "witness"} <= set(card), "the identity card has not its members")
    require(card["log"] == options.log_key, "the identity card in the pack names another log than the log key")
    if options.fingerprint is not None:
        given = options.fingerprint.replace(" ", "").lower()
        require(given == fingerprint(card), "the identity card in the pack has another fingerprint")
    printer.ok(f"the identity card is of {printable(text(card, 'agency'))} and names this log")

    payload, _ = verify_dsse(files["manifest.dsse"], MANIFEST_TYPE, "manifest", keys)
    manifest = parse_canonical(payload, "manifest")
    require(set(manifest) == MANIFEST_MEMBERS, "the manifest has not the members of the contract")
    require(manifest["pack"] == "evidence pack 1", "the pack is of a version that is not known here")
    require(manifest["agency"] == card["agency"] and manifest["log"] == key.name, "the manifest is of another log")
    number(manifest, "made")
    require(files["log.vkey"] == f"{options.log_key}\n".encode(), "log.vkey is of another log than the log key")
    digests = manifest["files"]
    others = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items() if name != "manifest.dsse"}
    require(digests == others, "the files of the pack are not those that were signed")
    printer.ok(f"{printable(text(card, 'agency'))} signed this pack of {len(others)} files")

    head = verify_checkpoint(decoded(files["checkpoint"]), key)
    require(head.size == number(manifest, "size"), "the checkpoint is of another size than the manifest says")
    printer.ok(f"the log {key.name} signed its tree of {head.size} entries")
    require(
        ("cosigned" in files) == ("consistency.json" in files), "a cosigned tree without its proof, or a proof alone"
    )
    require(not options.witness or "cosigned" in files, "no partner has cosigned a tree of this pack")
    if "cosigned" in files:
        old = verify_cosigned(files, key, head)
        printer.ok(f"it begins with a tree of {old.size} entries; who has cosigned that, --witness shows")
    for witness in options.witness:
        name, at = verify_cosignature(decoded(files["cosigned"]), witness)
        printer.ok(f"{printable(name)} cosigned that tree on {datetime.fromtimestamp(at, UTC):%Y-%m-%d}")
    if options.checkpoint is not None:
        kept = verify_checkpoint(decoded(read(options.checkpoint, 1_000_000, "checkpoint")), key)
        require(kept == head, "the checkpoint that you kept is not the pack's: ask for a pack against it")
        printer.ok("it is the tree of the checkpoint that you kept")

    lines = files["leaves.jsonl"].splitlines()
    require(len(lines) == number(manifest, "leaves"), "the pack holds another number of leaves than the manifest says")
    last = -1
    for line in lines:
        index, words = verify_leaf(line, head)
        require(index > last, "the leaves are not in order")
        last = index
        if options.show:
            print(f"  {index}: {words}")
    printer.ok(f"the tree holds all of its {len(lines)} leaves")


def verify_cosigned(files: dict[str, bytes], key: LogKey, head: TreeHead) -> TreeHead:
    old = verify_checkpoint(decoded(files["cosigned"]), key)
    members = parse_canonical(files["consistency.json"], "consistency proof")
    require(set(members) == {"proof"}, "the consistency proof has not the members of the contract")
    proof = members["proof"]
    if not isinstance(proof, list):
        fail("the consistency proof is not a list")
    verify_consistency(old, head, [hash_of(value, "a hash of the consistency proof") for value in proof])
    return old


def verify_cosignature(note: str, witness: str) -> tuple[str, int]:
    """Who cosigned a note, and when: https://c2sp.org/tlog-cosignature, with an Ed25519 key of kind 4."""
    name, identifier, encoded = [*witness.split("+", 2), "", ""][:3]
    key = parse_base64(encoded, "the witness key")
    require(len(key) == 33 and key[0] == 4, "the witness key is not an Ed25519 cosigner's")
    key_id = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    require(key_id.hex() == identifier, "the id in the witness key belongs to another key")
    body, _, lines = note.rpartition("\n\n")
    signed = [line.split(" ")[1:] for line in lines[:-1].split("\n")]  # `verify_checkpoint` has read them before
    found = [parse_base64(signature, "a signature") for signer, signature in signed if signer == name]
    raw = next((one for one in found if one[:4] == key_id and len(one) == 4 + 8 + 64), b"")
    require(raw, "this witness has not cosigned the tree")
    at = int.from_bytes(raw[4:12], "big")
    require(at <= LAST_SECOND, "a cosignature of no time that there is")
    try:
        said = f"cosignature/v1\ntime {at}\n{body}\n".encode()
        Ed25519PublicKey.from_public_bytes(key[1:]).verify(raw[12:], said)
    except (InvalidSignature, ValueError) as error:
        raise NotVerified("a cosignature is wrong") from error
    return name, at


def fingerprint(card: dict[str, object]) -> str:
    """What people read aloud of a card (contracts/identity-card-2.md), without its spaces."""
    lasting = {name: card[name] for name in ("agency", "signing", "log", "witness")}
    return hashlib.sha256(b"identity-card 2\n" + canonical(lasting).encode()).hexdigest()[:40]


def shown(event: dict[str, object]) -> str:
    require(set(event) == EVENT_MEMBERS, "an event has not the members of the contract")
    seconds = number(event, "at")
    require(seconds <= LAST_SECOND, "an event of no time that there is")
    at = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return printable(f"{at} {text(event, 'kind')}, by {text(event, 'actor')}, about {text(event, 'subject')}")


def main(arguments: list[str] | None = None) -> int:
    about = "Check an evidence pack of a partner-exchange gateway."
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    parser.add_argument("pack", type=Path, metavar="PACK")
    parser.add_argument("--log-key", required=True, metavar="VERIFIER-STRING", help="origin+hex+base64")
    parser.add_argument("--fingerprint", metavar="HEX", help="of the identity card, as read aloud")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a checkpoint of the same log that you kept")
    parser.add_argument("--witness", action="append", default=[], metavar="VERIFIER-STRING", help="of a partner")
    parser.add_argument("--show", action="store_true", help="print each event")
    options = parser.parse_args(arguments)
    printer = Printer()
    try:
        verify(options, printer)
    except (NotVerified, ValueError) as fault:
        print(f"{printer.step + 1} NOT VERIFIED: {fault}")
        return 4
    except OSError as error:
        parser.error(f"cannot read {error.filename}: {error.strerror}")
    print("verified")
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    sys.exit(main())
