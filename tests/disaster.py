"""A gateway founded for real, lost, and restored from its backup with the signatures of two administrators.

hub = founded(folder, "XA-NCVI", clock)          two administrators, policies as shipped
back_up(hub, file)                               sealed for an offline key of the tests
hub = restored(file, other_folder, clock)        goes on, as soon as both have signed
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory import CHEAP, PASSPHRASE, FakeClock, SeededRandom
from gateway import backup, beginning
from gateway.approvals import DONE, Arguments
from gateway.backup import Opened
from gateway.config import Settings
from gateway.crypto.keys import OpeningKey, SigningKey
from gateway.home import found, open_home
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.node import Node

ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))
OFFLINE = OpeningKey.from_seed(b"offline key of tests, 32 octets!")


def founded(folder: Path, agency: str, clock: FakeClock, **settings: Any) -> Node:
    """A gateway in `folder/agency` with two administrators."""
    chosen = Settings(folder=folder / agency, agency=agency, jurisdiction=agency[:2], **settings)
    found(chosen, PASSPHRASE, name=f"Unit of {agency}", clock=clock, random=SeededRandom(agency), cost=CHEAP)
    node = open_home(chosen.folder, PASSPHRASE, clock=clock, random=SeededRandom(f"{agency} at work"))
    for one in (ONE, TWO):
        bootstrap_administrator(node, one.name, one.signing_key.public)
    return node


def back_up(node: Node, file: Path) -> Path:
    """Make a backup; returns its file."""
    backup.create(node, file, [OFFLINE.public])
    return file


def restored(file: Path, folder: Path, clock: FakeClock) -> Node:
    """The gateway from its backup, after the ceremony."""
    backup.restore(Opened(file, OFFLINE, PASSPHRASE), folder, clock=clock)
    waiting = open_home(folder, PASSPHRASE, clock=clock, random=SeededRandom(f"{folder} waits"), restored=True)
    assert do(waiting, beginning.resume(waiting), ONE, TWO) == DONE
    waiting.store.close()
    return open_home(folder, PASSPHRASE, clock=clock, random=SeededRandom(f"{folder} goes on"))


def do(node: Node, act: tuple[str, Arguments], *people: PersonalKey) -> str:
    """Propose an act and have it signed; returns the proposal's state."""
    desk = approvals(node)
    identifier = desk.propose(*act, by=people[0].name)
    for one in people:
        desk.sign(identifier, one)
    return desk.get(identifier).state
