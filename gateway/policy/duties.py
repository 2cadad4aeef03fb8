"""What the duties of a label come to. Pure: texts as labels carry them come in, answers go out.

A hub names the duties of each label in its view, and a mirror keeps them. They bind whoever holds the entries, and stay
with them on their way: what goes on carries everything that came with it, and what the holder's own policy adds.

A word that this program does not know is a duty that it cannot keep. So such a label is not taken in (`parse_duties`
says no), and what is held under one goes nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from gateway.errors import ConfigError, MalformedError
from gateway.policy.words import Duty, Obligation, strictest

TOLD_TO_USERS = frozenset({Duty.RETAIN_DAYS, Duty.NO_ONWARD, Duty.COURT_USE_NEEDS_LEAVE})


def parse_duties(texts: Iterable[str]) -> tuple[Obligation, ...]:
    """The duties that a label carries, each once, the strictest of each.

    Raises:
        MalformedError: one of them is none of the closed list.
    """
    try:
        return strictest([Obligation.parse(text) for text in texts])
    except ConfigError as error:
        raise MalformedError(
            "a label carries a duty that is not known here", remedy="a newer version may be"
        ) from error


def are_known(texts: Iterable[str]) -> bool:
    """Whether each of these duties is of the closed list, so that it can be kept."""
    try:
        parse_duties(texts)
    except MalformedError:
        return False
    return True


def may_go_onward(texts: Iterable[str]) -> bool:
    """Whether entries under a label with these duties may go to a third party at all, whatever else allows it."""
    try:
        return Duty.NO_ONWARD not in {one.duty for one in parse_duties(texts)}
    except MalformedError:
        return False


def days_of(texts: Iterable[str], duty: Duty) -> int | None:
    """The fewest days that these duties give for one of them; None where they do not ask for it.

    Words that are not known here do not count here: `parse_duties` is who refuses them.
    """
    return min((one.days for one in _known(texts) if one.duty is duty), default=None)


def asks_for(texts: Iterable[str], duty: Duty) -> bool:
    """Whether a duty is among these."""
    return days_of(texts, duty) is not None


def for_users(texts: Iterable[str]) -> tuple[str, ...]:
    """What people who use such an entry are to be told; the other duties a gateway keeps by itself."""
    return tuple(str(one) for one in strictest(list(_known(texts))) if one.duty in TOLD_TO_USERS)


def carried(came: Iterable[str], added: Iterable[Obligation] = ()) -> tuple[str, ...]:
    """The duties with which entries go on: those that came with them and those that our policy adds, never fewer.

    Raises:
        MalformedError: what came with them is not known here, so nobody can say that it is kept.
    """
    return tuple(str(one) for one in strictest([*parse_duties(came), *added]))


def _known(texts: Iterable[str]) -> Iterator[Obligation]:
    for text in texts:
        with suppress(ConfigError):
            yield Obligation.parse(text)
