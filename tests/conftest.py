"""On which database a test runs: SQLite unless `GATEWAY_TEST_DATABASE` says otherwise, both where it matters.

The suites of `BOTH` run once on each at every check; `scripts/soak --only postgresql` runs the others on PostgreSQL.
And what keeps all of them quick: see `UNTRACED`, `statements` and the order of the tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import postgres
import statements  # noqa: F401  every database of this process shares what is compiled
from factory import DATABASE_VARIABLE

# Worlds of chance and of faults: they run the same lines thousands of times, and other tests say which lines these are.
# To note each line takes as long again as to run it, so the coverage is taken without them.
UNTRACED = frozenset({"test_drills", "test_faults", "test_kills", "test_log_tampering", "test_simulation"})
# Processes that tests start may keep what Python compiles, whatever forbids it here: they are hundreds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
BOTH = frozenset({"test_store", "test_exchange", "test_schedule", "test_faults"})


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite: about SQLite's own file; never run on another database")
    config.addinivalue_line("markers", "postgresql: about PostgreSQL; never run on another database")
    config.addinivalue_line("markers", "once: long, and not about the database; at a check on SQLite alone")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in UNTRACED:
            item.add_marker("no_cover")
    # The longest first: at the end no worker is left alone with one of them.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker, chosen = metafunc.definition.get_closest_marker, DATABASE_VARIABLE in os.environ
    if only := [kind for kind in ("sqlite", "postgresql") if marker(kind)]:
        metafunc.parametrize("database", only, indirect=True)
    elif metafunc.module.__name__ in BOTH and not chosen and not marker("once"):
        metafunc.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The kind of database that this test's gateways use."""
    kind: str = getattr(request, "param", os.environ.get(DATABASE_VARIABLE, "sqlite"))
    monkeypatch.setenv(DATABASE_VARIABLE, kind)
    before = postgres.made()  # by fixtures of a whole module, which were there first
    yield kind
    postgres.drop_made(before)


@pytest.fixture(autouse=True, scope="module")
def _databases_of_a_module() -> Iterator[None]:
    """What fixtures of a whole module made goes with it."""
    yield
    postgres.drop_made()
