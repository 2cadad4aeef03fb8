"""How doors read queries and write JSON: one spelling in, one spelling out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp import web

from gateway.crypto import canonical
from gateway.errors import MalformedError

NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_RANGE = re.compile(r"bytes=([1-9][0-9]{0,15})-")
_TAG = re.compile(r'"([0-9a-f]{64})"')


def json_answer(value: Mapping[str, object], *, status: int = 200) -> web.Response:
    """An answer in canonical JSON."""
    return web.Response(status=status, body=canonical.encode(value), content_type="application/json")


def parse_query(request: web.Request, wanted: Mapping[str, re.Pattern[str]]) -> dict[str, str]:
    """The query of a request: exactly the members wanted, each once and in its one spelling.

    Raises:
        MalformedError: another member, one missing or repeated, an escape, or a value of another form.
    """
    raw = request.rel_url.raw_query_string
    members = [part.partition("=") for part in raw.split("&")]
    values = {name: value for name, _, value in members}
    if len(members) != len(wanted) or values.keys() != wanted.keys():
        raise MalformedError(f"the query is not exactly {', '.join(wanted)}")
    for name, form in wanted.items():
        if form.fullmatch(values[name]) is None:
            raise MalformedError("a value of the query is not in its form", place=f"query, {name}")
    return values


def parse_numbers(request: web.Request, *names: str) -> tuple[int, ...]:
    """The numbers of a query that holds exactly these, decimal and without leading zeroes."""
    query = parse_query(request, dict.fromkeys(names, NUMBER))
    return tuple(number(query, name) for name in names)


def number(query: Mapping[str, str], name: str, most: int = canonical.MAX_INTEGER) -> int:
    """A number of a parsed query, within its bound."""
    value = int(query[name])
    if value > most:
        raise MalformedError(f"a number of the query is above {most}", place=f"query, {name}")
    return value


def asked_rest(request: web.Request) -> tuple[int, str] | None:
    """(first byte, entity tag) where a caller asks for the rest of what it was sent under that tag.

    Any other `Range` is passed over, as RFC 9110 14.2 lets a server do, and one without `If-Range` as well: nobody can
    join parts of envelopes that it did not name.
    """
    first = _RANGE.fullmatch(request.headers.get("Range", ""))
    tag = _TAG.fullmatch(request.headers.get("If-Range", ""))
    return None if first is None or tag is None else (int(first[1]), tag[1])
