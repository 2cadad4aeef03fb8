"""The command `gateway …` without the wait for its start.

    with Commands() as commands:
        done = commands.run(["--home", "xa", "set", "list"], environment)

A command imports the program before it does anything, which takes a second, and the story tells sixty commands. So one
process imports the program, opens nothing, and forks for each command: the fork is a process of its own that calls what
the command `gateway` calls, with its own arguments, environment and standard streams.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.cli import ROOMS
from gateway.cli import main as gateway

COMMAND_SECONDS = 120  # any one command; more is a fault


class Commands:
    """The process that forks. It ends with the block, and by itself when whoever started it is gone."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # A session of its own: Ctrl-C at the terminal reaches the demo, which lets its commands come to their end.
            self._process = subprocess.Popen([sys.executable, __file__], stdin=theirs, start_new_session=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.close()
        self._process.wait()

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
        """Run one command to its end; several threads may.

        Raises:
            TimeoutError: it did not end in time.
            EOFError: it died.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._requests, [b"command"], [theirs.fileno()])
        with Connection(ours.detach()) as answers:
            answers.send((list(arguments), dict(environment)))
            if not answers.poll(COMMAND_SECONDS):
                raise TimeoutError
            code, output, errors = answers.recv()
        return subprocess.CompletedProcess(list(arguments), code, output, errors)


def main() -> None:
    """Fork for each request that comes over the standard input, until nobody is left who could send one."""
    for module in ("gateway.home", *(f"gateway.cli.{room}" for room in ROOMS.values())):
        import_module(module)
    gc.freeze()  # a fork that looked through all this for garbage would copy it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork: its answer is what counts
    with socket.socket(fileno=os.dup(0)) as requests:
        while descriptors := socket.recv_fds(requests, 16, 1)[1]:
            if os.fork() == 0:
                _become_command(descriptors[0])
            os.close(descriptors[0])


def _become_command(descriptor: int) -> None:
    """This process is one command from here on, and ends with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with Connection(descriptor) as answers, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        arguments, environment = answers.recv()
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["gateway", *arguments]
        with Path(os.devnull).open("rb") as nothing:
            for target, stream in enumerate((nothing, output, errors)):
                os.dup2(stream.fileno(), target)
        try:
            gateway()
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        output.seek(0)
        errors.seek(0)
        answers.send((code, output.read(), errors.read()))
    os._exit(0)


if __name__ == "__main__":
    main()
