"""age: frozen vectors with an expected word, and what must hold for any size, any cut and any flipped byte."""

import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import age
from gateway.crypto.keys import OpeningKey
from gateway.errors import ConflictError, GatewayError, MalformedError, VerificationError

VECTORS = sorted((Path(__file__).parent / "vectors" / "age").glob("*.age"))
# How the words of the vectors look to a caller: the error, and the step that it names.
WORDS = {
    (MalformedError, "header"): "header failure",
    (VerificationError, "recipient stanza"): "no match",
    (VerificationError, "header MAC"): "HMAC failure",
    (VerificationError, "payload"): "payload failure",
}
CHUNK = age.CHUNK_BYTES


class Dripping(io.BytesIO):
    """A source that gives less than asked for, as a socket does."""

    def read(self, count=-1):
        return super().read(min(count, 7) if count > 7 else count)


@pytest.fixture(scope="module")
def opening_key():
    return OpeningKey.from_seed(b"\x21" * 32)


@pytest.fixture(scope="module")
def other_key():
    return OpeningKey.from_seed(b"\x22" * 32)


def sealed(plain, *recipients):
    sink = io.BytesIO()
    age.encrypt([key.public for key in recipients], io.BytesIO(plain), sink)
    return sink.getvalue()


def outcome(raw, identities):
    """The word that fits, and all plaintext that was handed out on the way."""
    released = hashlib.sha256()
    try:
        stream = age.open_stream(identities, raw)
        while chunk := stream.read(CHUNK):
            released.update(chunk)
    except GatewayError as error:
        kind = MalformedError if isinstance(error, MalformedError) else VerificationError
        return WORDS[kind, error.place], released.hexdigest()
    return "success", released.hexdigest()


def parse_vector(path):
    head, _, raw = path.read_bytes().partition(b"\n\n")
    lines = [line.split(": ", 1) for line in head.decode().splitlines()]
    identities = [OpeningKey.parse(value) for name, value in lines if name == "identity"]
    return dict(lines), identities, raw


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
@pytest.mark.parametrize("source", [io.BytesIO, Dripping])
def test_vector_ends_with_its_word(path, source):
    head, identities, raw = parse_vector(path)
    word, released = outcome(source(raw), identities)
    assert word == head["expect"]
    assert released == head.get("payload", hashlib.sha256().hexdigest())


def test_all_five_words_have_vectors():
    assert {parse_vector(path)[0]["expect"] for path in VECTORS} == {*WORDS.values(), "success"}


@given(
    st.sampled_from([0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5]), st.integers(1, 200_000)
)
@settings(max_examples=30, deadline=None)
def test_what_was_sealed_opens_whatever_the_reads(opening_key, size, step):
    plain = hashlib.shake_256(b"plain").digest(size)
    stream = age.open_stream([opening_key], io.BytesIO(sealed(plain, opening_key)))
    pieces = []
    while piece := stream.read(step):
        pieces.append(piece)
        assert len(piece) == step or sum(map(len, pieces)) == size
    assert b"".join(pieces) == plain
    assert stream.read(1) == stream.read() == b""


@pytest.mark.parametrize("size", [0, 9, CHUNK, CHUNK + 3])
def test_whole_rest_is_read_at_once(opening_key, size):
    plain = hashlib.shake_256(b"rest").digest(size)
    stream = age.open_stream([opening_key], io.BytesIO(sealed(plain, opening_key)))
    assert stream.read(0) == b""
    assert stream.read(4) + stream.read() == plain


def test_every_flipped_byte_is_refused(opening_key):
    raw = sealed(b"a few bytes", opening_key)
    for position in range(len(raw)):
        flipped = raw[:position] + bytes([raw[position] ^ (1 + position % 255)]) + raw[position + 1 :]
        assert outcome(io.BytesIO(flipped), [opening_key])[0] != "success", position


def test_truncation_at_and_around_every_edge_is_refused(opening_key):
    plain = bytes(2 * CHUNK + 100)
    raw = sealed(plain, opening_key)
    header = len(raw) - age.NONCE_BYTES - len(plain) - 3 * age.TAG_BYTES
    edges = [0, header, header + 16, *(header + 16 + n * (CHUNK + 16) for n in (1, 2)), len(raw)]
    for edge in edges:
        for cut in {max(edge - 17, 0), max(edge - 1, 0), edge, edge + 1, edge + 16} - {len(raw)}:
            if cut < len(raw):
                assert outcome(io.BytesIO(raw[:cut]), [opening_key])[0] != "success", cut


@pytest.mark.parametrize("extra", [b"\x00", bytes(16), bytes(17), bytes(CHUNK + 16)])
def test_anything_after_the_last_chunk_is_refused(opening_key, extra):
    for size in (0, 5, CHUNK):
        assert outcome(io.BytesIO(sealed(bytes(size), opening_key) + extra), [opening_key])[0] == "payload failure"


class Endless:
    """A source that never ends and never has a line."""

    def __init__(self, start):
        self.left = start

    def read(self, count):
        piece, self.left = self.left[:count], self.left[count:]
        return piece or b"A" * count


@pytest.mark.parametrize("start", [b"", b"age-encryption.org/v1\n", b"age-encryption.org/v1\n-> mlkem768x25519 "])
def test_line_without_end_is_refused_in_bounded_memory(opening_key, start):
    assert outcome(Endless(start), [opening_key])[0] == "header failure"


@pytest.mark.parametrize("length", [0, 1, 15])
def test_file_without_a_whole_nonce_is_refused_before_any_read(opening_key, length):
    raw = age.Body().header(opening_key.public) + bytes(length)
    with pytest.raises(VerificationError):
        age.open_stream([opening_key], io.BytesIO(raw))


def test_another_key_does_not_open(opening_key, other_key):
    assert outcome(io.BytesIO(sealed(b"x", opening_key)), [other_key])[0] == "no match"
    assert outcome(io.BytesIO(sealed(b"x", opening_key)), [])[0] == "no match"


def test_every_recipient_opens(opening_key, other_key):
    raw = sealed(b"for both", opening_key, other_key)
    for key in (opening_key, other_key):
        assert age.open_stream([key], io.BytesIO(raw)).read() == b"for both"


def test_one_body_serves_two_headers(opening_key, other_key):
    body, sink = age.Body(), io.BytesIO()
    written = body.seal(io.BytesIO(b"one body"), sink)
    assert written == len(sink.getvalue())
    for key, stranger in ((opening_key, other_key), (other_key, opening_key)):
        raw = body.header(key.public) + sink.getvalue()
        assert raw.count(b"\n-> ") == 1
        assert age.open_stream([key], io.BytesIO(raw)).read() == b"one body"
        assert outcome(io.BytesIO(raw), [stranger])[0] == "no match"


def test_header_of_another_body_does_not_fit(opening_key):
    first, second, sink = age.Body(), age.Body(), io.BytesIO()
    second.seal(io.BytesIO(b"x"), sink)
    assert (
        outcome(io.BytesIO(first.header(opening_key.public) + sink.getvalue()), [opening_key])[0] == "payload failure"
    )


def test_file_key_never_seals_a_second_body():
    body = age.Body()
    body.seal(io.BytesIO(b"first"), io.BytesIO())
    with pytest.raises(ConflictError):
        body.seal(io.BytesIO(b"second"), io.BytesIO())


def test_header_needs_recipients_and_each_once(opening_key):
    with pytest.raises(MalformedError):
        age.Body().header()
    with pytest.raises(MalformedError):
        age.Body().header(opening_key.public, opening_key.public)
    with pytest.raises(MalformedError):
        age.Body().header(*(OpeningKey.from_seed(bytes([n]) * 32).public for n in range(65)))


def test_two_seals_of_one_plaintext_share_nothing(opening_key):
    first, second = (age.Body(), io.BytesIO()), (age.Body(), io.BytesIO())
    for body, sink in (first, second):
        body.seal(io.BytesIO(bytes(100)), sink)
    assert first[1].getvalue()[:16] != second[1].getvalue()[:16]
    assert first[1].getvalue()[16:] != second[1].getvalue()[16:]


def test_no_header_line_is_classical(opening_key, other_key):
    header = age.Body().header(opening_key.public, other_key.public)
    arrows = [line.split(b" ")[1] for line in header.split(b"\n") if line.startswith(b"-> ")]
    assert arrows == [b"mlkem768x25519"] * 2


def test_classical_half_of_the_key_alone_does_not_open(opening_key):
    # The same X25519 scalar with another ML-KEM key: what breaking X25519 alone would give an eavesdropper.
    from cryptography.hazmat.primitives import hpke
    from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

    scalar = hashlib.shake_256(opening_key.seed).digest(96)[64:]
    half = OpeningKey.from_seed(b"\x23" * 32)
    half.private = hpke.MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes(64)), x25519.X25519PrivateKey.from_private_bytes(scalar)
    )
    assert outcome(io.BytesIO(sealed(b"x", opening_key)), [half])[0] == "no match"
