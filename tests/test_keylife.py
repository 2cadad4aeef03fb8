"""The life of a key: what may follow what, and when its end is told."""

from __future__ import annotations

import itertools

import pytest

from gateway.errors import ConflictError
from gateway.keylife import ALARM_DAYS, DAY_SECONDS, TRANSITIONS, KeyState, alarm_level, check_transition, days_left

# NIST SP 800-57 Part 1 Rev. 5, section 7: written out once more, so that a slip in the table is seen.
ALLOWED = {
    ("pre-active", "active"), ("pre-active", "compromised"), ("pre-active", "destroyed"),
    ("active", "suspended"), ("active", "deactivated"), ("active", "compromised"), ("active", "destroyed"),
    ("suspended", "active"), ("suspended", "deactivated"), ("suspended", "compromised"), ("suspended", "destroyed"),
    ("deactivated", "compromised"), ("deactivated", "destroyed"),
    ("compromised", "destroyed"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), list(itertools.product(KeyState, repeat=2)))
def test_only_the_transitions_of_the_standard_are_allowed(old: KeyState, new: KeyState) -> None:
    if (str(old), str(new)) in ALLOWED:
        check_transition(old, new)
    else:
        with pytest.raises(ConflictError, match="cannot become"):
            check_transition(old, new)


def test_every_state_but_destroyed_leads_to_destroyed() -> None:
    assert TRANSITIONS.keys() == set(KeyState)
    assert all(KeyState.DESTROYED in after for state, after in TRANSITIONS.items() if state is not KeyState.DESTROYED)


@pytest.mark.parametrize("day", ALARM_DAYS)
def test_an_alarm_day_begins_with_its_first_second_and_lasts_to_the_next(day: int) -> None:
    end = 1000 * DAY_SECONDS
    assert alarm_level(end, end - day * DAY_SECONDS) == day
    assert alarm_level(end, end - day * DAY_SECONDS - 1) != day
    nearer = max((one for one in ALARM_DAYS if one < day), default=0)
    assert alarm_level(end, end - nearer * DAY_SECONDS - 1) == day


def test_what_is_far_off_is_no_alarm_and_what_is_over_is_the_nearest() -> None:
    end = 1000 * DAY_SECONDS
    assert alarm_level(end, 0) is None
    assert (alarm_level(end, end), alarm_level(end, end + DAY_SECONDS), days_left(end, end + DAY_SECONDS)) == (0, 0, -1)
