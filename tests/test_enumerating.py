"""Many decisions in several processes are those of one."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
from datetime import date
from pathlib import Path

import pytest

from gateway import enumerating, policy
from gateway.config import read_policies
from gateway.errors import OverloadedError
from gateway.model import ENTRY_GROUPS, HandlingCode, Label, Surface, VictimStatus
from gateway.policy import Action, Grid, LabelInSet, PartnerRef, PolicySet, Purpose, Question

FOLDER = Path(__file__).parent.parent / "policies"
ASKED = (
    *(Question(Action.share(group)) for group in ENTRY_GROUPS),
    *(Question(action) for action in (Action.FORWARD, Action.RECEIVE)),
    *(Question(action, purpose) for action in (Action.LOOK_UP, Action.REFER) for purpose in Purpose),
)


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return policy.load(read_policies(FOLDER, "XA"), on=date(2026, 11, 22))


@pytest.fixture(scope="module")
def grid() -> Grid:
    """Every handling code and victim status, of our own entries, a partner's and a third country's."""
    axes = itertools.product((("XA", ()), ("XB", ("XC",)), ("XD", ())), HandlingCode, VictimStatus, ("A1", "C4"))
    labels = tuple(
        LabelInSet("XA-NCVI/list", Label(f"{owner}-NCVI", owner, code, "icse:1", status, grade, "invented", (), onward))
        for (owner, onward), code, status, grade in axes
    )
    return Grid((PartnerRef("XB-NCVI", "XB"), PartnerRef("XC-NCVI", "XC")), Surface.SEALED, labels, ASKED)


def test_several_processes_decide_as_one_and_in_order(
    policies: PolicySet, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = list(policies.decide_all(grid))
    assert len({row[0].allowed for row in alone}) == 2
    monkeypatch.setattr(enumerating, "AT_ONCE", grid.cells // 7)
    assert list(enumerating.decide_all(policies, grid, processes=2)) == alone
    assert multiprocessing.active_children() == []


def test_a_small_grid_is_decided_in_this_process(
    policies: PolicySet, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert grid.cells < enumerating.PAYS_FROM
    monkeypatch.setattr(enumerating, "ProcessPoolExecutor", None)
    assert len(list(enumerating.decide_all(policies, grid))) == len(grid.labels) * len(grid.partners)


def test_a_process_that_is_ended_from_outside_is_an_error_not_an_answer(
    policies: PolicySet, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enumerating, "AT_ONCE", 1)
    rows = enumerating.decide_all(policies, grid, processes=2)
    next(rows)
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(OverloadedError, match="ended"):
        list(rows)


def test_who_needs_no_more_ends_the_processes(policies: PolicySet, grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enumerating, "AT_ONCE", 1)
    rows = enumerating.decide_all(policies, grid, processes=2)
    next(rows)
    rows.close()  # type: ignore[attr-defined]  # it is a generator
    assert multiprocessing.active_children() == []


def test_a_grid_is_cut_into_whole_labels_in_order(grid: Grid) -> None:
    for cells in (1, 100, 10**9):
        pieces = list(grid.pieces(cells))
        assert tuple(label for piece in pieces for label in piece.labels) == grid.labels
        assert sum(piece.cells for piece in pieces) == grid.cells
    assert len(list(grid.pieces(1))) == len(grid.labels)
    assert len(list(grid.pieces(10**9))) == 1


def test_a_policy_set_travels_as_its_texts_and_its_day(policies: PolicySet, grid: Grid) -> None:
    again = pickle.loads(pickle.dumps(policies))
    assert (again.digest, again.on, again.rules) == (policies.digest, policies.on, policies.rules)
    assert list(again.decide_all(grid)) == list(policies.decide_all(grid))
