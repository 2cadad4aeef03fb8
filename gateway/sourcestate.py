"""Where we stand with the server that the settings name (`sourcing`): one sealed value in the database.

Alarms read it as well, so it stands below both.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Any

from gateway.crypto import canonical
from gateway.errors import MalformedError
from gateway.node import Node
from gateway.store import Transaction

META = "hash-sharing source"
SCOPE = "source"  # what `pause` stops with everything
MAX_STATE_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class State:
    """Where we stand with the server. Times are Unix seconds.

    Args:
        since: everything published up to then was taken.
        until: the end of the window that is being read, 0 between two windows.
        following, following_at: the next page of it, as the server named it, and when it did.
        failures: runs since the last good one.
        began: when it was first to be followed, 0 before.
    """

    url: str
    set_name: str
    since: int = 0
    until: int = 0
    following: str = ""
    following_at: int = 0
    next_run: int = 0
    failures: int = 0
    last_success: int = 0
    last_error: str = ""
    began: int = 0


def fresh(node: Node) -> State:
    """The beginning, with the server and the set that the settings name; without a URL there is none to follow."""
    return State(node.settings.hashsharing_url, node.settings.hashsharing_set)


def read(node: Node, tx: Transaction) -> State:
    """Where we stand; at the beginning, where the settings name another server or set than before."""
    text, beginning = tx.people.meta(META), fresh(node)
    if text is None:
        return beginning
    try:
        raw = node.keystore.master_key.open(base64.b64decode(text), META)
    except ValueError as error:
        raise MalformedError("where we stand with the server is not as it was written") from error
    members: Any = canonical.parse_canonical(raw, max_bytes=MAX_STATE_BYTES)
    state = State(**members)
    same = (state.url, state.set_name) == (beginning.url, beginning.set_name)
    return state if same else beginning


def write(node: Node, tx: Transaction, state: State) -> None:
    """Keep it."""
    raw = node.keystore.master_key.seal(canonical.encode(asdict(state)), META, node.random)
    tx.people.set_meta(META, base64.b64encode(raw).decode())
