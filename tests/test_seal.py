"""Sealing at rest: boxes under a passphrase, blobs under a data key, and what each is bound to."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import seal
from gateway.crypto.seal import Argon2Cost, DataKey, PassphraseBox
from gateway.errors import MalformedError, TooLargeError, VerificationError

CHEAP = Argon2Cost(8 * 1024, 1, 1)
PASSPHRASE = "made up for a test"


@pytest.fixture(scope="module")
def box():
    return PassphraseBox("test secret 1", CHEAP)


@pytest.fixture(scope="module")
def raw(box):
    return box.seal(PASSPHRASE, b"secret")


@pytest.fixture(scope="module")
def key():
    return DataKey(b"\x31" * 32)


class Fixed:
    def bytes(self, count):
        return bytes(count)


# Passphrase box


def test_secret_comes_back(box, raw):
    assert box.open(PASSPHRASE, raw) == b"secret"


def test_default_cost_is_the_second_recommendation_of_rfc_9106():
    raw = PassphraseBox("test secret 1").seal(PASSPHRASE, b"x")
    assert json.loads(raw)["kdf"] == {"memory_kib": 65536, "passes": 3, "lanes": 4}
    assert PassphraseBox("test secret 1", CHEAP).open(PASSPHRASE, raw) == b"x"


@pytest.mark.parametrize("passphrase", ["Made up for a test", PASSPHRASE + " ", "x"])
def test_another_passphrase_is_refused(box, raw, passphrase):
    with pytest.raises(VerificationError):
        box.open(passphrase, raw)


def test_passphrase_typed_with_combining_accents_is_the_same(box):
    raw = box.seal("caf\u00e9 in the rain", b"x")
    assert box.open("cafe\u0301 in the rain", raw) == b"x"


@pytest.mark.parametrize("passphrase", ["", "x" * 1025])
def test_empty_or_endless_passphrase_is_refused(box, passphrase):
    with pytest.raises(MalformedError):
        box.seal(passphrase, b"x")


def test_box_of_another_label_is_refused(box, raw):
    with pytest.raises(MalformedError, match="another kind"):
        PassphraseBox("other secret 1").open(PASSPHRASE, raw)
    value = json.loads(raw)
    value["label"] = "other secret 1"
    with pytest.raises(VerificationError):
        PassphraseBox("other secret 1").open(PASSPHRASE, json.dumps(value).encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("salt"),
        lambda v: v.update(extra=1),
        lambda v: v.update(version="passphrase box 2"),
        lambda v: v.update(salt="AAAA"),
        lambda v: v.update(nonce="AAAA"),
        lambda v: v.update(sealed="AAAA"),
        lambda v: v.update(sealed=1),
        lambda v: v.update(kdf=[]),
        lambda v: v["kdf"].update(memory_kib=2**21),
        lambda v: v["kdf"].update(memory_kib=1024),
        lambda v: v["kdf"].update(passes=17),
        lambda v: v["kdf"].update(passes=0),
        lambda v: v["kdf"].update(lanes=17),
        lambda v: v["kdf"].update(memory_kib="8192"),
        lambda v: v["kdf"].update(algorithm="scrypt"),
    ],
)
def test_box_of_another_shape_or_ruinous_cost_is_malformed(box, raw, change):
    value = json.loads(raw)
    change(value)
    with pytest.raises(MalformedError):
        box.open(PASSPHRASE, json.dumps(value).encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["kdf"].update(passes=2),
        lambda v: v["kdf"].update(lanes=2),
        lambda v: v["kdf"].update(memory_kib=8193),
        lambda v: v.update(salt="A" * 22 + "=="),
        lambda v: v.update(nonce="A" * 16),
        lambda v: v.update(sealed=v["sealed"][::-1].replace("=", "") + "=="),
    ],
)
def test_changed_box_does_not_open(box, raw, change):
    value = json.loads(raw)
    change(value)
    with pytest.raises((VerificationError, MalformedError)):
        box.open(PASSPHRASE, json.dumps(value).encode())


def test_two_boxes_of_one_secret_share_neither_salt_nor_nonce(box):
    first, second = (json.loads(box.seal(PASSPHRASE, b"x")) for _ in range(2))
    assert first["salt"] != second["salt"]
    assert first["nonce"] != second["nonce"]


# Data key


@given(st.binary(max_size=300), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@settings(max_examples=60)
def test_blob_comes_back_under_its_context_only(blob, context):
    key = DataKey.generate()
    sealed = key.seal(blob, context)
    assert key.open(sealed, context) == blob
    for wrong in (context + "x", "x" + context):
        with pytest.raises(VerificationError):
            key.open(sealed, wrong)


def test_layout_is_nonce_ciphertext_tag(key):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed = key.seal(b"blob", "block 1/series", Fixed())
    assert sealed[:12] == bytes(12)
    assert len(sealed) == 12 + 4 + 16
    assert AESGCM(key.raw).decrypt(sealed[:12], sealed[12:], b"gateway blob 1\x00block 1/series") == b"blob"


def test_every_flipped_byte_and_every_cut_is_refused(key):
    sealed = key.seal(b"a blob", "block 1")
    for position in range(len(sealed)):
        flipped = sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]
        for changed in (flipped, sealed[:position]):
            with pytest.raises(VerificationError):
                key.open(changed, "block 1")


def test_another_key_does_not_open(key):
    with pytest.raises(VerificationError):
        DataKey.generate().open(key.seal(b"x", "c"), "c")


def test_wrapped_key_comes_back_under_its_context_only(key):
    inner = DataKey.generate()
    wrapped = key.wrap(inner, "block 7")
    assert len(wrapped) == 60
    assert key.unwrap(wrapped, "block 7").raw == inner.raw
    with pytest.raises(VerificationError):
        key.unwrap(wrapped, "block 8")


def test_wrapped_key_is_no_blob_and_blob_no_wrapped_key(key):
    with pytest.raises(VerificationError):
        key.open(key.wrap(DataKey.generate(), "c"), "c")
    with pytest.raises(VerificationError):
        key.unwrap(key.seal(bytes(32), "c"), "c")


def test_key_of_another_length_is_refused():
    with pytest.raises(MalformedError):
        DataKey(bytes(16))


def test_nonces_do_not_repeat(key):
    assert len({key.seal(b"", "c")[:12] for _ in range(1000)}) == 1000


def test_blob_over_the_bound_is_too_large(key, monkeypatch):
    monkeypatch.setattr(seal, "MAX_BLOB_BYTES", 10)
    with pytest.raises(TooLargeError):
        key.seal(bytes(11), "c")


def test_repr_shows_no_key(key):
    assert "31" not in repr(key)
    assert "1111" not in repr(key)
