"""What partners tell each other about third agencies' logs: the heads that they witnessed (log 1, rule 12).

    {"logs":[{"agency":"XC-NCVI","at":1795000000,"note":"partner-exchange/XC-NCVI/log/1\\n12\\n…"}]}

A head proves itself by the signature of its log. Who tells it is believed in nothing but when it was seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import MalformedError
from gateway.model import AGENCY, int_member, require, text_member

# One head of a log: its lines and its own signature, some 300 bytes. Two of them must fit into an audit event.
MAX_HEAD_BYTES = 8 * 1024
MAX_TOLD_LOGS = 200  # more than there are agencies
MAX_TOLD_BYTES = 2 << 20  # as many heads, in JSON


@dataclass(frozen=True, slots=True)
class ToldLog:
    """An agency's log as a partner witnessed it; `at` in Unix seconds, by its clock."""

    agency: str
    note: bytes
    at: int


def told_json(told: Iterable[ToldLog]) -> dict[str, object]:
    """The answer whose member `logs` `parse_told` reads."""
    return {"logs": [{"agency": one.agency, "note": one.note.decode(), "at": one.at} for one in told]}


def parse_told(value: object) -> tuple[ToldLog, ...]:
    """The logs in a partner's answer.

    Raises:
        MalformedError: not a list of agencies with a note and a time each, or longer than the contract allows.
    """
    if not isinstance(value, list) or len(value) > MAX_TOLD_LOGS:
        raise MalformedError("witnessed logs: not a list within bounds")
    return tuple(_parse_one(one) for one in value)


def _parse_one(value: object) -> ToldLog:
    if not isinstance(value, dict) or set(value) != {"agency", "at", "note"}:
        raise MalformedError("witnessed logs: members are not those of the contract")
    agency, note = text_member(value, "agency"), text_member(value, "note").encode()
    require(AGENCY.fullmatch(agency), "witnessed logs: not an agency")
    require(len(note) <= MAX_HEAD_BYTES, "witnessed logs: a head is too large")
    return ToldLog(agency, note, int_member(value, "at"))
