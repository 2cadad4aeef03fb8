"""`scripts/soak`: seed after seed of simulated worlds, of kills and of damaged bytes, until the time is over.

`contract` asks a gateway what its OpenAPI contract allows, and what it does not. `nodes` is `kills` over PostgreSQL.
`link` moves sets over a slow link that breaks. `restore` loses a hub and brings it back from a backup. `postgresql`
runs every test on PostgreSQL, once for each seed.

A seed that fails is printed with the command that repeats it; the others still run. Exit 0 when all held, else 1.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # the worlds are those of the tests
sys.path.append(str(Path(__file__).parents[2]))

from fuzz import Fuzz
from restored import restore
from slow_link import slow_link

import postgres
from contract_run import ContractRun
from factory import DATABASE_VARIABLE
from kill_rounds import KillWorld
from simulation import World

STEPS = 80  # deeds of one simulated world; five times as many as in the tests
KILLS = 30  # of one seed, as in the tests
MUTANTS = 1_000  # of each document and seed: some seconds
EXAMPLES = 300  # of each operation at most, for one seed; fifteen times as many as in the tests
DEFAULT_MINUTES = 10.0
ON_POSTGRESQL = {DATABASE_VARIABLE: "postgresql"}


def simulate(seed: int) -> str:
    """One world of three gateways."""
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as place:
        world = World(Path(place), seed)
        try:
            world.run(STEPS)
        finally:
            for exchange in world.network.members.values():
                exchange.node.store.close()
    return f"{STEPS} deeds"


def kill(seed: int) -> str:
    """One pair of gateways whose processes are killed."""
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as place:
        world = KillWorld(Path(place), seed)
        try:
            world.run(KILLS)
        finally:
            world.close()
        return world.report.summary


def link(seed: int) -> str:
    """One set pulled and one pushed over a slow link."""
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as place:
        return slow_link(Path(place), seed)


def bring_back(seed: int) -> str:
    """One hub that lives on from a backup."""
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as place:
        return restore(Path(place), seed)


def damage(seed: int) -> str:
    """Every parser with damaged documents."""
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as place:
        fuzz = Fuzz(Path(place))
        try:
            taken = fuzz.run(seed, MUTANTS)
        finally:
            fuzz.close()
    return f"{MUTANTS * len(taken):,} damaged documents, {sum(taken.values()):,} of them still sound"


def hold_contract(seed: int) -> str:
    """One gateway that is asked from its contract."""
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as place, ContractRun(Path(place), seed=seed) as run:
        report = run.run(examples=EXAMPLES)
    assert not report.failures, "\n".join(f"{title}: {said}" for title, said in report.failures.items())
    return f"{report.answers.total():,} answers, each as the contract has it"


def kill_nodes(seed: int) -> str:
    """One pair of gateways over PostgreSQL whose processes are killed."""
    with mock.patch.dict(os.environ, ON_POSTGRESQL):
        try:
            return kill(seed)
        finally:
            postgres.drop_made()


def run_suite(seed: int) -> str:
    """Every test on PostgreSQL, but those about SQLite's own file; the seed is that of the properties."""
    command = [sys.executable, "-m", "pytest", "-n", str(os.cpu_count() or 1), "--dist", "worksteal", "-p", "no:cov"]
    done = subprocess.run(
        [*command, f"--hypothesis-seed={seed}"],
        cwd=Path(__file__).parents[2],
        env=os.environ | ON_POSTGRESQL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    return done.stdout.strip().rpartition("\n")[2]


SOAKS: dict[str, Callable[[int], str]] = {
    "simulation": simulate,
    "fuzz": damage,
    "contract": hold_contract,
    "kills": kill,
    "nodes": kill_nodes,
    "link": link,
    "restore": bring_back,
    "postgresql": run_suite,
}
LONG = {"postgresql"}  # as long as all tests take: only by name


def main() -> int:
    """Run what is asked; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, help=f"how long (default {DEFAULT_MINUTES:g}, without --seeds)")
    parser.add_argument("--seeds", type=_range, metavar="A-B", help="which seeds (default: from 1 on, without end)")
    parser.add_argument("--only", choices=list(SOAKS), action="append", help="which soak; may be repeated")
    asked = parser.parse_args()
    minutes = asked.minutes if asked.minutes or asked.seeds else DEFAULT_MINUTES
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    failed: list[str] = []
    for seed in asked.seeds or itertools.count(1):
        for name in asked.only or (name for name in SOAKS if name not in LONG):
            if time.monotonic() < end:
                failed += _one(name, seed)
        if time.monotonic() >= end:
            break
    print("every seed held" if not failed else "failed: " + ", ".join(failed))
    return 1 if failed else 0


def _one(name: str, seed: int) -> list[str]:
    start = time.monotonic()
    try:
        said = SOAKS[name](seed)
    except Exception:
        traceback.print_exc()
        print(f"FAILED {name} seed {seed}; again: scripts/soak --only {name} --seeds {seed}-{seed}", flush=True)
        return [f"{name} seed {seed}"]
    print(f"{name} seed {seed}: {said} ({time.monotonic() - start:.0f} s)", flush=True)
    return []


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(main())
