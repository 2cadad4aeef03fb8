"""Gateways in a row: each knows its two neighbours alone, and policy lets what the first one owns go on to the last.

    network = chain(tmp_path, clock, 5)         # XA-NCVI - XB-NCVI - XC-NCVI - XD-NCVI - XE-NCVI

The law is invented, and as wide as can be: everything goes to everybody in an agreement. Tests narrow it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from factory import SHIPPED_POLICIES, FakeClock, befriend, make_node
from gateway.exchange import Exchange
from partner_simulator import Network, held_entries

ACTIONS = (
    "share_existence",
    "share_cryptographic_digests",
    "share_perceptual_digests",
    "share_series",
    "share_victim_status",
    "forward",
    "receive",
)
RULE = """
@id("{rule}")
@law("Agreement of {us} and {them} for tests, article {article}")
@says("{action} is permitted.")
@reviewed_by("Office of invented laws")
@valid_until("2036-12-31")
{obligation}permit (
  principal in Agreement::"{name}",
  action == Action::"{action}",
  resource
);
"""
ALL = ("XA-NCVI", "XB-NCVI", "XC-NCVI", "XD-NCVI", "XE-NCVI")


def agreement(us: str, them: str, *, actions: Iterable[str] = ACTIONS, obligation: str = "") -> str:
    """An agreement's file: each action permitted, under the same duties."""
    name = "-".join(sorted((us.lower(), them.lower())))
    duty = f'@obligation("{obligation}")\n' if obligation else ""
    return "".join(
        RULE.format(
            rule=f"{us}-{them}-{action}".lower().replace("_", "-"),
            us=us,
            them=them,
            article=number,
            action=action,
            name=name,
            obligation=duty if action != "receive" else "",
        )
        for number, action in enumerate(actions, 1)
    )


def policy_folder(folder: Path, agencies: Iterable[str], neighbours: Iterable[tuple[str, str]]) -> Path:
    """A folder with the federation's rules and an agreement for each pair of neighbours, on both sides."""
    folder.mkdir()
    shutil.copy(SHIPPED_POLICIES / "schema.cedarschema", folder)
    shutil.copytree(SHIPPED_POLICIES / "00-federation", folder / "00-federation")
    for agency in agencies:
        (folder / agency[:2]).mkdir()
    for one, other in neighbours:
        for us, them in ((one[:2], other[:2]), (other[:2], one[:2])):
            (folder / us / f"agreement-{them.lower()}.cedar").write_text(agreement(us, them), encoding="utf-8")
    return folder


def chain(tmp_path: Path, clock: FakeClock, length: int, **settings: Any) -> Network:
    """So many gateways in a row, over one network."""
    agencies = ALL[:length]
    folder = policy_folder(tmp_path / "policies", agencies, pairwise(agencies))
    nodes = [make_node(tmp_path, name, clock=clock, policies=str(folder), **settings) for name in agencies]
    for here, there in pairwise(nodes):
        befriend(here, there)
    network = Network()
    for node in nodes:
        network.join(node)
    return network


def set_rules(exchange: Exchange, them: str, text: str) -> None:
    """Another text of a gateway's agreement with a partner's country, in force at once."""
    policies = exchange.node.policies
    name = f"{exchange.node.agency[:2]}/agreement-{them[:2].lower()}.cedar"
    policies.texts = {**policies.texts, name: text}
    policies._loaded = None


def sync_down(network: Network) -> None:
    """Everybody syncs with everybody whom it knows, from the first to the last: once."""
    for here, there in pairwise(list(network.members)):
        asyncio.run(network.sync(there, here).sync())


def sync_up(network: Network) -> None:
    """The same from the last to the first."""
    for there, here in pairwise(list(network.members)[::-1]):
        asyncio.run(network.sync(there, here).sync())


def contents(exchange: Exchange, name: str, *columns: str) -> dict[int, tuple[object, ...]]:
    """By entry what is held of some columns, and its version."""
    found = held_entries(exchange, name)
    return {entry: (one["version"], *(one.get(column) for column in columns)) for entry, one in found.items()}
