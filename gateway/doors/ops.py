"""The operators' door: is the gateway alive, is it ready, how much did it do.

`/health/live` says that the process answers; `/health/ready` that the database answers and a policy is in force.
`/metrics` is the Prometheus text format 0.0.4 with counts only, never a name of a partner or a set. It is for this
machine: a caller from another address, or one that came through a proxy under our public name, finds nothing there.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.alarms import AlarmKind
from gateway.doors.guards import Handler, RunningServer
from gateway.doors.wire import json_answer
from gateway.errors import ConfigError, GatewayError, NotFoundError, OverloadedError
from gateway.keylife import KeyState, days_left
from gateway.node import Node
from gateway.partners import policy_is_in_force
from gateway.problems import problem

Gauges: TypeAlias = dict[str, list[tuple[dict[str, str], int]]]  # samples with their labels, by metric
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")  # what `Host` says when this machine asks itself


@dataclass(slots=True)
class Meters:
    """What is counted while the server runs. `server` is set once it listens."""

    answers: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    server: RunningServer | None = None

    def middleware(self) -> Middleware:
        """Counts each answer by method, route template and status."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            route = resource.canonical if resource is not None else "none"
            status = 500
            try:
                response = await handler(request)
                status = response.status
            except web.HTTPException as error:
                status = error.status
                raise
            except GatewayError as error:
                status = problem(error)[0]
                raise
            finally:
                # Callers may invent methods, but not new lines here.
                method = request.method if request.method in METHODS else "other"
                self.answers[method, route, status] += 1
            return response

        return count


class OpsDoor:
    """The routes for operators and their monitoring."""

    def __init__(self, node: Node, meters: Meters) -> None:
        self._node = node
        self._meters = meters

    def routes(self) -> list[web.RouteDef]:
        """What the application serves of this door."""
        return [
            web.get("/health/live", self.get_live, allow_head=False),
            web.get("/health/ready", self.get_ready, allow_head=False),
            web.get("/metrics", self.get_metrics, allow_head=False),
        ]

    async def get_live(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return json_answer({"status": "live"})

    async def get_ready(self, _request: web.Request) -> web.Response:
        """Database and policy are there."""
        try:
            await asyncio.to_thread(check_exchanging, self._node)
        except GatewayError as error:
            # Why is for the operator's log and `gateway status`, not for whoever asks here.
            raise OverloadedError("the gateway is not ready") from error
        return json_answer({"status": "ready"})

    async def get_metrics(self, request: web.Request) -> web.Response:
        """Counts, for this machine alone."""
        if not is_local(request):
            raise NotFoundError("there is nothing here")
        text = "\n".join(self._lines(await asyncio.to_thread(self._gauges))) + "\n"
        return web.Response(body=text.encode(), headers={"Content-Type": METRICS_TYPE})

    def _gauges(self) -> Gauges:
        now = self._node.clock()
        with self._node.store.reading() as tx:
            states = Counter(row.state for row in tx.people.partners())
            sets = tx.sets.all()
            jobs = tx.schedule.jobs()
            counts = {
                "gateway_log_leaves": tx.log.size(),
                "gateway_log_cosigned_leaves": tx.witness.largest_cosigned(),
                "gateway_partners_active": states["active"],
                "gateway_partners_other": states.total() - states["active"],
                "gateway_sets_own": sum(not row.hub for row in sets),
                "gateway_sets_followed": sum(bool(row.hub) for row in sets),
                "gateway_sets_diverged": sum(row.equality == "different" for row in sets),
                "gateway_sync_jobs": len(jobs),
                "gateway_sync_failing": sum(bool(job.failures) for job in jobs),
                "gateway_paused_scopes": len(tx.people.pauses()),
            }
            open_alarms = tx.alarms.counts()
            ends = [(key.purpose, key.expires) for key in tx.keys.own() if key.state == KeyState.ACTIVE and key.expires]
        purposes = sorted({purpose for purpose, _ in ends})
        nearest = {one: min(expires for purpose, expires in ends if purpose == one) for one in purposes}
        gauges: Gauges = {name: [({}, value)] for name, value in counts.items()}
        # Every kind has its line, so that a monitor need not guess whether none is open or nobody counts.
        gauges["gateway_alarms_open"] = [({"kind": kind}, open_alarms.get(kind, 0)) for kind in AlarmKind]
        gauges["gateway_key_days_left"] = [
            ({"purpose": purpose}, days_left(expires, now)) for purpose, expires in nearest.items()
        ]
        return gauges

    def _lines(self, gauges: Gauges) -> Iterator[str]:
        for name, samples in gauges.items():
            yield from _metric(name, "gauge", samples)
        server = self._meters.server
        if server is not None:
            yield from _metric("gateway_connections", "gauge", [({}, server.connections)])
            refused = [({"reason": reason}, count) for reason, count in sorted(server.refusals.items())]
            yield from _metric("gateway_refusals_total", "counter", refused)
        answers = [
            ({"method": method, "route": route, "status": str(status)}, count)
            for (method, route, status), count in sorted(self._meters.answers.items())
        ]
        yield from _metric("gateway_answers_total", "counter", answers)


def check_ready(node: Node) -> None:
    """Returns when the database answers and there is a policy to decide by; raises what is in the way."""
    with node.store.reading() as tx:
        tx.log.size()
    _ = node.policy.digest


def check_exchanging(node: Node) -> None:
    """The same, and that policy is the one in force: without it nothing is exchanged."""
    check_ready(node)
    with node.store.reading() as tx:
        if not policy_is_in_force(tx, node):
            raise ConfigError("this process does not decide by the policy in force yet")


def _metric(name: str, kind: str, samples: Iterable[tuple[dict[str, str], int]]) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{shown}}} {value}" if shown else f"{name} {value}"


def _escaped(text: str) -> str:
    """A label value, as the exposition format escapes it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def is_local(request: web.Request) -> bool:
    """Whether this machine asks itself, by a loopback name: a proxy here would pass on our public name."""
    try:
        local = ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False
    host = request.headers.get("Host", "")
    return local and any(host == name or host.startswith(f"{name}:") for name in LOOPBACK_HOSTS)
