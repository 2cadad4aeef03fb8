"""A real PostgreSQL server for tests: its own data folder, its own socket, ended with the process that started it.

    url = shared().new_database()          # a database of the newest schema, empty; dropped at the end of the test
    with Server() as server:               # one of its own, to be killed
        server.kill()
        server.start()

The programs are those of Debian's package `postgresql`, or whichever `initdb` is in the path. The cluster that the
package may have made is never touched. PostgreSQL does not run as root, so root runs it as the package's user.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from sqlalchemy import make_url

USER = "gateway"
UNPRIVILEGED = ("postgres", "nobody")  # whose rights the server gets where we are root
TEMPLATE = "empty"
READY_SECONDS = 60.0
CLUSTER = (
    *("--encoding=UTF8", "--locale=C", "--data-checksums", "--no-sync", "--no-instructions"),
    *("--auth-local=trust", "--auth-host=scram-sha-256"),
)
# Small, and nothing that works by itself in the background; what is confirmed is on disk, as in operation.
SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "32MB",
    "max_connections": "300",
    "autovacuum": "off",
    "max_wal_size": "256MB",
}


def programs() -> Path:
    """The folder of `initdb` and `postgres`, of the newest version there is."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    assert folders, "PostgreSQL is not installed: apt-get install postgresql"
    return folders[-1]


# What a database was at one moment, in a schema of its own: bringing back some rows is much faster than copying files.
KEEPING = """
CREATE SCHEMA kept;
CREATE TABLE kept.position (name text, value bigint, is_called boolean);
CREATE PROCEDURE kept.keep() LANGUAGE plpgsql AS $$
DECLARE one text;
BEGIN
  FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('DROP TABLE IF EXISTS kept.%1$I', one);
    EXECUTE format('CREATE TABLE kept.%1$I AS TABLE public.%1$I', one);
  END LOOP;
  DELETE FROM kept.position;
  FOR one IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
    EXECUTE format('INSERT INTO kept.position SELECT %1$L, last_value, is_called FROM public.%1$I', one);
  END LOOP;
END $$;
CREATE PROCEDURE kept.rewind() LANGUAGE plpgsql SET session_replication_role = replica AS $$
DECLARE one text;
BEGIN
  FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('DELETE FROM public.%1$I', one);
    EXECUTE format('INSERT INTO public.%1$I SELECT * FROM kept.%1$I', one);
  END LOOP;
  PERFORM setval(format('public.%I', name)::regclass, value, is_called) FROM kept.position;
END $$;
"""


def is_installed() -> bool:
    """Whether there is a server to start."""
    return shutil.which("initdb") is not None or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


class Server:
    """One PostgreSQL server.

    Args:
        near: whose disk it writes to, None for the folder of temporary files.
        replica_of: the server that it follows until it is promoted.
        settings: of its configuration, over `SETTINGS`.
    """

    def __init__(self, near: Path | None = None, replica_of: Server | None = None, **settings: str) -> None:
        self._programs = programs()
        self._settings = SETTINGS | settings
        self._numbers = itertools.count(1)
        self._made: list[str] = []
        self._copies: list[str] = []
        self._free: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._account = _account()
        self.port = _free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-postgresql-", dir=_reachable(near)))
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        if replica_of is None:
            self._run("initdb", f"--pgdata={self.data}", f"--username={USER}", *CLUSTER)
        else:
            there = (f"--host={replica_of.folder}", f"--port={replica_of.port}", f"--username={USER}")
            quickly = ("--write-recovery-conf", "--checkpoint=fast", "--no-sync")
            self._run("pg_basebackup", f"--pgdata={self.data}", *there, *quickly)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.folder / "data"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        places = {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        options = [f"--{name}={value}" for name, value in (self._settings | places).items()]
        # Should this process be killed, the server ends as well.
        command = ["setpriv", "--pdeathsig", "INT", str(self._programs / "postgres"), "-D", str(self.data)]
        end = time.monotonic() + READY_SECONDS
        while True:
            with (self.folder / "output").open("ab") as output:
                self._process = subprocess.Popen([*command, *options], stdout=output, stderr=output, **self._rights())
            while self._process.poll() is None:
                try:
                    self.connect().close()
                except psycopg.OperationalError:
                    assert time.monotonic() < end, f"PostgreSQL does not answer:\n{self.output()}"
                    time.sleep(0.02)
                else:
                    return
            # Processes of one that was killed may still hold its memory for a moment.
            assert time.monotonic() < end, f"PostgreSQL does not start:\n{self.output()}"
            time.sleep(0.05)

    @contextmanager
    def running_with(self, **settings: str) -> Iterator[None]:
        """Run it, which was stopped, with other settings for a while."""
        before, self._settings = self._settings, self._settings | settings
        self.start()
        try:
            yield
        finally:
            self.stop(signal.SIGINT)
            self._settings = before
            self.start()

    def kill(self) -> None:
        """SIGKILL to the server's first process; the others end when they notice."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, way: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT ends it at once, as a crash would; SIGINT cuts connections off and ends it well."""
        assert self._process is not None
        self._process.send_signal(way)
        self._process.wait(READY_SECONDS)

    def wait_for_replicas(self, names: str) -> None:
        """From now on a commit waits for replicas ("*": any); "" for none."""
        with self.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            connection.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """End its following: it takes writes from now on."""
        with self.connect() as connection:
            connection.execute("SELECT pg_promote()")

    def close(self) -> None:
        """End it and remove everything."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def output(self) -> str:
        """Everything that it has said."""
        return (self.folder / "output").read_text(encoding="utf-8", errors="replace")

    # Databases

    def url(self, name: str) -> str:
        """The URL of a database, through the socket."""
        return f"postgresql://{USER}@/{name}?host={self.folder}&port={self.port}"

    def connect(self, name: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of the administrator's."""
        place = f"host={self.folder} port={self.port}"
        return psycopg.connect(f"user={USER} {place} dbname={name} connect_timeout=5", autocommit=True)

    def new_database(self) -> str:
        """A database of the newest schema, empty; returns its URL."""
        name = self._free.pop() if self._free else self.create(self._template())
        self._made.append(name)
        return self.url(name)

    def copy(self, url: str) -> str:
        """A copy of a database, whoever was connected to it; returns its URL."""
        self._end_connections([name_of(url)])
        name = self.create(name_of(url))
        self._copies.append(name)
        return self.url(name)

    def create(self, template: str = "template0") -> str:
        """A new database like another, to which nobody is connected; returns its name."""
        name = f"test_{next(self._numbers)}"
        with self.connect() as connection:
            # Copying files costs least; before version 15 there was no other way.
            strategy = "STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} {strategy}")
        return name

    def keep(self, url: str) -> None:
        """Let a database stay as it is now until the server ends: `rewind` brings it back to this."""
        self._made.remove(name_of(url))  # so that the end of a test leaves it alone
        with self.connect(name_of(url)) as connection:
            connection.execute("CALL kept.keep()")

    def rewind(self, url: str) -> None:
        """Bring a database back to what was kept of it."""
        with self.connect(name_of(url)) as connection:
            connection.execute("CALL kept.rewind()")

    def made(self) -> frozenset[str]:
        """The names of the databases that are in use."""
        return frozenset(self._made + self._copies)

    def drop_made(self, kept: Collection[str] = ()) -> None:
        """End whatever is connected to what was made; it is used again, which is cheaper than making anew.

        Args:
            kept: what goes on being used.
        """
        made, copies = ([name for name in names if name not in kept] for names in (self._made, self._copies))
        if not made and not copies:
            return
        with self.connect() as connection:
            for name in copies:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        self._end_connections(made)
        for name in made:
            self.rewind(self.url(name))
        self._free += made
        self._made, self._copies = ([name for name in names if name in kept] for names in (self._made, self._copies))

    def _end_connections(self, names: list[str]) -> None:
        with self.connect() as connection:
            ending = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = ANY(%s)"
            connection.execute(ending, [names])

    @cache  # noqa: B019  of a server that lives as long as the tests
    def _template(self) -> str:
        """The database that new ones are copied from: made once."""
        from gateway.store import Store

        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
        store = Store(self.url(TEMPLATE), _NoSigner())
        store.migrate()
        store.close()
        with self.connect(TEMPLATE) as connection:
            connection.execute(KEEPING)
            connection.execute("CALL kept.keep()")
        return TEMPLATE

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments], capture_output=True, text=True, check=False, **self._rights()
        )
        assert done.returncode == 0, f"{program}: {done.stdout}\n{done.stderr}"

    def _rights(self) -> dict[str, Any]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        rights: dict[str, Any] = {"cwd": "/", "env": kept | {"LC_ALL": "C"}, "stdin": subprocess.DEVNULL}
        if self._account is not None:
            group = self._account.pw_gid
            rights |= {"user": self._account.pw_uid, "group": group, "extra_groups": [group]}
        return rights


class _NoSigner:
    """A template's log is empty."""

    def sign_checkpoint(self, size: int, root: bytes, previous: int) -> bytes:
        raise AssertionError("nothing is appended")

    def salt(self) -> bytes:
        raise AssertionError("nothing is appended")


def name_of(url: str) -> str:
    """The name of the database that a URL names."""
    return str(make_url(url).database)


@cache
def shared() -> Server:
    """The server of this process, started when it is first asked for."""
    server = Server()
    atexit.register(server.close)
    return server


def made() -> frozenset[str]:
    """The databases of the shared server that are in use, if it was ever started."""
    return shared().made() if shared.cache_info().currsize else frozenset()


def drop_made(kept: Collection[str] = ()) -> None:
    """Drop what the shared server made, if it was ever started, but for what is kept."""
    if shared.cache_info().currsize:
        shared().drop_made(kept)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _account() -> pwd.struct_passwd | None:
    """Whose rights the server gets, None for our own."""
    if os.geteuid():
        return None
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("there is no user to run PostgreSQL as")


def _reachable(near: Path | None) -> Path:
    """That folder, or the nearest above it that the server's user can get to."""
    place = near or Path(tempfile.gettempdir())
    if os.geteuid() == 0:
        while any(not folder.stat().st_mode & 0o001 for folder in (place, *place.parents)):
            place = place.parent
    return place
