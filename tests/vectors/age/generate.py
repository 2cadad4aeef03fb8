"""Writes the age vectors of this folder. Independent of gateway/crypto/age.py: only the cryptography library.

The files are frozen: encapsulation is random, so a second run writes other bytes that mean the same. Run it only to add
a vector (`python tests/vectors/age/generate.py NAME…`). The scheme is that of C2SP's CCTV: `key: value` lines, an empty
line, the age file. `payload` is the SHA-256 of all plaintext that may be handed out, also before a failure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import sys
from pathlib import Path

from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FOLDER = Path(__file__).parent
CHUNK = 64 * 1024
FILE_KEY = b"YELLOW SUBMARINE"
NONCE = bytes(range(16))
SEED, OTHER_SEED = b"\x0a" * 32, b"\x0b" * 32
TEXT = b"made up"
SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
# Order 8 on Curve25519, and the point at infinity: both agree on zero with every key.
LOW_ORDER = bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7")
VECTORS: dict[str, bytes] = {}


def b64(raw: bytes) -> bytes:
    return base64.b64encode(raw).rstrip(b"=")


def bech32_identity(seed: bytes) -> str:
    """BIP 173, by the book."""
    alphabet, prefix = "qpzry9x8gf2tvdw0s3jn54khce6mua7l", "age-secret-key-pq-"
    bits = "".join(f"{byte:08b}" for byte in seed)
    values = [int(bits[i : i + 5].ljust(5, "0"), 2) for i in range(0, len(bits), 5)]
    head = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = 1
    for value in head + values + [0] * 6:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> i & 1 else 0
    tail = [((check ^ 1) >> 5 * (5 - i)) & 31 for i in range(6)]
    return (prefix + "1" + "".join(alphabet[v] for v in values + tail)).upper()


def public_key(seed: bytes) -> hpke.MLKEM768X25519PublicKey:
    stretched = hashlib.shake_256(seed).digest(96)
    return hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(stretched[:64]).public_key(),
        x25519.X25519PrivateKey.from_private_bytes(stretched[64:]).public_key(),
    )


def wrap(seed: bytes = SEED, file_key: bytes = FILE_KEY) -> tuple[bytes, bytes]:
    sealed = SUITE.encrypt(file_key, public_key(seed), info=b"age-encryption.org/mlkem768x25519")
    return sealed[:1120], sealed[1120:]


def stanza(enc: bytes, body: bytes) -> bytes:
    return b"-> mlkem768x25519 " + b64(enc) + b"\n" + b64(body) + b"\n"


def ours(seed: bytes = SEED) -> bytes:
    return stanza(*wrap(seed))


def derive(file_key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(file_key)


def mac(start: bytes, file_key: bytes = FILE_KEY) -> bytes:
    return hmac.digest(derive(file_key, b"", b"header"), start, "sha256")


def header(stanzas: bytes, version: bytes = b"age-encryption.org/v1\n", file_key: bytes = FILE_KEY) -> bytes:
    start = version + stanzas + b"---"
    return start + b" " + b64(mac(start, file_key)) + b"\n"


def chunk(plain: bytes, counter: int, last: bool, nonce: bytes = NONCE) -> bytes:
    cipher = ChaCha20Poly1305(derive(FILE_KEY, nonce, b"payload"))
    return cipher.encrypt(counter.to_bytes(11, "big") + bytes([last]), plain, None)


def body(plain: bytes) -> bytes:
    parts = [plain[i : i + CHUNK] for i in range(0, len(plain), CHUNK)] or [b""]
    return NONCE + b"".join(chunk(part, i, i == len(parts) - 1) for i, part in enumerate(parts))


def flip(raw: bytes, position: int) -> bytes:
    position %= len(raw)
    return raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]


def not_canonical(text: bytes) -> bytes:
    """The same bytes with a pad bit set."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return text[:-1] + bytes([alphabet[alphabet.index(text[-1]) + 1]])


def vector(name: str, expect: str, raw: bytes, comment: str, released: bytes = b"", *, seeds=(SEED,)) -> None:
    lines = [f"expect: {expect}"]
    if expect in ("success", "payload failure"):
        lines.append(f"payload: {hashlib.sha256(released).hexdigest()}")
    lines += [f"identity: {bech32_identity(seed)}" for seed in seeds]
    lines.append(f"comment: {comment}")
    VECTORS[name] = "\n".join(lines).encode() + b"\n\n" + raw


def grammar(name: str, raw: bytes, comment: str) -> None:
    vector(name, "header failure", raw, comment)


def successes() -> None:
    for name, size in (("empty", 0), ("short", 7), ("full_chunk", CHUNK), ("chunk_and_byte", CHUNK + 1)):
        plain = bytes(size) if size != 7 else TEXT
        vector(f"success_{name}", "success", header(ours()) + body(plain), f"{size} bytes", plain)
    plain = hashlib.shake_256(b"three chunks").digest(2 * CHUNK + 1000)
    vector("success_three_chunks", "success", header(ours()) + body(plain), "three chunks", plain)
    three = ours(OTHER_SEED) + ours(b"\x0c" * 32) + ours()
    vector("success_last_of_three", "success", header(three) + body(TEXT), "three recipients, ours the last", TEXT)
    vector(
        "success_second_identity",
        "success",
        header(ours()) + body(TEXT),
        "the second key fits",
        TEXT,
        seeds=(OTHER_SEED, SEED),
    )
    vector("success_twice", "success", header(ours() + ours()) + body(TEXT), "two stanzas of one recipient", TEXT)


def mismatches() -> None:
    enc, wrapped = wrap()
    vector("no_match", "no match", header(ours(OTHER_SEED)) + body(TEXT), "sealed for another key")
    vector("no_match_bad_tag", "no match", header(stanza(enc, flip(wrapped, -1))) + body(TEXT), "tag flipped")
    vector("no_match_bad_key", "no match", header(stanza(enc, flip(wrapped, 0))) + body(TEXT), "wrapped key flipped")
    vector("no_match_mlkem", "no match", header(stanza(flip(enc, 5), wrapped)) + body(TEXT), "ML-KEM part flipped")
    vector("no_match_x25519", "no match", header(stanza(flip(enc, 1100), wrapped)) + body(TEXT), "X25519 part flipped")
    vector("no_match_low_order", "no match", header(stanza(enc[:1088] + LOW_ORDER, wrapped)) + body(TEXT), "low order")
    vector(
        "no_match_zero_point", "no match", header(stanza(enc[:1088] + bytes(32), wrapped)) + body(TEXT), "zero point"
    )


def macs() -> None:
    good = header(ours())
    start, _, tail = good.rpartition(b" ")
    word = "HMAC failure"
    vector("hmac_other_bytes", word, start + b" " + b64(bytes(32)) + b"\n" + body(TEXT), "MAC of zeroes")
    vector("hmac_other_file_key", word, header(ours(), file_key=bytes(16)) + body(TEXT), "MAC under another file key")
    two, one = ours(OTHER_SEED), ours()
    of_two = b64(mac(b"age-encryption.org/v1\n" + two + one + b"---"))
    for name, stanzas in (("removed", one), ("swapped", one + two), ("added", two + one + one)):
        raw = b"age-encryption.org/v1\n" + stanzas + b"--- " + of_two + b"\n" + body(TEXT)
        vector(f"hmac_stanza_{name}", word, raw, f"a stanza {name} after the MAC was made")
    spaced = start + b" "
    grammar("hmac_missing", start + b"\n" + body(TEXT), "no MAC")
    grammar("hmac_no_space", start + tail + body(TEXT), "no space before the MAC")
    grammar("hmac_extra_space", spaced + b" " + tail + body(TEXT), "two spaces before the MAC")
    grammar("hmac_trailing_space", spaced + tail[:-1] + b" \n" + body(TEXT), "a space after the MAC")
    grammar("hmac_padded", spaced + tail[:-1] + b"=\n" + body(TEXT), "base64 padding")
    grammar("hmac_not_canonical", spaced + not_canonical(tail[:-1]) + b"\n" + body(TEXT), "a pad bit is set")
    grammar("hmac_31_bytes", spaced + b64(bytes(31)) + b"\n" + body(TEXT), "MAC of 31 bytes")
    grammar("hmac_33_bytes", spaced + b64(bytes(33)) + b"\n" + body(TEXT), "MAC of 33 bytes")
    grammar("hmac_crlf", spaced + tail[:-1] + b"\r\n" + body(TEXT), "CR before LF")
    grammar("hmac_cut", spaced + tail[:-1], "the file ends before the LF of the MAC line")


def versions() -> None:
    for name, line in (
        ("2", b"age-encryption.org/v2\n"),
        ("10", b"age-encryption.org/v10\n"),
        ("crlf", b"age-encryption.org/v1\r\n"),
        ("space", b"age-encryption.org/v1 \n"),
        ("upper_case", b"AGE-ENCRYPTION.ORG/V1\n"),
        ("missing", b""),
        ("leading_line", b"\nage-encryption.org/v1\n"),
    ):
        grammar(f"version_{name}", header(ours(), line) + body(TEXT), f"version line: {name}")
    grammar("file_empty", b"", "no byte at all")
    grammar("file_cut", header(ours())[:900], "the file ends inside the header")
    grammar("file_endless_line", b"age-encryption.org/v1\n-> mlkem768x25519 " + b"A" * 20_000, "a line without end")
    grammar("no_stanza", header(b"") + body(TEXT), "no recipient")
    armored = base64.encodebytes(header(ours()) + body(TEXT))
    grammar("armored", b"-----BEGIN AGE ENCRYPTED FILE-----\n" + armored, "ASCII armor is not accepted")


def stanzas() -> None:
    enc, wrapped = wrap()
    word, share, key = b"mlkem768x25519", b64(enc), b64(wrapped)
    lines = {
        "no_arrow_space": b"->" + word + b" " + share + b"\n" + key + b"\n",
        "two_spaces": b"->  " + word + b" " + share + b"\n" + key + b"\n",
        "empty_argument": b"-> " + word + b"  " + share + b"\n" + key + b"\n",
        "trailing_space": b"-> " + word + b" " + share + b" \n" + key + b"\n",
        "no_arguments": b"->\n" + key + b"\n",
        "only_a_space": b"-> \n" + key + b"\n",
        "tab": b"-> " + word + b"\t" + share + b"\n" + key + b"\n",
        "byte_above_ascii": b"-> " + word + b" " + share[:-1] + b"\xe9\n" + key + b"\n",
        "control": b"-> " + word + b" " + share[:-1] + b"\x00\n" + key + b"\n",
        "crlf": b"-> " + word + b" " + share + b"\r\n" + key + b"\n",
        "body_crlf": b"-> " + word + b" " + share + b"\n" + key + b"\r\n",
        "missing_share": b"-> " + word + b"\n" + key + b"\n",
        "extra_argument": b"-> " + word + b" " + share + b" 1\n" + key + b"\n",
        "share_padded": b"-> " + word + b" " + share + b"=\n" + key + b"\n",
        "share_url_alphabet": b"-> " + word + b" " + b"-_" + share[2:] + b"\n" + key + b"\n",
        "share_not_canonical": b"-> " + word + b" " + not_canonical(share[:-1] + b"A") + b"\n" + key + b"\n",
        "share_short": stanza(enc[:-1], wrapped),
        "share_long": stanza(enc + b"\x00", wrapped),
        "share_empty": b"-> " + word + b" \n" + key + b"\n",
        "body_short": stanza(enc, wrapped[:-1]),
        "body_long": stanza(enc, wrapped + b"\x00"),
        "body_full_line": b"-> " + word + b" " + share + b"\n" + b64(bytes(48)) + b"\n\n",
        "body_empty": b"-> " + word + b" " + share + b"\n\n",
        "body_missing": b"-> " + word + b" " + share + b"\n",
        "body_then_empty_line": b"-> " + word + b" " + share + b"\n" + key + b"\n\n",
        "body_two_short_lines": b"-> " + word + b" " + share + b"\n" + key[:20] + b"\n" + key[20:] + b"\n",
        "body_padded": b"-> " + word + b" " + share + b"\n" + key + b"=\n",
        "body_not_canonical": b"-> " + word + b" " + share + b"\n" + not_canonical(key) + b"\n",
        "body_space": b"-> " + word + b" " + share + b"\n" + key + b" \n",
        "line_before": b"x\n" + ours(),
        "long_file_key": stanza(*wrap(file_key=b"A LONGER YELLOW SUBMARINE")),
        "upper_case": b"-> MLKEM768X25519 " + share + b"\n" + key + b"\n",
    }
    for name, text in lines.items():
        grammar(f"stanza_{name}", header(text) + body(TEXT), f"stanza: {name.replace('_', ' ')}")


def mixtures() -> None:
    classical = b"-> X25519 " + b64(bytes(range(32))) + b"\n" + b64(bytes(32)) + b"\n"
    others = {
        "x25519_before": classical + ours(),
        "x25519_after": ours() + classical,
        "x25519_alone": classical,
        "scrypt": ours() + b"-> scrypt " + b64(bytes(16)) + b" 18\n" + b64(bytes(32)) + b"\n",
        "p256tag": ours() + b"-> p256tag CXBuUw " + b64(bytes(65)) + b"\n" + b64(bytes(32)) + b"\n",
        "ssh": b"-> ssh-ed25519 AAAAAA " + b64(bytes(32)) + b"\n" + b64(bytes(32)) + b"\n" + ours(),
        "grease": b"-> grease\n\n" + ours(),
        "plugin": ours() + b"-> example.com/enigma\n" + b64(bytes(32)) + b"\n",
    }
    for name, text in others.items():
        grammar(f"mixed_{name}", header(text) + body(TEXT), f"not only post-quantum recipients: {name}")
    grammar("too_many_recipients", header(b"".join(ours(OTHER_SEED) for _ in range(65))) + body(TEXT), "65 recipients")


def payloads() -> None:
    head, word = header(ours()), "payload failure"
    full, rest = bytes(CHUNK), b"rest"
    two = body(full + rest)
    first, second = two[16 : 16 + CHUNK + 16], two[16 + CHUNK + 16 :]
    for name, raw, released, comment in (
        ("no_nonce", b"", b"", "the file ends after the header"),
        ("short_nonce", NONCE[:15], b"", "nonce of 15 bytes"),
        ("no_chunk", NONCE, b"", "nonce and nothing else"),
        ("short_tag", NONCE + bytes(15), b"", "a chunk shorter than its tag"),
        ("first_flipped", flip(two, 20), b"", "a flipped byte in chunk 0"),
        ("second_flipped", flip(two, -1), full, "a flipped byte in chunk 1"),
        ("nonce_flipped", flip(two, 0), b"", "a flipped byte in the nonce"),
        ("cut_in_last_chunk", two[:-1], full, "the last byte is missing"),
        ("cut_at_chunk_edge", two[: 16 + CHUNK + 16], b"", "the last chunk is missing"),
        ("cut_in_first_chunk", two[: 16 + CHUNK], b"", "the file ends in chunk 0"),
        ("byte_after", body(TEXT) + b"x", b"", "a byte after the last chunk"),
        ("chunk_after", two + chunk(rest, 2, True), full, "a chunk after the last one"),
        ("two_last_chunks", NONCE + chunk(full, 0, True) + chunk(rest, 1, True), b"", "two chunks are marked as last"),
        ("empty_last_chunk", NONCE + first + chunk(b"", 1, True), full, "the last chunk is empty"),
        ("last_not_marked", NONCE + chunk(TEXT, 0, False), b"", "the last chunk is not marked"),
        ("counter_from_one", NONCE + chunk(TEXT, 1, True), b"", "the counter starts at one"),
        ("counter_repeated", NONCE + first + chunk(rest, 0, True), full, "the counter stands still"),
        ("chunks_swapped", NONCE + chunk(rest, 1, True) + chunk(full, 0, False), b"", "chunks in another order"),
        ("chunk_repeated", NONCE + first + first + second, full, "chunk 0 twice"),
        ("short_chunk_inside", NONCE + chunk(rest, 0, False) + chunk(rest, 1, True), b"", "a short chunk in between"),
        ("other_file_key", NONCE + flip(chunk(TEXT, 0, True, bytes(16)), 0), b"", "sealed under another key"),
    ):
        vector(f"payload_{name}", word, head + raw, comment, released)


def main(wanted: list[str]) -> None:
    for make in (successes, mismatches, macs, versions, stanzas, mixtures, payloads):
        make()
    for name, raw in VECTORS.items():
        assert re.fullmatch(r"[a-z0-9_]+", name)
        if name in wanted or wanted == ["all"]:
            (FOLDER / f"{name}.age").write_bytes(raw)
    print(f"{len(VECTORS)} vectors known")


if __name__ == "__main__":
    main(sys.argv[1:])
