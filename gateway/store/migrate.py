"""Bringing a database to the newest schema, with Alembic, from the first version on."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from gateway.errors import ConfigError

_FOLDER = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Run the missing migrations, each in one transaction; a schema newer than this program is refused."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.connect() as connection:
        writing = connection.execution_options(write=True)
        with writing.begin():
            current = MigrationContext.configure(writing).get_current_revision()
            if current is not None and current not in known:
                raise ConfigError(
                    "the database was written by a newer version of the gateway", remedy="install that version"
                )
            config.attributes["connection"] = writing
            command.upgrade(config, "head")
