"""Templates, and the files that pages bring with them.

Templates escape everything that they are given, and an unknown name is an error, not an empty space. Assets are served
under names that hold their digest: a browser may keep them for ever, and never shows a page with an older script.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from gateway.console.pages import Page, Visit
from gateway.signin import Role, Session

TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
# What the line at the top of a page may say after a redirect: a closed list, so that no address makes a page say more.
SAID: Mapping[str, str] = {
    "done": "Done.",
    "proposed": "Proposed. It waits for the other signatures.",
    "signed": "Signed.",
    "acted": "Signed by enough administrators, and done.",
    "withdrawn": "Withdrawn.",
    "invited": "Invited.",
    "removed": "Removed.",
    "ended": "Ended.",
    "confirmed": "Confirmed. You can go on.",
    "paused": "Stopped at once.",
    "queued": "It begins now.",
    "closed": "Closed, on record.",
}
# Name, address, who sees it, and the key that leads there after "g".
NAVIGATION = (
    ("Now", "/", frozenset(Role), "n"),
    ("Cases", "/cases", frozenset({Role.ANALYST}), "c"),
    ("Look-up", "/look-up", frozenset({Role.ANALYST}), "u"),
    ("Sync", "/sync", frozenset({Role.ANALYST, Role.ADMINISTRATOR}), "s"),
    ("Partners", "/partners", frozenset({Role.ADMINISTRATOR, Role.AUDITOR}), "p"),
    ("Keys", "/keys", frozenset({Role.ADMINISTRATOR, Role.AUDITOR}), "k"),
    ("Policy", "/policy", frozenset(Role), "y"),
    ("Approvals", "/approvals", frozenset({Role.ADMINISTRATOR, Role.AUDITOR}), "a"),
    ("Log", "/log", frozenset({Role.ADMINISTRATOR, Role.AUDITOR}), "l"),
    ("Statistics", "/statistics", frozenset(Role), "t"),
    ("People", "/people", frozenset({Role.ADMINISTRATOR}), "e"),
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages bring with them."""

    body: bytes
    media_type: str


class Renderer:
    """Makes pages of one gateway.

    Args:
        agency: whose console it is; it stands at the top of each page.
        routes: the addresses that there are, so that the navigation leads nowhere else.
    """

    def __init__(self, agency: str, routes: frozenset[str]) -> None:
        self.assets: dict[str, Asset] = {}
        names: dict[str, str] = {}
        for file in sorted(files("gateway.console").joinpath("assets").iterdir(), key=lambda one: one.name):
            stem, _, kind = file.name.rpartition(".")
            body = file.read_bytes()
            name = f"{stem}.{hashlib.sha256(body).hexdigest()[:16]}.{kind}"
            self.assets[name], names[file.name] = Asset(body, TYPES[kind]), f"/assets/{name}"
        self._environment = Environment(
            loader=PackageLoader("gateway.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(asset=names.__getitem__, agency=agency, Role=Role, level=level)
        self._environment.filters.update(
            when=when,
            day=day,
            amount=amount,
            plural=plural,
            short=short,
            duration=duration,
            ago=ago,
            commands=commands,
        )
        self._routes = routes

    def render(self, page: Page, visit: Visit, *, now: int) -> str:
        """The page as HTML."""
        someone = visit.someone
        values = {
            "session": someone,
            "token": lambda: _form_token(someone),
            "now": now,
            "said": SAID.get(visit.query.get("said", ""), ""),
            "navigation": [
                (name, address, key)
                for name, address, roles, key in NAVIGATION
                if someone is not None and roles & someone.roles and address in self._routes
            ],
            **page.values,
        }
        return self._environment.get_template(page.template).render(values)


# What templates call


def level(kind: str, word: str = "") -> Markup:
    """A coloured word; the colour never says more than the word does."""
    return Markup('<span class="level level-{}">{}</span>').format(kind, word or kind)


def _form_token(someone: Session | None) -> Markup:
    if someone is None:
        return Markup()
    return Markup('<input type="hidden" name="form_token" value="{}">').format(someone.form_token)


# Filters


def when(at: int) -> Markup:
    """A moment: the machine's form for scripts, and for people the UTC time."""
    if not at:
        return Markup("never")
    moment = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.strftime("%Y-%m-%d %H:%M UTC")
    )


def day(at: int) -> Markup:
    """A day."""
    if not at:
        return Markup("never")
    moment = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{0}">{0}</time>').format(moment.strftime("%Y-%m-%d"))


def amount(number: int) -> str:
    """A count: 20,000."""
    return f"{number:,}"


def plural(number: int, one: str, many: str = "") -> str:
    """A count with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: int) -> str:
    """A length of time, in its largest unit."""
    for unit, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if abs(seconds) >= unit:
            return plural(seconds // unit, name)
    return plural(seconds, "second")


def ago(seconds: int) -> str:
    """How long ago; a page that is made anew every few seconds says the same for a minute."""
    return f"{duration(seconds)} ago" if seconds >= 60 else "just now"


def commands(text: str) -> Markup:
    """A sentence in which commands stand between backticks."""
    parts = [
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def short(identifier: str) -> Markup:
    """The beginning of a long identifier; the whole of it in its title."""
    return Markup('<code title="{}">{}</code>').format(identifier, escape(identifier[:12]))
