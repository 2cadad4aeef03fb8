"""Canonical JSON: RFC 8785's own vectors, an independent implementation, and hostile texts."""

import json
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import canonical
from gateway.errors import MalformedError, TooLargeError

VECTORS = Path(__file__).parent / "vectors" / "canonical"
HOSTILE = json.loads((VECTORS / "hostile.json").read_text())
LIMIT = 1_000_000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-canonical.MAX_INTEGER, canonical.MAX_INTEGER) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("name", ["arrays", "french", "unicode", "weird"])
def test_vector_of_the_standard_encodes_as_published(name):
    value = canonical.parse_json((VECTORS / f"{name}.input.json").read_bytes(), max_bytes=LIMIT)
    assert canonical.encode(value) == (VECTORS / f"{name}.output.json").read_bytes()


@pytest.mark.parametrize("name", ["structures", "values"])
def test_vector_with_floats_is_refused(name):
    with pytest.raises(MalformedError, match="floats"):
        canonical.parse_json((VECTORS / f"{name}.floats.json").read_bytes(), max_bytes=LIMIT)


@given(values)
@settings(max_examples=300)
def test_encoding_agrees_with_an_independent_implementation(value):
    assert canonical.encode(value) == rfc8785.dumps(value)


@given(values)
@settings(max_examples=200)
def test_parsing_gives_back_what_was_encoded(value):
    raw = canonical.encode(value)
    assert canonical.parse_canonical(raw, max_bytes=LIMIT) == value


@given(st.binary(max_size=40))
@settings(max_examples=300)
def test_any_bytes_parse_or_are_refused_by_our_error(raw):
    try:
        value = canonical.parse_json(raw, max_bytes=LIMIT)
    except MalformedError:
        return
    # Whatever passes is a value that can be written and read again.
    assert canonical.parse_canonical(canonical.encode(value), max_bytes=LIMIT) == value


@pytest.mark.parametrize(("rule", "text"), HOSTILE["refused"])
def test_hostile_text_is_refused(rule, text):
    with pytest.raises(MalformedError):
        canonical.parse_json(text.encode("latin-1"), max_bytes=LIMIT)


@pytest.mark.parametrize(("rule", "text"), HOSTILE["accepted"])
def test_unusual_but_valid_text_is_accepted(rule, text):
    raw = text.encode("latin-1")
    assert canonical.parse_json(raw, max_bytes=LIMIT) == json.loads(raw)


@pytest.mark.parametrize("raw", [b"[" * 500_000, b'{"a":' * 200_000, b"[" * 33 + b"]" * 33, b'["\\"",' * 100_000])
def test_depth_is_refused_before_it_can_exhaust_the_stack(raw):
    with pytest.raises(MalformedError, match="levels"):
        canonical.parse_json(raw, max_bytes=LIMIT)


def test_brackets_inside_texts_are_not_levels():
    assert canonical.parse_json(b'["[[[[\\"[[[[\\\\", {"]{{{{": "{"}]', max_bytes=LIMIT, max_depth=2)


def test_depth_bound_itself_is_accepted():
    raw = b"[" * 32 + b"]" * 32
    assert canonical.encode(canonical.parse_json(raw, max_bytes=LIMIT)) == raw


def test_text_over_the_byte_bound_is_too_large():
    with pytest.raises(TooLargeError):
        canonical.parse_json(b"[0]", max_bytes=2)


def test_number_of_many_digits_is_refused_without_being_computed():
    with pytest.raises(MalformedError):
        canonical.parse_json(b"9" * LIMIT, max_bytes=LIMIT)


@pytest.mark.parametrize("raw", [b'{"b":1,"a":2}', b"[1, 2]", b'"\\u0061"', b"[1]\n", b'"\\/"', b'"\\u000A"'])
def test_another_spelling_is_not_canonical(raw):
    canonical.parse_json(raw, max_bytes=LIMIT)
    with pytest.raises(MalformedError, match="canonical form"):
        canonical.parse_canonical(raw, max_bytes=LIMIT)


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), 2**53, -(2**53), {1: "a"}, {"a": b"x"}, "\ud800", {"\udc00": 1}, {1, 2}, object()]
)
def test_value_that_json_cannot_hold_exactly_is_not_encoded(value):
    with pytest.raises(MalformedError):
        canonical.encode(value)


def test_endless_value_is_not_encoded():
    value: list = []
    value.append(value)
    with pytest.raises(MalformedError, match="levels"):
        canonical.encode(value)


def test_names_are_sorted_by_utf16_and_not_by_code_point():
    # U+10000 is D800 DC00 in UTF-16 and so stands before U+FF5E, which code points would put first.
    assert canonical.encode({"\uff5e": 1, "\U00010000": 2}) == '{"\U00010000":2,"\uff5e":1}'.encode()
