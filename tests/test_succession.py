"""Succession: the old key and the new key both sign, the number goes up by one, nothing can be replayed."""

import json

import pytest

from gateway.crypto import canonical, dsse, succession
from gateway.crypto.keys import SigningKey
from gateway.crypto.succession import sign_succession, verify_succession
from gateway.errors import MalformedError, VerificationError

AGENCY = "XA-NCVI"


@pytest.fixture(scope="module")
def first():
    return SigningKey.from_seeds(b"\x01" * 32, b"\x02" * 32)


@pytest.fixture(scope="module")
def second():
    return SigningKey.from_seeds(b"\x03" * 32, b"\x04" * 32)


@pytest.fixture(scope="module")
def third():
    return SigningKey.from_seeds(b"\x05" * 32, b"\x06" * 32)


@pytest.fixture(scope="module")
def raw(first, second):
    return sign_succession(AGENCY, 2, old=first, new=second, created=1_760_000_000)


def test_succession_hands_over_to_the_new_key(first, second, raw):
    statement = verify_succession(raw, agency=AGENCY, held=first.public, held_number=1)
    assert (statement.number, statement.key, statement.created) == (2, second.public, 1_760_000_000)


def test_chain_is_followed_link_by_link(first, second, third, raw):
    held = verify_succession(raw, agency=AGENCY, held=first.public, held_number=1)
    link = sign_succession(AGENCY, 3, old=second, new=third, created=1_770_000_000)
    assert verify_succession(link, agency=AGENCY, held=held.key, held_number=held.number).key == third.public
    with pytest.raises(VerificationError):
        verify_succession(link, agency=AGENCY, held=first.public, held_number=1)


@pytest.mark.parametrize(("agency", "number"), [("XB-NCVI", 1), (AGENCY, 2), (AGENCY, 0)])
def test_succession_of_another_agency_or_number_is_refused(first, raw, agency, number):
    with pytest.raises(VerificationError):
        verify_succession(raw, agency=agency, held=first.public, held_number=number)


def test_succession_from_a_key_that_is_not_held_is_refused(third, raw):
    with pytest.raises(VerificationError):
        verify_succession(raw, agency=AGENCY, held=third.public, held_number=1)


def payload_of(raw):
    return dsse.parse(raw).unverified_payload


def test_one_of_the_two_keys_alone_cannot_hand_over(first, second, third, raw):
    for signers in ((first,), (second,), (first, third), (third, second)):
        forged = dsse.sign(succession.PAYLOAD_TYPE, payload_of(raw), *signers)
        with pytest.raises(VerificationError):
            verify_succession(forged, agency=AGENCY, held=first.public, held_number=1)


def test_statement_signed_for_another_purpose_is_refused(first, second, raw):
    forged = dsse.sign("application/json", payload_of(raw), first, second)
    with pytest.raises(VerificationError):
        verify_succession(forged, agency=AGENCY, held=first.public, held_number=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(version="succession 2"),
        lambda v: v.update(extra=1),
        lambda v: v.pop("created"),
        lambda v: v.update(number=1),
        lambda v: v.update(number="2"),
        lambda v: v.update(agency="xa"),
        lambda v: v.update(key={}),
    ],
)
def test_another_statement_is_malformed(first, second, raw, change):
    value = json.loads(payload_of(raw))
    change(value)
    forged = dsse.sign(succession.PAYLOAD_TYPE, canonical.encode(value), first, second)
    with pytest.raises(MalformedError):
        verify_succession(forged, agency=AGENCY, held=first.public, held_number=1)


def test_key_cannot_succeed_itself_nor_stand_first(first, second):
    with pytest.raises(MalformedError):
        sign_succession(AGENCY, 2, old=first, new=first, created=1)
    with pytest.raises(MalformedError):
        sign_succession(AGENCY, 1, old=first, new=second, created=1)
