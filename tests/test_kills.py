"""SIGKILL at random moments of every deed; `kill_rounds` says what is checked after each, `scripts/soak` runs more."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from pathlib import Path

import pytest

from kill_rounds import MAX_RESTART_SECONDS, KillWorld
from processes import SET_OPTIONS, Fleet, Installed, environment

WORLDS = 2
KILLS = 30  # in each of two worlds
ROWS = 3_000
TRIES = 2

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(1, WORLDS + 1))
def test_nothing_acknowledged_is_lost_and_nothing_doubled_when_processes_are_killed(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    world = KillWorld(tmp_path, seed)
    try:
        report = world.run(KILLS)
    finally:
        world.close()
    with capsys.disabled():
        print(f"\nseed {seed}: {report.summary}")
    assert report.kills.total() >= KILLS


def test_the_installed_command_goes_on_where_it_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{hashlib.sha256(f'row {n}'.encode()).hexdigest()}\n" for n in range(ROWS)))
    source, into = random.Random(5), ("--set", "found", "--format", "digest_list")
    with Fleet(tmp_path) as fleet:
        xa, xb = fleet.found("XA-NCVI", "XB-NCVI")
        fleet.befriend(xa, xb)
        began = time.monotonic()
        xa.run("set", "create", "found", *(word for pair in SET_OPTIONS.items() for word in pair))
        usual = time.monotonic() - began  # most of it is the interpreter, the imports and the opening
        # 1. The import, killed while it works, then done again: every row is there once.
        killed_after(usual * source.uniform(0.8, 1.4), xa, "import", str(listed), *into)
        done = xa.ask("import", str(listed), *into)
        assert (done["added"] + done["unchanged"], done["refused"]) == (ROWS, 0)
        # 2. The push: killed at the sender, then at the receiver, whose server starts again in time.
        server = fleet.serve(xb)
        killed_after(usual * source.uniform(0.8, 1.4), xa, "push", "--to", "XB-NCVI", "--set", "found")
        starts = []
        for _ in range(TRIES):
            server.kill()
            server = fleet.serve(xb)
            starts.append(server.ready_seconds)
        xa.run("push", "--to", "XB-NCVI", "--set", "found")
        [mirror] = xb.ask("set", "list")
        assert (mirror["entries"], mirror["equality"]) == (ROWS, "equal")
        [receipt] = xa.ask("receipt", "list")
        assert receipt["until_seq"] == ROWS
        assert xb.ask("audit", "verify")["holds"]
        assert server.stop() == 0
    with capsys.disabled():
        print(f"\n`gateway serve` after SIGKILL: ready in {min(starts):.1f} to {max(starts):.1f} s")
    # The program can start in this time; other work on this machine may stand in its way once.
    assert min(starts) < MAX_RESTART_SECONDS


def killed_after(seconds: float, gateway: Installed, *arguments: str) -> None:
    """Run a command, and SIGKILL it after so long, if it has not ended."""
    process = subprocess.Popen(
        gateway.argv(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
