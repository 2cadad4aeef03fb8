"""Bringing a database to the newest schema, with Alembic, from the first version on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from gateway.errors import ConfigError

_FOLDER = Path(__file__).parent / "migrations"


def upgrade(engine: Engine, check: Callable[[Connection], None], revision: str = "head") -> None:
    """Run the missing migrations in one transaction; a schema newer than this program is refused.

    Args:
        check: raises for a new database in which a store cannot be.
        revision: up to and with which one.
    """
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.connect() as connection:
        writing = connection.execution_options(deed="schema")
        with writing.begin():
            current = MigrationContext.configure(writing).get_current_revision()
            if not {current, revision} - {None, "head"} <= known:
                raise ConfigError(
                    "the database was written by a newer version of the gateway", remedy="install that version"
                )
            if current is None:
                check(writing)
            config.attributes["connection"] = writing
            command.upgrade(config, revision)
