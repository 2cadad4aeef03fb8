"""The stage of the demo: gateways as processes of their own, their command line, and the words for the audience.

Every deed goes through the public command `gateway …` in a process of its own, as a person would do it; `commands`
says how so many of them start so soon. Whatever happens, the processes that were started here are ended here, each by
its own process id.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from commands import Commands

COMMAND = Path(sys.executable).with_name("gateway")
SETTINGS_FILE = "gateway.toml"
PASSPHRASE = "only invented data is behind this"
ARGON2_KIB = 8192  # cheap guesses: the program grants them to demos alone
SYNC_SECONDS = 5  # the shortest interval that the settings take
START_SECONDS = 60
STOP_SECONDS = 15
AT_ONCE = (os.cpu_count() or 1) + 1  # commands; more would only stand in each other's way
POLL_SECONDS = 0.5  # each look is a command, which takes its share of the machine
WIDTH = 100  # columns
INDENT = "   "

T = TypeVar("T")
Json = Any  # what a command printed: the story takes it apart


class StageError(Exception):
    """The demo cannot go on; the words are for whoever runs it."""


class Teller:
    """Prints the story: plain text, with colours on a terminal."""

    def __init__(self) -> None:
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._chapter = 0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the story began."""
        return time.monotonic() - self._began

    def title(self, text: str) -> None:
        """The words at the beginning and at the end."""
        self._print(self._paint(("\n" if self._chapter else "") + _filled(text, "", ""), "1"))

    def chapter(self, title: str) -> None:
        """A new chapter."""
        self._chapter += 1
        self._print("\n" + self._paint(f"{self._chapter:>2}  {title}", "1;36"))

    def say(self, text: str, *, indent: str = INDENT) -> None:
        """A paragraph."""
        self._print(_filled(text, indent, indent))

    def point(self, text: str) -> None:
        """One of several things."""
        filled = _filled(text, f"{INDENT}- ", f"{INDENT}  ")
        self._print(filled)

    def good(self, text: str) -> None:
        """Something that held."""
        filled = _filled(text, f"{INDENT}✓ ", f"{INDENT}  ")
        self._print(self._paint(filled, "32"))

    def bad(self, text: str) -> None:
        """Something that was refused, as it should be."""
        filled = _filled(text, f"{INDENT}✗ ", f"{INDENT}  ")
        self._print(self._paint(filled, "31"))

    def line(self, text: str) -> None:
        """A line as it is."""
        self._print(INDENT + text)

    def command(self, agency: str, typed: str) -> None:
        """What somebody typed."""
        self._print(self._paint(f"{INDENT}{agency[:2]}$ {typed}", "2"))

    def table(self, rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """A table; its first row is the heading. The columns of `right` end on one line."""
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = [
                cell.rjust(width) if at in right else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            line = (INDENT + "  ".join(cells)).rstrip()
            self._print(self._paint(line, "1") if number == 0 else line)

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text

    def _print(self, text: str) -> None:
        print(text, flush=True)


@dataclass(slots=True)
class Gateway:
    """One agency's gateway: a data folder, a port for partners and one for its console, and later a process."""

    agency: str
    name: str
    home: Path
    port: int
    console_port: int
    passphrase_file: Path
    commands: Commands
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def run(self, *arguments: str) -> Json:
        """The JSON that a command printed.

        Raises:
            StageError: the command failed.
        """
        return json.loads(self._done([*arguments, "--json"]).stdout)

    def screen(self, *arguments: str) -> str:
        """Everything that a command says to people.

        Raises:
            StageError: the command failed.
        """
        done = self._done(arguments)
        return (done.stderr + done.stdout).decode()

    def refused(self, *arguments: str) -> tuple[int, Json]:
        """(exit code, problem) of a command that has to fail."""
        done = self._start([*arguments, "--json"])
        if done.returncode == 0:
            raise StageError(f"`gateway {shlex.join(arguments)}` of {self.agency} should have been refused")
        return done.returncode, json.loads(done.stderr.decode().strip().splitlines()[-1])

    def settle(self, seconds: int) -> None:
        """Set how often partners are asked for news, and where the console answers, as an administrator would."""
        path = self.home / SETTINGS_FILE
        lines = path.read_text(encoding="utf-8").splitlines()
        wanted = {
            "sync_interval_seconds": str(seconds),
            "console_url": f'"http://localhost:{self.console_port}"',
            "console_port": str(self.console_port),
        }
        named = [line.partition(" =")[0] for line in lines]
        changed = [f"{key} = {wanted[key]}" if key in wanted else line for key, line in zip(named, lines, strict=True)]
        path.write_text("\n".join(changed) + "\n", encoding="utf-8")

    def serve(self) -> None:
        """Start `gateway serve` and wait until it says that it is ready."""
        log = self.home.with_name(f"{self.agency}.log")
        with log.open("wb") as sink:
            # A session of its own: Ctrl-C at the terminal reaches the demo, and the demo ends the gateways in order.
            self.process = subprocess.Popen(
                [str(COMMAND), *self._arguments("serve")],
                env=self._environment(),
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise StageError(f"{self.agency} does not serve: {log.read_text(errors='replace').strip()[-500:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the process that `serve` started, if it did."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _done(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        done = self._start(arguments)
        if done.returncode != 0:
            raise StageError(
                f"`gateway {shlex.join(arguments)}` of {self.agency} ended with {done.returncode}: "
                f"{done.stderr.decode(errors='replace').strip()}"
            )
        return done

    def _start(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        try:
            return self.commands.run(self._arguments(*arguments), self._environment())
        except (TimeoutError, EOFError) as error:
            raise StageError(f"`gateway {shlex.join(arguments)}` of {self.agency} did not end well") from error

    def _arguments(self, *arguments: str) -> list[str]:
        return ["--home", str(self.home), "--passphrase-file", str(self.passphrase_file), *arguments]

    def _environment(self) -> dict[str, str]:
        # Nothing of ours decides what the commands do; and they may keep what Python compiles, since they are many.
        ours = ("GATEWAY_", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "GATEWAY_DEMO_ARGON2_KIB": str(ARGON2_KIB)}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on, all different."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def together(*deeds: Callable[[], T]) -> list[T]:
    """The results of deeds that do not depend on each other, done at the same time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [one.result() for one in [pool.submit(deed) for deed in deeds]]


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 60) -> T:
    """What `look` finds as soon as it finds it.

    Raises:
        StageError: it did not come in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(POLL_SECONDS)
    raise StageError(f"{what} did not happen within {seconds:.0f} seconds")


def _filled(text: str, first: str, others: str) -> str:
    """A paragraph; ids of rules stay whole."""
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)
