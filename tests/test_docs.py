"""The documentation is true: its commands run and print what stands there, its links lead somewhere.

The console blocks of docs/tour.md are run in order. Dates, keys and ids are masked when they are compared, and an id
that the page shows stands for the one of this run. `UPDATE_TRANSCRIPTS=1 pytest tests/test_docs.py` writes the outputs
anew; read the difference before you keep it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gateway.cli import ROOMS, app
from processes import environment, free_port, is_ready

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "docs" / "tour.md"
UPDATE = bool(os.environ.get("UPDATE_TRANSCRIPTS"))
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("contracts/**/*.md"), *ROOT.glob("policies/**/*.md")]
)
TOUR_PORTS = ("8440", "8441")
PUBLIC_TEXT = (".md", ".svg", ".sh", ".toml", ".yaml", ".py", "")
# What a run makes anew: fingerprints, verifier strings, dates, ids and digests, sizes of sealed bytes.
CHANGING = re.compile(
    r"(?P<fingerprint>(?:[0-9a-f]{4} ){9}[0-9a-f]{4})"
    r"|(?P<log>partner-exchange/[A-Z-]+/log/1\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{20,})"
    r"|(?P<date>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:Z| UTC))"
    r"|(?P<id>(?<![-0-9a-f])[0-9a-f]{12,64}(?![0-9a-f]))"
    r"|(?P<size>[0-9,]+ bytes)"
    # XB also logs what its schedule does meanwhile, so how long its log is differs.
    r"|(?P<length>(?:as entry|tree of) \d+|\d+ leaves \(\d+ events, \d+ blocks\), \d+ checkpoints|^\d+ +(?=\d{4}-))",
    re.M,
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<(?:img|a|source)[^>]+(?:src|href|srcset)=\"([^\"]+)\"")


# The tour


@pytest.mark.slow
def test_the_tour_prints_what_stands_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TOUR.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    Path("passphrase").touch(mode=0o600)
    Path("passphrase").write_text("only invented data is behind this\n")
    (listed,) = re.findall(r"```csv\n(.*?)```", text, re.S)
    Path("list.csv").write_text(listed)
    with Tour() as tour:
        shown = re.sub(
            r"```console\n(.*?)```", lambda found: f"```console\n{tour.block(found[1])}```", text, flags=re.S
        )
    if UPDATE:
        TOUR.write_text(shown, encoding="utf-8")
    assert masked(shown) == masked(text)


class Tour:
    """Runs console blocks one after the other. What a block shows of an earlier run is put in terms of this one."""

    def __init__(self) -> None:
        self._now = dict(zip(TOUR_PORTS, (str(free_port()), str(free_port())), strict=True))
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Tour:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.terminate()
            assert self._server.wait(30) == 0

    def block(self, text: str) -> str:
        """The block as this run prints it, with the ports that stand there."""
        lines = []
        for command, expected in _commands(text):
            typed = self._in_terms_of_this_run(command)
            printed = self._run(typed)
            for then, now in zip(CHANGING.finditer(expected), CHANGING.finditer(printed), strict=False):
                self._now[then[0]] = now[0]
            lines += [f"$ {typed}", *(line.rstrip() for line in printed.splitlines())]
        return "\n".join(self._as_it_stands(line) for line in lines) + "\n"

    def _in_terms_of_this_run(self, command: str) -> str:
        for then, now in self._now.items():
            command = command.replace(then, now)
        return command

    def _as_it_stands(self, line: str) -> str:
        for port in TOUR_PORTS:
            line = line.replace(f"127.0.0.1:{self._now[port]}", f"127.0.0.1:{port}")
        return line

    def _run(self, command: str) -> str:
        words = shlex.split(command)
        if words[0] == "gateway" and words[-1] == "&":
            return self._serve(words[:-1])
        if words[0] == "gateway":
            result = CliRunner().invoke(app, words[1:], prog_name="gateway")
            assert result.exit_code == 0, (command, result.output)
            return str(result.output)
        script = [sys.executable, str(ROOT / "docs" / words[0]), *words[1:]]
        done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def _serve(self, words: list[str]) -> str:
        said = Path("serve.output")
        with said.open("wb") as sink:
            program = Path(sys.executable).with_name("gateway")
            self._server = subprocess.Popen([str(program), *words[1:]], stdout=sink, stderr=sink)
        while not is_ready(int(self._now[TOUR_PORTS[1]])):
            assert self._server.poll() is None, said.read_text()
        return said.read_text().splitlines()[0]


def _commands(block: str) -> Iterator[tuple[str, str]]:
    """(command, output as it stands) of a console block."""
    for piece in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, output = piece.partition("\n")
        yield command, output


def masked(text: str) -> str:
    return CHANGING.sub(lambda found: f"<{found.lastgroup}>", text)


# Commands, links, files


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_exists(page: Path) -> None:
    for line in _code_lines(page.read_text(encoding="utf-8")):
        found = re.match(r"(?:\$ |X[A-C]\$ )?(?:\.venv/bin/)?(gateway|scripts/[a-z_.]+)(?: |$)(.*)", line.strip())
        if found is None:
            continue
        if found[1] == "gateway":
            _assert_command(found[2], line)
        else:
            assert os.access(ROOT / found[1], os.X_OK), f"{line}: there is no such script"


def _assert_command(rest: str, line: str) -> None:
    """The words after `gateway` name a command, and its options are known to it."""
    words = re.sub(r"(--home|--passphrase-file) \S+", "", rest).split()
    if not words or words[0].startswith("-") or words[0].isupper():
        return
    assert words[0] in ROOMS, f"{line}: there is no such command"
    command = get_command(app).get_command(None, words[0])  # type: ignore[arg-type, attr-defined]  # our root needs no context
    if hasattr(command, "commands") and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
        assert words[1] in command.commands, f"{line}: there is no such command"
        command = command.commands[words[1]]
    if hasattr(command, "commands"):
        return
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    for option in re.findall(r"(?<= )--[a-z][a-z-]*", f" {' '.join(words)}"):
        assert option in known, f"{line}: {option} is no option of it"


def _code_lines(text: str) -> Iterator[str]:
    for block in re.findall(r"^```(?:console|sh|)\n(.*?)^```", text, re.S | re.M):
        yield from block.splitlines()
    yield from re.findall(r"`((?:gateway|scripts/)[^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_on_a_page_leads_to_a_file_or_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in filter(None, (one for found in LINK.findall(text) for one in found)):
        if re.match(r"[a-z]+:", target):
            assert target.startswith(("https://", "mailto:")), target
            continue
        path, _, heading = unquote(target).partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), f"{target} leads nowhere"
        if heading:
            assert heading in _anchors(there.read_text(encoding="utf-8")), f"{target}: no such heading"


def _anchors(text: str) -> set[str]:
    """The anchors of headings as forges make them."""
    headings = re.findall(r"^#+ +(.+?) *$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("folder", ["docs", "contracts"])
def test_every_page_is_linked_from_its_folders_front_page(folder: str) -> None:
    front = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    linked = {unquote(one).split("#")[0] for found in LINK.findall(front) for one in found if one}
    for page in (ROOT / folder).rglob("*.md"):
        name = str(page.relative_to(ROOT / folder))
        assert name == "README.md" or name in linked, f"{folder}/README.md does not name {name}"


def test_the_front_page_links_the_documentation() -> None:
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in ("docs/README.md", "docs/tour.md", "docs/journey.svg", "contracts/README.md", "LICENSE"):
        assert f"({target})" in front or f'"{target}"' in front, target


def test_no_file_names_a_place_of_one_machine() -> None:
    # Joined here, or this file would name such places itself.
    places = re.compile("|".join(("/" + "work/", "/" + "home/[a-z]", "/" + "Users/", "/" + "root/")))
    for path in _project_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not (found := places.search(text)), f"{path.relative_to(ROOT)}: {found and found[0]}"


def _project_files() -> Iterator[Path]:
    for top in ("gateway", "docs", "contracts", "policies", "scripts", "tests"):
        for path in (ROOT / top).rglob("*"):
            hidden = any(part in {"__pycache__", "node_modules"} for part in path.parts)
            if path.is_file() and path.suffix in PUBLIC_TEXT and not hidden:
                yield path
    yield from (path for path in ROOT.glob("*") if path.is_file() and path.suffix in {".md", ".toml", ".py", ".in"})
