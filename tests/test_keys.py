"""Keys: known answers of the standards, ids, encodings, and what a pair of signatures must withstand."""

import hashlib
import hmac
import json
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import keys
from gateway.crypto.keys import OpeningKey, SealingKey, Signature, SigningKey, TokenKey, VerifyingKey
from gateway.errors import MalformedError, VerificationError

VECTORS = Path(__file__).parent / "vectors"


def load(name):
    vector = json.loads((VECTORS / name).read_text())
    assert vector["expect"] == "success"
    return vector


@pytest.fixture(scope="module")
def signer():
    return SigningKey.from_seeds(b"\x01" * 32, b"\x02" * 32)


@pytest.fixture(scope="module")
def other():
    return SigningKey.from_seeds(b"\x03" * 32, b"\x04" * 32)


class Counting:
    """A source of randomness that can be followed."""

    def __init__(self):
        self.calls = 0

    def bytes(self, count):
        self.calls += 1
        return bytes([self.calls]) * count


# Known answers


def test_key_id_is_sha256_over_length_prefixed_algorithm_and_key():
    known = load("keys/known.json")
    public = bytes.fromhex(known["ed25519_public"])
    assert keys.key_id("Ed25519", public) == known["key_id"]
    assert keys.key_id("Ed255", b"19" + public) != known["key_id"]


def test_ed25519_half_is_that_of_rfc_8032():
    known = load("keys/known.json")
    signing_key = SigningKey.from_seeds(bytes.fromhex(known["ed25519_seed"]), bytes(32))
    assert signing_key.public.ed25519_public.hex() == known["ed25519_public"]
    assert signing_key.sign(b"")[0].value.hex() == known["empty_message_signature"]


def test_thumbprint_is_that_of_rfc_8037():
    known = load("keys/known.json")
    token_key = TokenKey.from_seed(bytes.fromhex(known["ed25519_seed"]))
    assert token_key.thumbprint() == known["thumbprint"]
    assert token_key.public_jwk() == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }


@pytest.mark.parametrize("number", range(3))
def test_ml_dsa_65_known_answer(number):
    vector = load("mldsa/kat-ml-dsa-65.json")["vectors"][number]
    signing_key = SigningKey.from_seeds(bytes(32), bytes.fromhex(vector["seed"]))
    public = signing_key.public.mldsa65_public
    assert hashlib.sha256(public).hexdigest() == vector["public_sha256"]
    mldsa.MLDSA65PublicKey.from_public_bytes(public).verify(
        bytes.fromhex(vector["signature"]), bytes.fromhex(vector["message"]), bytes.fromhex(vector["context"])
    )


def test_x_wing_seed_gives_the_published_public_key():
    vector = load("xwing/hpke-pq.json")["vectors"][0]
    assert OpeningKey.from_seed(bytes.fromhex(vector["skRm"])).public.raw.hex() == vector["pkRm"]


def labeled_extract(suite, salt, label, ikm):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def labeled_expand(suite, secret, label, info, length):
    block = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info + b"\x01"
    return hmac.digest(secret, block, "sha256")[:length]


def open_hpke(vector, kem_id, shared_secret, number):
    """RFC 9180 5.1 and 5.2, base mode, by hand: what the library's one-shot API has no door for (associated data)."""
    suite = b"HPKE" + struct.pack(">HHH", kem_id, 1, 3)
    context = (
        b"\x00"
        + labeled_extract(suite, b"", b"psk_id_hash", b"")
        + labeled_extract(suite, b"", b"info_hash", bytes.fromhex(vector["info"]))
    )
    secret = labeled_extract(suite, shared_secret, b"secret", b"")
    nonce = int.from_bytes(labeled_expand(suite, secret, b"base_nonce", context, 12), "big") ^ number
    message = vector["encryptions"][number]
    cipher = ChaCha20Poly1305(labeled_expand(suite, secret, b"key", context, 32))
    return cipher.decrypt(nonce.to_bytes(12, "big"), bytes.fromhex(message["ct"]), bytes.fromhex(message["aad"])).hex()


@pytest.mark.parametrize("number", range(2))
def test_x_wing_vector_opens(number):
    vector = load("xwing/hpke-pq.json")["vectors"][0]
    seed = hashlib.shake_256(bytes.fromhex(vector["skRm"])).digest(96)
    enc = bytes.fromhex(vector["enc"])
    curve = x25519.X25519PrivateKey.from_private_bytes(seed[64:])
    # X-Wing: SHA3-256( ss_M || ss_X || ct_X || pk_X || "\.//^\" )
    shared = hashlib.sha3_256(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(seed[:64]).decapsulate(enc[:1088])
        + curve.exchange(x25519.X25519PublicKey.from_public_bytes(enc[1088:]))
        + enc[1088:]
        + curve.public_key().public_bytes_raw()
        + b"\\.//^\\"
    ).digest()
    assert shared.hex() == vector["shared_secret"]
    assert open_hpke(vector, 0x647A, shared, number) == vector["encryptions"][number]["pt"]


@pytest.mark.parametrize("number", range(2))
def test_rfc_9180_base_vector_opens(number):
    vector = load("hpke/base-x25519-chacha20poly1305.json")["vectors"][0]
    private = x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["skRm"]))
    enc, public = bytes.fromhex(vector["enc"]), bytes.fromhex(vector["pkRm"])
    # RFC 9180 4.1: DHKEM ExtractAndExpand.
    suite = b"KEM" + struct.pack(">H", 0x20)
    agreed = labeled_extract(suite, b"", b"eae_prk", private.exchange(x25519.X25519PublicKey.from_public_bytes(enc)))
    shared = labeled_expand(suite, agreed, b"shared_secret", enc + public, 32)
    assert shared.hex() == vector["shared_secret"]
    assert open_hpke(vector, 0x20, shared, number) == vector["encryptions"][number]["pt"]


def test_age_identity_gives_the_recipient_of_the_specification():
    vector = load("keys/age-hybrid.json")
    opening_key = OpeningKey.parse(vector["identity"])
    assert str(opening_key.public) == vector["recipient"]
    assert opening_key.to_identity() == vector["identity"]
    assert SealingKey.parse(vector["recipient"]) == opening_key.public


# Encodings


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=25)
def test_seeds_and_texts_give_the_same_key_back(seed):
    opening_key = OpeningKey.from_seed(seed)
    assert OpeningKey.parse(opening_key.to_identity()).seed == seed
    assert SealingKey.parse(str(opening_key.public)) == opening_key.public
    signing_key = SigningKey.from_seeds(seed, seed[::-1])
    assert signing_key.seeds == (seed, seed[::-1])
    assert VerifyingKey.from_json(signing_key.public.to_json()) == signing_key.public


@pytest.mark.parametrize("position", [0, 5, 7, 8, 30, 1000, 1950, 1958])
def test_recipient_with_a_changed_character_is_refused(position):
    text = load("keys/age-hybrid.json")["recipient"]
    changed = text[:position] + ("q" if text[position] != "q" else "p") + text[position + 1 :]
    with pytest.raises(MalformedError):
        SealingKey.parse(changed)


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda text: text[:-1],
        lambda text: text + "q",
        lambda text: " " + text,
        lambda text: text.replace("age1pq1", "age1tagpq1"),
        lambda text: text[:100] + "b" + text[101:],
        lambda text: text[:100] + "é" + text[101:],
        lambda text: "",
    ],
)
def test_recipient_in_another_spelling_is_refused(change):
    with pytest.raises(MalformedError):
        SealingKey.parse(change(load("keys/age-hybrid.json")["recipient"]))


@pytest.mark.parametrize("change", [str.lower, str.title, lambda text: text[:-1] + "Q", lambda text: text[:30]])
def test_identity_in_another_spelling_is_refused(change):
    with pytest.raises(MalformedError):
        OpeningKey.parse(change(load("keys/age-hybrid.json")["identity"]))


def test_bech32_with_padding_bits_set_is_refused():
    # 256 bits are 51 groups and 4 padding bits: forge a valid checksum over padding bits that are not zero.
    values = keys._five_bits(bytes(32))
    values[-1] |= 1
    data = [*keys._expand(keys.IDENTITY_PREFIX), *values]
    checksum = keys._polymod([*data, 0, 0, 0, 0, 0, 0]) ^ 1
    tail = [(checksum >> 5 * (5 - i)) & 31 for i in range(6)]
    text = keys.IDENTITY_PREFIX + "1" + "".join(keys._BECH32_ALPHABET[v] for v in [*values, *tail])
    with pytest.raises(MalformedError, match="padding"):
        OpeningKey.parse(text.upper())


@pytest.mark.parametrize("text", ["QQ", "QR==", "QQ==\n", " QQ==", "QQ=", "Q-==", "QQ==QQ==", "Qé==", "===="])
def test_base64_in_another_spelling_is_refused(text):
    with pytest.raises(MalformedError):
        keys.parse_base64(text)


@pytest.mark.parametrize("make", [OpeningKey, TokenKey, lambda seed: SigningKey(seed, bytes(32))])
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_seed_of_another_length_is_refused(make, length):
    with pytest.raises(MalformedError):
        make(bytes(length))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"Ed25519": "AA=="},
        {"Ed25519": "AA==", "ML-DSA-65": "AA=="},
        {"Ed25519": 1, "ML-DSA-65": 2},
        {"Ed25519": "AA==", "ML-DSA-65": "AA==", "ES256": "AA=="},
    ],
)
def test_other_json_is_no_verifying_key(value):
    with pytest.raises(MalformedError):
        VerifyingKey.from_json(value)


def test_sealing_key_whose_lattice_part_is_out_of_range_is_refused():
    # FIPS 203 7.2: the modulus check on encapsulation keys.
    with pytest.raises(MalformedError):
        SealingKey(b"\xff" * 1216)


# Signatures


def test_both_signatures_verify(signer):
    signer.public.verify(b"message", signer.sign(b"message"))


def test_order_of_the_two_signatures_does_not_matter(signer):
    signer.public.verify(b"message", signer.sign(b"message")[::-1])


def test_anything_but_both_signatures_is_refused(signer, other):
    classical, lattice = signer.sign(b"m")
    foreign = other.sign(b"m")
    for signatures in (
        [],
        [classical],
        [lattice],
        [classical, classical],
        [lattice, lattice],
        [classical, lattice, classical],
        [classical, lattice, foreign[0]],
        [classical, foreign[1]],
        list(foreign),
        [Signature(classical.key_id, lattice.value), Signature(lattice.key_id, classical.value)],
        [Signature(classical.key_id, b""), lattice],
        [classical, Signature(lattice.key_id, bytes(3309))],
        [Signature(classical.key_id, foreign[0].value), lattice],
        [classical, Signature(lattice.key_id, foreign[1].value)],
    ):
        with pytest.raises(VerificationError):
            signer.public.verify(b"m", signatures)


def test_another_message_is_refused_by_each_algorithm_alone(signer):
    good, wrong = signer.sign(b"m"), signer.sign(b"n")
    for mixed in ((good[0], wrong[1]), (wrong[0], good[1])):
        with pytest.raises(VerificationError):
            signer.public.verify(b"m", mixed)


# Care with secrets


def test_repr_shows_ids_and_no_seed(signer):
    opening_key, token_key = OpeningKey(b"\x07" * 32), TokenKey(b"\x07" * 32)
    shown = f"{signer!r} {signer.public!r} {opening_key!r} {opening_key.public!r} {token_key!r}"
    assert signer.public.key_set_id in shown
    assert opening_key.public.key_id in shown
    assert "0707" not in shown
    assert str(b"\x07" * 32) not in shown


def test_generated_keys_come_from_the_randomness_given():
    random = Counting()
    assert SigningKey.generate(random).seeds == (b"\x01" * 32, b"\x02" * 32)
    assert OpeningKey.generate(random).seed == b"\x03" * 32
    assert TokenKey.generate(random).seed == b"\x04" * 32
    assert keys.new_message_id(random) == "05" * 16


def test_system_randomness_does_not_repeat():
    assert len({keys.new_message_id() for _ in range(100)} | {keys.random_bytes(16).hex() for _ in range(100)}) == 200
