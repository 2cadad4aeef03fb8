"""The tables of the console: who may use it, by which passkeys, and who is signed in.

Each row carries a MAC under a key of the keystore (`signin`): whoever writes the database signs nobody in.
"""

from __future__ import annotations

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel


class ConsolePerson(SQLModel, table=True):
    """Somebody who may use the console. `roles`: separated by spaces; none once their time has ended."""

    __tablename__ = "console_person"
    name: str = Field(primary_key=True)
    roles: str
    added: int = Field(sa_type=BigInteger)
    mac: bytes = b""


class ConsolePasskey(SQLModel, table=True):
    """A public key at somebody's authenticator. `credential`: base64url; `key`: COSE; `label`: what they call it."""

    __tablename__ = "console_passkey"
    credential: str = Field(primary_key=True)
    person: str = Field(foreign_key="console_person.name", index=True)
    key: bytes
    label: str
    origin: str
    added: int = Field(sa_type=BigInteger)
    used: int = Field(default=0, sa_type=BigInteger)
    mac: bytes = b""


class ConsoleInvitation(SQLModel, table=True):
    """An invitation that waits to be taken up, under the SHA-256 of its token."""

    __tablename__ = "console_invitation"
    digest: bytes = Field(primary_key=True)
    person: str
    roles: str
    by: str
    expires: int = Field(sa_type=BigInteger)
    mac: bytes = b""


class ConsoleSession(SQLModel, table=True):
    """Somebody who is signed in, under the SHA-256 of their cookie. `id`: what people call the session by.

    `stepped_up`: when they last proved again that it is they; `peer` and `agent`: from where, with which browser.
    """

    __tablename__ = "console_session"
    digest: bytes = Field(primary_key=True)
    id: str = Field(unique=True)
    person: str = Field(index=True)
    key_id: str
    created: int = Field(sa_type=BigInteger)
    used: int = Field(sa_type=BigInteger)
    stepped_up: int = Field(sa_type=BigInteger)
    peer: str
    agent: str
    mac: bytes = b""


class LogFacet(SQLModel, table=True):
    """By what a leaf of the audit log is found."""

    __tablename__ = "log_facet"
    __table_args__ = {"sqlite_with_rowid": False}
    facet: str = Field(primary_key=True)
    value: str = Field(primary_key=True)
    leaf: int = Field(primary_key=True, sa_type=BigInteger)


class LogCount(SQLModel, table=True):
    """What the leaves of the audit log add up to, by year, partner ("" for ourselves) and what is counted."""

    __tablename__ = "log_count"
    year: int = Field(primary_key=True)
    partner: str = Field(primary_key=True)
    measure: str = Field(primary_key=True)
    amount: int = Field(sa_type=BigInteger)


class LogDayCount(SQLModel, table=True):
    """What the leaves of the last weeks add up to, by day (YYYY-MM-DD, UTC) and what is counted, of all partners."""

    __tablename__ = "log_day_count"
    day: str = Field(primary_key=True)
    measure: str = Field(primary_key=True)
    amount: int = Field(sa_type=BigInteger)
