"""What duties come to: the strictest counts, none is lost on the way, and an unknown one stops everything."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedError
from gateway.policy.duties import asks_for, carried, days_of, may_go_onward, parse_duties
from gateway.policy.words import COUNTED, MAX_DUTY_DAYS, Duty, Obligation

DAYS = st.integers(1, MAX_DUTY_DAYS)
DUTIES = st.one_of(
    st.builds(Obligation, st.sampled_from(sorted(COUNTED)), DAYS),
    st.builds(Obligation, st.sampled_from(sorted(set(Duty) - COUNTED))),
)
LISTS = st.lists(DUTIES, max_size=8)
# Words that are no duty, and duties without the number that they need or with one too many.
UNKNOWN = st.one_of(
    st.text(max_size=20).filter(lambda text: text not in {str(duty) for duty in set(Duty) - COUNTED}),
    st.sampled_from(
        ["retain_days", "no_onward(3)", "retain_days(0)", "no_onward ", "NO_ONWARD", "retain_days(999999)"]
    ),
).filter(lambda text: not text.startswith(("retain_days(", "acknowledge_within_days(")) or text.endswith("(0)"))


def texts(duties: Sequence[Obligation]) -> list[str]:
    return [str(one) for one in duties]


@given(LISTS)
def test_what_carries_no_onward_goes_nowhere_and_nothing_else_is_stopped(duties: list[Obligation]) -> None:
    assert may_go_onward(texts(duties)) == (Obligation(Duty.NO_ONWARD) not in duties)


@given(LISTS, UNKNOWN, st.integers(0, 8))
def test_an_unknown_duty_stops_everything(duties: list[Obligation], unknown: str, place: int) -> None:
    asked = texts(duties)
    asked.insert(place, unknown)
    assert not may_go_onward(asked)
    with pytest.raises(MalformedError):
        parse_duties(asked)
    with pytest.raises(MalformedError):
        carried(asked)


@given(LISTS, LISTS)
def test_duties_never_weaken_on_the_way(came: list[Obligation], added: list[Obligation]) -> None:
    went = parse_duties(carried(texts(came), added))
    for one in [*came, *added]:
        [found] = [other for other in went if other.duty is one.duty]
        assert found.days <= one.days
    # … and nothing is made up: each of them was asked for, word for word.
    assert set(went) <= {*came, *added}
    assert may_go_onward(texts(list(went))) == (may_go_onward(texts(came)) and may_go_onward(texts(added)))


@given(LISTS, LISTS, LISTS)
def test_it_does_not_matter_over_which_way_duties_come(
    first: list[Obligation], second: list[Obligation], third: list[Obligation]
) -> None:
    there = carried(carried(texts(first), second), third)
    assert there == carried(texts([*third, *first]), second) == carried(there)


@given(LISTS)
def test_the_fewest_days_count(duties: list[Obligation]) -> None:
    for duty in Duty:
        asked = [one.days for one in duties if one.duty is duty]
        assert days_of(texts(duties), duty) == (min(asked) if asked else None)
        assert asks_for(texts(duties), duty) == bool(asked)
