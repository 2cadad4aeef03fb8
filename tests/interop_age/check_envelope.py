"""What an outsider needs to check an opened envelope: Python, `cryptography` and contracts/envelope-1.md.

usage: check_envelope.py KEYS.json < plaintext > payload      (KEYS.json: {"Ed25519": base64, "ML-DSA-65": base64})
"""

import base64
import hashlib
import json
import struct
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

keys = {name: base64.b64decode(text) for name, text in json.loads(Path(sys.argv[1]).read_bytes()).items()}
plaintext = sys.stdin.buffer.read()
(length,) = struct.unpack(">I", plaintext[:4])
dsse, payload = json.loads(plaintext[4 : 4 + length]), plaintext[4 + length :]
manifest, kind = base64.b64decode(dsse["payload"]), dsse["payloadType"].encode()
assert kind == b"application/vnd.partner-exchange.manifest+json"
message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(manifest), manifest)


def key_id(name: str) -> str:
    parts = (name.encode(), keys[name])
    return hashlib.sha256(b"".join(struct.pack(">I", len(part)) + part for part in parts)).hexdigest()


signatures = {entry["keyid"]: base64.b64decode(entry["sig"]) for entry in dsse["signatures"]}
assert signatures.keys() == {key_id("Ed25519"), key_id("ML-DSA-65")}
ed25519.Ed25519PublicKey.from_public_bytes(keys["Ed25519"]).verify(signatures[key_id("Ed25519")], message)
mldsa.MLDSA65PublicKey.from_public_bytes(keys["ML-DSA-65"]).verify(signatures[key_id("ML-DSA-65")], message)
pieces = [hashlib.sha256(payload[i : i + 2**20]).hexdigest() for i in range(0, len(payload), 2**20)]
assert (json.loads(manifest)["pieces"], json.loads(manifest)["payload_bytes"]) == (pieces, len(payload))
sys.stdout.buffer.write(payload)
