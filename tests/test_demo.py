"""`scripts/demo` runs to its end, tells what the README shows of it, and leaves nothing behind."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
ENTRIES = 2_000  # a tenth of what people see: the same story, sooner
DEMO_SECONDS = 600  # a hang, not a slow machine
NUMBERS = re.compile(r"[0-9a-f]{32}|[0-9][0-9a-f,:-]*")

SENTENCES = (
    "2,007 rows read, 2,000 accepted, 7 refused",
    "12 entries never left XA: the series 'Lantern 1' is under embargo",
    "What is under embargo neither leaves a gateway nor is taken by one. [fed-embargo;",
    "XB took 1,717 and refused 271",
    "5 the message is the one with the manifest digest given … ok verified",
    "NOT VERIFIED: the inclusion proof leads to another root",
    "VerificationError: age: a sealed chunk is missing, changed or too many",
    "it gets the same receipt, byte for byte, and changes nothing",
    "XC's mirrors are equal to their hubs",
    "XB was still searching for a child whom XA has identified",
    "Both have answered that it took effect, and neither finds the entry any more",
    "the receipt that XA keeps",
    "the event is not the one its leaf commits to: leaf",
    "All that was claimed was checked on the way",
)


@pytest.mark.slow
def test_the_demo_tells_its_story_and_the_readme_shows_it(tmp_path: Path) -> None:
    # 1. It runs to its end, and leaves neither files nor processes.
    done = subprocess.run(
        [str(ROOT / "scripts" / "demo"), "--entries", str(ENTRIES)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert _left_behind(tmp_path) == []
    # 2. It tells what it has to tell, in plain text where nobody sits at a terminal.
    assert "\x1b" not in done.stdout
    told = _one_line(done.stdout)
    for sentence in SENTENCES:
        assert sentence in told
    # 3. The README shows nothing else. Its numbers are those of the whole list, here it is a shorter one.
    blocks = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 5
    for piece in (piece for block in blocks for piece in re.split(r"…$", block, flags=re.M)):
        assert _without_numbers(_one_line(piece)) in _without_numbers(told)


def test_a_demo_that_fails_ends_its_gateways_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo, stage, story = _modules(monkeypatch)
    served: list[int] = []

    def fails(self: object) -> None:
        self._found_one(self.xb)  # type: ignore[attr-defined]  # the story's own step
        self.xb.serve()  # type: ignore[attr-defined]
        served.append(self.xb.process.pid)  # type: ignore[attr-defined]
        raise stage.StageError("what must hold did not")

    monkeypatch.setattr(story.Story, "tell", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["demo"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert demo.main() == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "The demo failed: what must hold did not" in capsys.readouterr().err
    assert not Path(f"/proc/{served[0]}").exists()
    assert _left_behind(tmp_path) == []


def test_a_command_of_the_demo_says_what_the_installed_one_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "demos"))
    environment = {**os.environ, "GATEWAY_HOME": str(tmp_path / "nowhere"), "COLUMNS": "80"}
    with importlib.import_module("commands").Commands() as commands:
        for arguments in (["--version"], ["set", "list", "--json"], ["set", "frobnicate"]):
            forked = commands.run(arguments, environment)
            installed = subprocess.run(
                [str(Path(sys.executable).with_name("gateway")), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            assert forked.returncode == installed.returncode
            assert (forked.stdout, forked.stderr) == (installed.stdout, installed.stderr)
            assert installed.stdout + installed.stderr


def test_a_demo_that_is_kept_already_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo, _, _ = _modules(monkeypatch)
    monkeypatch.setattr(demo, "KEPT_FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo", "--keep"])
    assert demo.main() == 2
    assert "is there from another run" in capsys.readouterr().err


def _modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType, ModuleType]:
    """The demo's modules: its entry, its stage, its story."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "demos"))
    spec = importlib.util.spec_from_file_location("demo_entry", ROOT / "scripts" / "demos" / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    return entry, importlib.import_module("stage"), importlib.import_module("story")


def _without_numbers(text: str) -> str:
    return NUMBERS.sub("N", text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _left_behind(folder: Path) -> list[str]:
    """Files of the demo, and processes that work on them."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            if str(folder) in command and int(entry.name) != os.getpid():
                processes.append(command)
    return [*map(str, folder.glob("gateway-demo-*")), *processes]
