"""Watching: sweeps for alarms each minute, and hands what is untold to the program that the settings name.

    asyncio.run(serve(exchange, …, background=[schedule.run_forever(), Watch(node).run_forever()]))

Rules:

1. The alarm command is one program, started without arguments and without a shell. It gets the alarm on its standard
   input, one JSON object on one line (contracts/alarms.md), and nothing of the gateway's environment but what finding
   programs takes. What it prints is dropped.
2. Exit code 0 within `MAX_SECONDS` says that the alarm was told. Else it stays untold and is handed over again a minute
   later: at least once, never surely once, so whoever must not act twice goes by its id and level.
3. Nothing waits for it: the schedule and the doors go on, whatever the command does.
4. Without a command, each alarm gets a line in the operating log, and stands in `gateway alarm list`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from gateway.alarms import AlarmKind, alarm_json, sweep
from gateway.errors import ConfigError, GatewayError, PartnerError
from gateway.node import Node
from gateway.store.tables import AlarmRow

T = TypeVar("T")
LOG = logging.getLogger(__name__)
SWEEP_SECONDS = 60
MAX_SECONDS = 30  # of one call: a mail server that is asked takes seconds
MAX_CALLS = 20  # of one round, so that a round ends; the rest follows in the next
_REMEDY = "run it by hand with `gateway alarm test`"
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ")  # of the environment; passphrases may lie in the rest


class Run(Protocol):
    """How blocking work is run."""

    async def __call__(self, function: Callable[..., T], /, *args: object) -> T:
        """The function's result."""


class Watch:
    """Keeps one node's alarms up to date, and tells them.

    Args:
        run: how blocking work is run.
        max_seconds: how long the alarm command may take.
    """

    def __init__(self, node: Node, *, run: Run = asyncio.to_thread, max_seconds: float = MAX_SECONDS) -> None:
        self._node = node
        self._run = run
        self._max_seconds = max_seconds
        self._logged: set[tuple[int | None, int]] = set()

    async def run_forever(self) -> None:
        """Look and tell each minute, until cancelled. A round that fails is followed by the next."""
        while True:
            try:
                await self.look()
            except GatewayError as error:
                LOG.warning("alarms wait: %s", error.message)
            await asyncio.sleep(SWEEP_SECONDS)

    async def look(self) -> int:
        """One round: alarms stand as things stand now, and what was untold is told. Returns how many were."""
        await self._run(sweep, self._node)
        waiting = await self._run(self._untold)
        for row in waiting:
            if (row.id, row.level) not in self._logged:
                LOG.warning("alarm %s: %s", row.id, row.kind)
                self._logged.add((row.id, row.level))
        told = 0
        if self._node.settings.alarm_command:
            for row in waiting[:MAX_CALLS]:
                try:
                    await self.tell(row)
                except (ConfigError, PartnerError) as error:
                    # The others would most likely fail in the same way; the next round is a minute away.
                    LOG.warning("an alarm could not be told: %s", error.message)
                    break
                await self._run(self._note_told, row)
                told += 1
        return told

    async def test(self) -> None:
        """The alarm command has taken a test alarm, which stands in no list.

        Raises:
            ConfigError, PartnerError: as `tell`.
        """
        detail = "a test, asked for on the command line"
        now = self._node.clock()
        await self.tell(
            AlarmRow(id=0, kind=AlarmKind.TEST, subject="", level=0, detail=detail, evidence="", raised=now)
        )

    async def tell(self, row: AlarmRow) -> None:
        """The alarm command has taken an alarm.

        Raises:
            ConfigError: there is no command, or it cannot be started.
            PartnerError: it failed, or took too long.
        """
        settings = self._node.settings
        if not settings.alarm_command:
            raise ConfigError("no alarm command is set", place="alarm_command", remedy="name one in the settings")
        try:
            process = await asyncio.create_subprocess_exec(
                settings.path_of(settings.alarm_command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=settings.folder,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                start_new_session=True,  # with a process group of its own, which can be ended whole
            )
        except OSError as error:
            raise ConfigError(
                "the alarm command cannot be started", place="alarm_command", remedy="check its path and its rights"
            ) from error
        try:
            async with asyncio.timeout(self._max_seconds):
                await process.communicate(alarm_json(row, settings.agency))
        except TimeoutError as error:
            raise PartnerError("the alarm command took too long", remedy=_REMEDY) from error
        finally:
            if process.returncode is None:  # it took too long, or the server ends meanwhile
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            raise PartnerError("the alarm command failed", remedy=_REMEDY)

    def _untold(self) -> list[AlarmRow]:
        with self._node.store.reading() as tx:
            return tx.alarms.untold()

    def _note_told(self, row: AlarmRow) -> None:
        with self._node.store.transaction() as tx:
            tx.alarms.note_told(row.id or 0, row.level, self._node.clock())
