"""Gateways as a unit runs them: the installed `gateway` command, its own process, a real socket on a free port.

    with Fleet(tmp_path) as fleet:
        xa, xb = fleet.found("XA-NCVI", "XB-NCVI")
        fleet.befriend(xa, xb)
        server = fleet.serve(xb)
        xa.run("push", "--to", "XB-NCVI", "--set", "found")
        server.kill()                                       # SIGKILL; `fleet.serve(xb)` starts it again

Every process that a fleet started is ended when the block ends, by its own handle and never by its name.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from factory import CHEAP, database_to_found, enrol
from gateway.config import Settings
from gateway.home import found, open_home
from gateway.keyadmin import export_card

T = TypeVar("T")
R = TypeVar("R")
COMMAND = str(Path(sys.executable).with_name("gateway"))
SET_OPTIONS = {
    "--purpose": "victim_identification",
    "--legal-basis": "XA Police Data Act 2019, section 12",
    "--category": "icse:1",
    "--handling": "H1",
    "--evaluation": "B2",
}
READY_SECONDS = 30.0  # far above the bound on a start, which tests state themselves
COMMAND_SECONDS = 120.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Installed:
    """One founded gateway: its data folder, and the command line for it."""

    agency: str
    home: Path
    port: int
    passphrase_file: Path

    @property
    def passphrase(self) -> str:
        """The gateway's passphrase."""
        return self.passphrase_file.read_text()

    def argv(self, *arguments: str) -> list[str]:
        """The whole command."""
        return [COMMAND, "--home", str(self.home), "--passphrase-file", str(self.passphrase_file), *arguments]

    def run(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; an assertion shows what it said when it ends with another exit code."""
        done = subprocess.run(
            self.argv(*arguments),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == expect, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def ask(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        return json.loads(self.run("--json", *arguments).stdout)


@dataclass
class Served:
    """A running `gateway serve`. `ready_seconds`: from its start to its first answer that it is ready."""

    gateway: Installed
    process: subprocess.Popen[bytes]
    output: Path
    ready_seconds: float = 0.0

    def said(self) -> str:
        """Everything that it has written to stdout and stderr."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as the service manager sends it; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(READY_SECONDS)


@dataclass
class Fleet:
    """Gateways below one folder, and the processes that run them."""

    folder: Path
    running: list[Served] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for served in self.running:
            if served.process.poll() is None:
                served.kill()

    def found(self, *agencies: str, **settings: Any) -> list[Installed]:
        """New gateways for invented data, each listening on a port of its own.

        Founded and enrolled by the same functions as the commands use, but in this process: a command costs a second.

        Args:
            settings: further keys of `gateway.config.Settings`, for all of them.
        """
        gateways = []
        for agency in agencies:
            port, secret = free_port(), self.folder / f"{agency}.passphrase"
            secret.touch(mode=0o600)
            secret.write_text(f"a passphrase of {agency}")
            gateway = Installed(agency, self.folder / agency, port, secret)
            chosen = Settings(
                folder=gateway.home,
                agency=agency,
                jurisdiction=agency[:2],
                listen_port=port,
                public_url=f"http://127.0.0.1:{port}",
                demo=True,
                quorum=1,
                **database_to_found(),
                **settings,
            )
            found(chosen, gateway.passphrase, name=f"National unit of {agency[:2]}", cost=CHEAP)
            gateways.append(gateway)
        return gateways

    def befriend(self, *gateways: Installed) -> None:
        """Every gateway holds the identity card of every other."""
        nodes = [open_home(one.home, one.passphrase) for one in gateways]
        for here, there in itertools.permutations(nodes, 2):
            enrol(here, export_card(there))
        for node in nodes:
            node.store.close()

    def serve(self, gateway: Installed) -> Served:
        """Start `gateway serve` and wait until it answers that it is ready."""
        output = self.folder / f"{gateway.agency}.{next(self._numbers)}.output"
        began = time.monotonic()
        with output.open("wb") as sink:
            process = subprocess.Popen(
                gateway.argv("serve"), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment()
            )
        served = Served(gateway, process, output)
        self.running.append(served)
        while not is_ready(gateway.port):
            assert process.poll() is None, f"{gateway.agency} ended at its start:\n{served.said()}"
            assert time.monotonic() - began < READY_SECONDS, f"{gateway.agency} is not ready:\n{served.said()}"
            time.sleep(0.02)
        served.ready_seconds = time.monotonic() - began
        return served


def side_by_side(deed: Callable[[T], R], those: Iterable[T]) -> list[R]:
    """One deed with each of those at the same time; the results in their order."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(deed, those))


def is_ready(port: int) -> bool:
    """Whether a gateway on this port says that it is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def environment() -> dict[str, str]:
    """Ours, without anything that would change what the commands do, and with cheap guesses."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return kept | {"GATEWAY_DEMO_ARGON2_KIB": str(CHEAP.memory_kib), "NO_COLOR": "1"}
