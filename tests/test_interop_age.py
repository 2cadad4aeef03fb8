"""An implementation that is not ours opens what we seal, and seals what we open: npm `age-encryption`.

`npm ci` installs it beside its lock file on the first run. Without Node.js these tests cannot run and say so; the files
in `contracts/vectors/envelope-1` that the same package sealed are opened by `test_envelope.py` everywhere.
"""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.crypto import age, envelope
from gateway.crypto.envelope import Manifest, open_envelope, seal_bytes
from gateway.crypto.keys import OpeningKey, SealingKey, SigningKey

FOLDER = Path(__file__).parent / "interop_age"
NOW = 1_760_000_000
SIZES = [0, 1, age.CHUNK_BYTES, age.CHUNK_BYTES + 1, 3 * 1024 * 1024 + 5]

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed")


@pytest.fixture(scope="module", autouse=True)
def foreign_age():
    if not (FOLDER / "node_modules" / "age-encryption").is_dir():
        install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        run = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"npm ci failed: {run.stderr[-500:]}"


def node(*arguments, raw=b""):
    run = subprocess.run(["node", "age.mjs", *arguments], cwd=FOLDER, input=raw, capture_output=True, check=True)
    return run.stdout


@pytest.fixture(scope="module")
def signer():
    return SigningKey.generate()


@pytest.fixture(scope="module")
def foreign_keys(foreign_age):
    return json.loads(node("keygen"))


def manifest():
    return Manifest(
        message_id="fedcba9876543210fedcba9876543210",
        sender="XA-NCVI",
        audience="agency:XB-NCVI",
        channel="mailbox",
        epoch=1,
        from_seq=0,
        until_seq=1,
        created=NOW,
        expires=NOW + 60,
        payload_type="application/octet-stream",
    )


def test_both_derive_the_same_recipient_from_one_identity(foreign_keys):
    ours = OpeningKey.parse(foreign_keys["identity"])
    assert str(ours.public) == foreign_keys["recipient"]
    assert ours.to_identity() == foreign_keys["identity"]


@pytest.mark.parametrize("size", SIZES)
def test_what_we_seal_they_open(foreign_keys, size):
    plain, sink = bytes(size), io.BytesIO()
    age.encrypt([SealingKey.parse(foreign_keys["recipient"])], io.BytesIO(plain), sink)
    assert node("open", foreign_keys["identity"], raw=sink.getvalue()) == plain


@pytest.mark.parametrize("size", SIZES)
def test_what_they_seal_we_open(size):
    opening_key = OpeningKey.generate()
    raw = node("seal", str(opening_key.public), raw=bytes(size))
    assert age.open_stream([opening_key], io.BytesIO(raw)).read() == bytes(size)


def test_they_open_our_envelope_and_an_outsider_checks_it(foreign_keys, signer, tmp_path):
    payload = bytes(range(256)) * 5000
    raw = seal_bytes(manifest(), payload, signer, [SealingKey.parse(foreign_keys["recipient"])])
    plaintext = node("open", foreign_keys["identity"], raw=raw)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(signer.public.to_json()))
    check = [sys.executable, str(FOLDER / "check_envelope.py"), str(keys)]
    assert subprocess.run(check, input=plaintext, capture_output=True, check=True).stdout == payload
    # The check is worth something: a changed payload or manifest fails it.
    for changed in (plaintext[:-1] + b"x", plaintext[:100] + b"A" + plaintext[101:], plaintext + b"x"):
        assert subprocess.run(check, input=changed, capture_output=True, check=False).returncode != 0


def test_we_open_an_envelope_that_they_sealed(signer):
    opening_key = OpeningKey.generate()
    sealed = envelope.seal(manifest(), io.BytesIO(b"payload"), io.BytesIO(), signer)
    frame = len(sealed.dsse).to_bytes(4, "big") + sealed.dsse + b"payload"
    raw = node("seal", str(opening_key.public), raw=frame)
    message = open_envelope(
        io.BytesIO(raw), [opening_key], lambda sender: (signer.public,), now=NOW, audiences={"agency:XB-NCVI"}
    )
    assert message.read_payload(7) == b"payload"


def test_they_open_the_second_header_of_a_class_body(foreign_keys):
    body, sink = age.Body(), io.BytesIO()
    body.seal(io.BytesIO(b"one body"), sink)
    body.header(OpeningKey.generate().public)
    raw = body.header(SealingKey.parse(foreign_keys["recipient"])) + sink.getvalue()
    assert node("open", foreign_keys["identity"], raw=raw) == b"one body"
