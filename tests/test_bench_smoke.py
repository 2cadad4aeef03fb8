"""`scripts/bench --quick`: every figure can be taken, and its line can be read by a program."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHES = (
    *("import", "accept", "delta", "poll", "age", "envelope", "policy", "audit", "lookup", "memory"),
    *("near", "repair", "postgresql", "classes", "taxii", "hashsharing", "notice", "console", "scale", "large"),
)
MAX_CPU_SECONDS = 80  # some 40 on a quiet machine; wall time depends on what else runs
LINE = re.compile(
    r"(?P<name>[a-z0-9.-]+) +\| +(?P<value>[\d,.e+]+) (?P<unit>\S+) \| "
    r"(?:-|x(?P<ratio>[\d,.e+-]+) \((?P<least>[\d,.e+-]+?)-(?P<most>[\d,.e+]+)\) of (?P<baseline>.+) "
    r"\((?P<base_value>[\d,.e+]+) \S+\)) \| (?P<target>-|target \d+: .+: (?:met|not met|not judged))"
)

pytestmark = [pytest.mark.slow, pytest.mark.sqlite]  # a bench weighs the file of its database


def bench(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "benches"), "--quick", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def test_every_figure_is_taken_and_its_line_can_be_read() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    machine, *lines = bench().splitlines()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert machine.startswith("# cores ")
    assert "python" in machine
    assert "sqlite" in machine
    figures = [LINE.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(figures), "a line of another form"
    names = {figure["name"] for figure in figures if figure}
    assert len(names) == len(figures), "two figures of one name"
    assert {re.split(r"[.-]", name)[0] for name in names} == set(BENCHES)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MAX_CPU_SECONDS


def test_figures_for_machines_carry_their_baseline() -> None:
    said = json.loads(bench("--json", "policy"))
    assert said["quick"] is True
    assert said["machine"]["python"]
    assert {figure["name"] for figure in said["figures"]} >= {"policy.fill", "policy.apply"}
    for figure in said["figures"]:
        assert figure["value"] > 0
        assert figure["met"] is None, "tiny sizes are not judged"
        if figure["ratio"]:
            median, least, most = figure["ratio"]
            assert least <= median <= most
            assert figure["baseline"]
            assert figure["base_value"] > 0


def test_an_unknown_figure_is_refused_with_the_names_that_exist() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "benches"), "speed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such figure: speed" in done.stderr
    assert "lookup" in done.stderr
