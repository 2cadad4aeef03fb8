"""What every command has in common: where the data folder is, how results and errors are shown, how long work reports.

Results go to stdout: words for people, or with `--json` exactly one JSON value (times in it are Unix seconds). Nothing
else does. Progress goes to stderr, and only where stderr is a terminal. An error is one sentence on stderr, with the
place and the remedy where there are any, or with `--json` one problem object; the exit code says which kind it was.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gateway.cli.passphrases import Passphrases
from gateway.config import SETTINGS_FILE, Settings, load_settings
from gateway.errors import ConfigError, GatewayError
from gateway.problem_words import TYPE_PREFIX
from gateway.problems import EXIT_BUG, exit_code, problem

if TYPE_CHECKING:
    from gateway.node import Node

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
HOME_VARIABLE = "GATEWAY_HOME"
PLAIN_WIDTH = 250  # columns where stdout is no terminal: a file's lines are not wrapped

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="The data folder. Else GATEWAY_HOME, else ~/.gateway.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON value.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File with the gateway's passphrase; else it is asked for."),
]


@dataclass(frozen=True, slots=True)
class Common:
    """The options that may stand before the command as well as after it."""

    home: Path | None = None
    as_json: bool = False
    passphrase_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Shell:
    """What a command gets: where it works, and how it speaks."""

    home: Path
    as_json: bool
    passphrases: Passphrases

    @contextmanager
    def node(self, *, check_log: bool = True, restored: bool = False) -> Iterator[Node]:
        """The gateway in the data folder, closed at the end of the block.

        Args:
            check_log: False only for looking at a log that may be broken.
            restored: also one that waits for its restore statement.
        """
        from gateway.home import open_home  # noqa: PLC0415  the store is slow to import, and help needs none

        self.settings()  # before anybody is asked for a passphrase
        node = open_home(self.home, self.passphrases.gateway(), check_log=check_log, restored=restored)
        try:
            yield node
        finally:
            node.store.close()

    def settings(self) -> Settings:
        """The settings in the data folder."""
        if not (self.home / SETTINGS_FILE).exists():
            raise ConfigError(
                "there is no gateway in this data folder", remedy="name it with --home, or make one: init"
            )
        return load_settings(self.home)

    def show(self, value: object, *lines: str) -> None:
        """The result of a command: `value` with --json, else the lines."""
        if self.as_json:
            # ASCII alone: what a partner wrote must not steer the terminal that shows it (bidirectional controls).
            print(json.dumps(value, indent=2, default=str))
        else:
            for line in lines:
                _out().print(line, soft_wrap=True)

    def table(self, rows: Sequence[Mapping[str, object]], columns: Mapping[str, str], empty: str) -> None:
        """A list as a result: all members with --json, else a table of some columns (member -> heading)."""
        if self.as_json:
            self.show(list(rows))
        elif not rows:
            self.show(None, empty)
        else:
            shown = Table(box=None, pad_edge=False, header_style="bold")
            for heading in columns.values():
                shown.add_column(heading, no_wrap=True)
            for row in rows:
                shown.add_row(*(escape(_word(row[member], member)) for member in columns))
            _out().print(shown)

    @contextmanager
    def batches(self) -> Iterator[Callable[[Sequence[Mapping[str, object]], Mapping[str, str]], None]]:
        """A list as a result that is too long to be held: the block hands over rows, and their columns, as `table`."""
        written = 0

        def add(rows: Sequence[Mapping[str, object]], columns: Mapping[str, str]) -> None:
            nonlocal written
            if not self.as_json:
                if rows:
                    self.table(rows, columns, "")
                return
            for row in rows:
                print(("," if written else "[") + "\n" + json.dumps(row, indent=2, default=str))
                written += 1

        yield add
        if self.as_json:
            print("\n]" if written else "[]")

    @property
    def width(self) -> int:
        """How many characters a line of a table may have."""
        return _out().width

    def note(self, line: str) -> None:
        """A remark beside the result."""
        Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)

    @contextmanager
    def progress(self, doing: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """A bar with rate and estimate, told (done, total); nothing where stderr is no terminal."""
        if not sys.stderr.isatty():
            yield lambda _done, _total: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(doing, total=None, rate="")

            def told(done: int, total: int) -> None:
                speed = bar.tasks[task].speed
                rate = f"{speed:,.0f}/s" if speed else ""
                bar.update(task, completed=done, total=total or None, rate=rate)

            yield told


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command: it gets a `Shell` first, and the common options with their meaning."""

    def register(deed: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(deed, include_extras=True)
        own = [
            one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for one in list(inspect.signature(deed).parameters.values())[1:]
        ]

        @functools.wraps(deed)
        def run(ctx: typer.Context, **values: Any) -> None:
            given = [values.pop(one) for one in ("home", "as_json", "passphrase_file")]
            before = ctx.find_object(Common) or Common()
            common = Common(given[0] or before.home, given[1] or before.as_json, given[2] or before.passphrase_file)
            with reporting(as_json=common.as_json):
                deed(_shell(common), **values)

        # typer reads the signature: ours, with the common options at its end.
        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *own,
            _option("home", HomeOption, None),
            _option("as_json", JsonOption, False),
            _option("passphrase_file", PassphraseOption, None),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect's own convention
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        del run.__wrapped__  # or typer would read the hints of the function inside
        app.command(name)(run)
        return deed

    return register


@contextmanager
def reporting(*, as_json: bool) -> Iterator[None]:
    """Errors of the block become words and an exit code."""
    try:
        yield
    except GatewayError as error:
        _report(error, as_json=as_json)
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt as error:
        print("Interrupted. Nothing is half done; run the command again.", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from error
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        _report_bug(error, as_json=as_json)
        raise typer.Exit(EXIT_BUG) from error


def when(seconds: int) -> str:
    """Unix seconds as people read them, in UTC; a dash for never."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z" if seconds else "-"


def amount(count: int, one: str, many: str = "") -> str:
    """A number with its word: 1 page, 5,000 pages."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def bold(text: str) -> str:
    """Text that stands out on a terminal."""
    return f"[bold]{escape(text)}[/bold]"


def plain(text: str) -> str:
    """Text that came from outside: shown, never interpreted."""
    return escape("".join(c if c.isprintable() else "?" for c in text))


def _shell(common: Common) -> Shell:
    named = os.environ.get(HOME_VARIABLE, "")
    home = common.home or (Path(named) if named else Path.home() / ".gateway")
    return Shell(home, common.as_json, Passphrases(common.passphrase_file))


def _option(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _out() -> Console:
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(highlight=False, width=width)


def _word(value: object, member: str) -> str:
    """One cell of a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return when(value) if member in _TIMES else f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return "".join(c if c.isprintable() else "?" for c in str(value)) or "-"


# Members that hold Unix seconds.
_TIMES = frozenset(
    {"at", "added", "contacted", "created", "expires", "last_success", "next_run", "received", "delivered"}
)


def _report(error: GatewayError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_problem(error)), file=sys.stderr)
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]Error:[/bold red] {plain(_sentence(str(error)))}")
    if error.remedy:
        console.print(f"[bold]What to do:[/bold] {plain(error.remedy)}")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _problem(error: GatewayError) -> dict[str, object]:
    """The error as an RFC 9457 problem. Our own settings are told here, unlike over HTTP."""
    if isinstance(error, ConfigError):
        described: dict[str, object] = {
            "type": f"{TYPE_PREFIX}configuration",
            "title": "Configuration",
            "detail": error.message,
        }
        described |= {name: text for name, text in (("place", error.place), ("remedy", error.remedy)) if text}
    else:
        described = json.loads(problem(error)[1])
    return {**described, "exit_code": exit_code(error)}


def _report_bug(error: Exception, *, as_json: bool) -> None:
    """The kind of error and where in the program it struck: never its text, which may hold anything."""
    trace = error.__traceback__
    where = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "gateway" in Path(code.co_filename).parts:
            where = f"{Path(code.co_filename).name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    kind = type(error).__name__
    if as_json:
        told = {"type": f"{TYPE_PREFIX}internal", "title": "Internal error", "detail": kind, "place": where}
        print(json.dumps({**told, "exit_code": EXIT_BUG}), file=sys.stderr)
    else:
        print(f"Internal error: {kind} ({where}). This is a bug; please report it with these words.", file=sys.stderr)
