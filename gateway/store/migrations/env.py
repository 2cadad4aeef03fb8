"""Alembic's environment: the connection comes from `gateway.store.migrate`, inside its transaction."""

from alembic import context
from sqlmodel import SQLModel

from gateway.store import tables

assert tables.Meta.metadata is SQLModel.metadata
context.configure(connection=context.config.attributes["connection"], target_metadata=SQLModel.metadata)
context.run_migrations()
