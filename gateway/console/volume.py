"""What was sent and received in the last weeks, as a picture and as a table.

Days lie side by side; what was sent stands above the line, what was received hangs below it, on one scale: which is
which can be told without colours. The same numbers stand in a table, for whoever does not see the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.console.pages import Desk
from gateway.logsearch import LogSearch

DAYS = 30
HALF = 60  # height of the picture above and below the line
STEP, WIDTH = 20, 14  # of one day
LEAST = 1  # of a day with so little that it would not be seen


@dataclass(frozen=True, slots=True)
class Bar:
    """One day. `x`: where it stands; `up` and `down`: how far it reaches, in units of the picture."""

    day: str
    sent: int
    received: int
    x: int
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Volume:
    """The last days, the oldest first. `most`: what the picture's half height stands for."""

    bars: tuple[Bar, ...]
    sent: int
    received: int
    most: int


def volume(desk: Desk) -> Volume:
    """What the log says of the last days, as far as its index has been brought up."""
    days = [(day, counts.get("sent", 0), counts.get("received", 0)) for day, counts in LogSearch(desk.node).days(DAYS)]
    most = max(max(sent, received) for _, sent, received in days)
    bars = tuple(
        Bar(day, sent, received, STEP * place + (STEP - WIDTH) // 2, _height(sent, most), _height(received, most))
        for place, (day, sent, received) in enumerate(days)
    )
    return Volume(bars, sum(one.sent for one in bars), sum(one.received for one in bars), most)


def _height(count: int, most: int) -> int:
    return max(LEAST, round(HALF * count / most)) if count else 0
