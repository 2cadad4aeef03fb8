"""Every SQL statement is compiled once for all the databases of a test process.

SQLAlchemy compiles a statement once for each engine, and keeps it there. A gateway has one engine for as long as it
runs; tests open thousands, each of which would compile some hundred statements anew: a fifth of the suite's time. Its
documented option `compiled_cache` lets connections share what was compiled. What is sent to the database is the same.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.util import LRUCache

MAX_STATEMENTS = 2_000  # several times those of the gateway on both databases


class Statements(LRUCache[Any, Any]):
    """Compiled statements by the kind of database, where SQLAlchemy's key begins with the dialect of one engine."""

    __slots__ = ()

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((type(key[0]), *key[1:]), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((type(key[0]), *key[1:]), value)


_COMPILED = Statements(MAX_STATEMENTS)


@event.listens_for(Engine, "engine_connect")
def _share(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_COMPILED)
