"""What keeps the suite quick, and changes nothing of what it proves. A pytest plugin, named in `conftest`.

1. SQLAlchemy compiles each statement once for an engine. A gateway has one engine for as long as it runs; tests open
   thousands, and compiling the same hundred statements for each took a fifth of their time. The documented option
   `compiled_cache` lets all connections share what was compiled. What is sent to the database is the same.
2. The coverage looks at every line that runs, which takes as long again as running it. Worlds of chance, of faults and
   of attacks run the same lines thousands of times, and other tests say which lines these are: see `UNTRACED`.
3. The longest tests come first: at the end no worker is left alone with one of them.
4. Modules and tests are never garbage, and are not looked through for some again and again.
5. Processes that tests start may keep what Python compiles, whatever the environment says: they are hundreds.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Generator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.util import LRUCache

UNTRACED = frozenset(
    {
        "test_adversary",
        "test_drills",
        "test_faults",
        "test_hostile_partner",
        "test_kills",
        "test_log_tampering",
        "test_simulation",
    }
)
MAX_STATEMENTS = 2_000  # several times those of the gateway on both databases

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


class Statements(LRUCache[Any, Any]):
    """Compiled statements by the kind of database, where SQLAlchemy's key begins with the dialect of one engine."""

    __slots__ = ()

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((type(key[0]), *key[1:]), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((type(key[0]), *key[1:]), value)


_COMPILED = Statements(MAX_STATEMENTS)


@event.listens_for(Engine, "engine_connect")
def _share_statements(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_COMPILED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What `is_traced` leaves out runs without the coverage's look at every line.

    The marker `no_cover` of pytest-cov does not do it: with pytest-xdist a worker has two measurements, and when one is
    paused the other goes on.
    """
    if is_traced(item):
        return (yield)
    here, in_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]  # as it was before anybody set one
    try:
        return (yield)
    finally:
        sys.settrace(here)
        threading.settrace(in_threads)  # type: ignore[arg-type]


def is_traced(item: pytest.Item) -> bool:
    """Whether a test says which lines of the gateway are run."""
    callspec = getattr(item, "callspec", None)
    # What runs on both databases takes the same lines twice, but for those of the store, whose own tests say which.
    again = callspec is not None and callspec.params.get("database") == "postgresql"
    by_itself = item.path.stem == "test_store" or item.get_closest_marker("postgresql") is not None
    return item.path.stem not in UNTRACED and (by_itself or not again)
