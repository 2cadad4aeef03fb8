"""Seeded worlds of three gateways under faults; `scripts/soak` runs many more."""

from pathlib import Path

import pytest

from simulation import World

STEPS = 15  # deeds of each world; the soak takes five times as many


@pytest.mark.parametrize("seed", range(20))
def test_every_mirror_holds_what_policy_says_after_the_storm(tmp_path: Path, seed: int) -> None:
    World(tmp_path, seed).run(STEPS)


def test_a_seed_makes_the_same_world_twice(tmp_path: Path) -> None:
    logs = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        world = World(tmp_path / run, 4)
        world.run(10)
        logs.append(world.log)
    assert logs[0] == logs[1]
