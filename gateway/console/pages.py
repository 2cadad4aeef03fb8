"""What screens are made of: who visits, and what they are answered. No HTTP library in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from gateway.approvals import Approvals
from gateway.errors import MalformedError, NotFoundError, UnauthenticatedError
from gateway.exchange import Exchange
from gateway.node import Node
from gateway.policymatrix import Matrices
from gateway.signin import Role, Session, SignIn

EVERY_ROLE = frozenset(Role)
ADMINISTRATORS = frozenset({Role.ADMINISTRATOR})
ANALYSTS = frozenset({Role.ANALYST})
READERS_OF_THE_LOG = frozenset({Role.ADMINISTRATOR, Role.AUDITOR})


@dataclass(frozen=True, slots=True)
class Desk:
    """The collaborators of every screen. `matrices` were decided for somebody before."""

    exchange: Exchange
    signin: SignIn
    approvals: Approvals
    matrices: Matrices = field(default_factory=Matrices)

    @property
    def node(self) -> Node:
        """The gateway's node."""
        return self.exchange.node


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, read: where, what was asked for, what was filled in, and who it is.

    `path`: the parts of the address that vary; `query`, `form`: each name once. `body`: of an upload, else empty.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    someone: Session | None = None
    peer: str = ""
    agent: str = ""

    @property
    def session(self) -> Session:
        """Who is signed in. UnauthenticatedError where nobody is."""
        if self.someone is None:
            raise UnauthenticatedError("nobody is signed in here")
        return self.someone

    def filled(self, name: str) -> str:
        """A field of the form that must be filled in."""
        value = self.form.get(name, "").strip()
        if not value:
            raise MalformedError(f"the field '{name.replace('_', ' ')}' is empty")
        return value

    def number(self, name: str, default: int, *, most: int) -> int:
        """A number in the query, from 0 to `most`."""
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or int(text) > most:
            raise MalformedError(f"'{name}' is not a number up to {most}")
        return int(text)


@dataclass(frozen=True, slots=True)
class Page:
    """A page, or with `fragment` a part of one: the template's name, and what it is filled with."""

    template: str
    values: Mapping[str, object] = field(default_factory=dict)
    status: int = 200
    fragment: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """Go there next (303). `said`: a line for the top of that page, by its key in `rendering.SAID`."""

    to: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class Download:
    """A file to keep."""

    body: bytes
    media_type: str
    name: str


@dataclass(frozen=True, slots=True)
class Data:
    """JSON for a script of ours."""

    value: Mapping[str, object]
    status: int = 200


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session has begun: the cookie goes with the answer."""

    cookie: str
    to: str = "/"


@dataclass(frozen=True, slots=True)
class SignedOut:
    """The session has ended: the cookie is taken back."""

    to: str = "/sign-in"


Answer: TypeAlias = Page | Redirect | Download | Data | SignedIn | SignedOut
Screen: TypeAlias = Callable[[Desk, Visit], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """One address. `roles`: who may come; None: everybody, signed in or not.

    `guarded`: wants the passkey once more, lately. `upload`: the body is taken as it is, up to so many bytes.
    `data`: it answers a script of ours with JSON. `live`: the answer (a fragment) is sent again and again as
    server-sent events, every so many seconds.
    """

    method: str
    path: str
    screen: Screen
    roles: frozenset[Role] | None
    guarded: bool = False
    upload: int = 0
    live: int = 0
    data: bool = False


def get(path: str, screen: Screen, roles: frozenset[Role] | None, *, live: int = 0, data: bool = False) -> Route:
    """An address to look at."""
    return Route("GET", path, screen, roles, live=live, data=data)


def post(path: str, screen: Screen, roles: frozenset[Role] | None, *, guarded: bool = False, upload: int = 0) -> Route:
    """An address that does something."""
    return Route("POST", path, screen, roles, guarded=guarded, upload=upload)


def missing() -> NotFoundError:
    """What every absent or forbidden page says."""
    return NotFoundError("there is nothing here")
