"""Bare batches of cedarpy, in as many processes as ours: what a program without tables, rules of law or receipts asks.

It imports nothing of this project, so that its processes start as fast as they can.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cedarpy

BATCH = 512  # requests of one call
CONTEXT = json.dumps({"surface": {"__entity": {"type": "Surface", "id": "sealed"}}})

Attributes = dict[str, object]
_READY: list[tuple[cedarpy.PolicySet, cedarpy.Schema, list[Attributes], Sequence[str]]] = []


def decide(
    texts: tuple[str, str], partners: list[Attributes], actions: Sequence[str], labels: list[Attributes], processes: int
) -> int:
    """How many cells are allowed, each asked of the engine once.

    Args:
        texts: all rules, and the schema.
        partners: entities in Cedar's JSON form, ready made; so are `labels`.
    """
    pieces = [labels[start : start + 200] for start in range(0, len(labels), 200)]
    prepared = (*texts, partners, actions)
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_prepare, initargs=prepared) as pool:
        return sum(sum(answers) for answers in pool.map(_decide, pieces))


def _prepare(rules: str, schema: str, partners: list[Attributes], actions: Sequence[str]) -> None:
    _READY.append((cedarpy.PolicySet.from_str(rules), cedarpy.Schema.from_str(schema), partners, actions))


def _decide(labels: list[Attributes]) -> list[bool]:
    rules, schema, partners, actions = _READY[0]
    entities = cedarpy.Entities.from_json_str(json.dumps([*partners, *labels]), schema)
    requests = [
        {
            "principal": partner["uid"],
            "action": {"type": "Action", "id": action},
            "resource": label["uid"],
            "context": CONTEXT,
        }
        for label in labels
        for partner in partners
        for action in actions
    ]
    answers = []
    for start in range(0, len(requests), BATCH):
        found = cedarpy.is_authorized_batch(requests[start : start + BATCH], rules, entities, schema)
        answers += [one.allowed for one in found]
    return answers
