"""Frozen vectors of what is said of cases: bodies with their word, what each answer does to a thread, one alert."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from case_builders import case_record
from gateway.cases.alerts import Alert, AlertForm
from gateway.cases.threads import (
    ANSWER,
    MESSAGE,
    OVER,
    RECALL,
    REFERRAL,
    Answer,
    Answered,
    Recall,
    Referral,
    Said,
    ThreadState,
    heard,
)
from gateway.errors import MalformedError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "cases" / "cases.json").read_text())
READERS: dict[str, Callable[[dict[str, object]], Any]] = {
    REFERRAL: Referral.parse,
    ANSWER: Answered.parse,
    MESSAGE: Said.parse,
    RECALL: Recall.parse,
}


@pytest.mark.parametrize("vector", VECTORS["bodies"], ids=lambda vector: vector["name"])
def test_a_frozen_body_gets_its_word(vector: dict[str, Any]) -> None:
    if vector["expect"] == "ok":
        assert READERS[vector["kind"]](vector["body"]).body() == vector["body"]
        return
    with pytest.raises(MalformedError):
        READERS[vector["kind"]](vector["body"])


def test_each_kind_has_a_good_body_and_a_bad_one() -> None:
    for kind in READERS:
        assert {one["expect"] for one in VECTORS["bodies"] if one["kind"] == kind} == {"ok", "MalformedError"}


def test_every_answer_does_to_a_thread_what_the_table_says_and_nothing_brings_one_back() -> None:
    told = [
        [str(state), str(answer), None if (new := heard(state, answer)) is None else str(new)]
        for state in ThreadState
        for answer in Answer
    ]
    assert told == VECTORS["answers"]
    assert all(new is None for state, _, new in told if state in OVER)
    assert {new for state, _, new in told if state == ThreadState.RECALLED} == {None, "deleted"}


@pytest.mark.parametrize("form", AlertForm)
def test_an_alert_is_byte_for_byte_as_it_was(form: AlertForm) -> None:
    [person, _], contact = case_record().persons, case_record().contact
    assert contact is not None
    assert Alert("XA-NCVI", date(2026, 11, 18), person, contact).dump(form).decode() == VECTORS["alert"][form]
