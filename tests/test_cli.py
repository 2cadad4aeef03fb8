"""The command line: transcripts that read like a manual, the main path as real processes, every error in words.

A transcript is what a person sees: `$ gateway …`, then the output, then `[exit N]` where N is not 0. Dates, ids and
keys are masked. `UPDATE_TRANSCRIPTS=1 pytest tests/test_cli.py` writes them (and the reference in docs/commands.md)
anew; read the difference before you keep it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from gateway.cli import ROOMS, app
from gateway.cli.passphrases import Passphrases, cost
from gateway.crypto.seal import RFC9106_SECOND, Argon2Cost
from gateway.errors import ConfigError
from gateway.exchange import Exchange
from gateway.home import open_home
from gateway.interchange import START, parse_card

TRANSCRIPTS = Path(__file__).parent / "transcripts"
COMMANDS_PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
ROOT = Path(__file__).parent.parent
UPDATE = bool(os.environ.get("UPDATE_TRANSCRIPTS"))
CHEAP = {"GATEWAY_DEMO_ARGON2_KIB": "8192"}
MASKS = [
    (r"([0-9a-f]{4} ){9}[0-9a-f]{4}", "<fingerprint>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "<date>"),
    (r"\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{20,}", "+<key>"),
    (r"(?<![-0-9a-f])[0-9a-f]{12,64}", "<hex>"),
    (r"(?<![0-9])1[78][0-9]{8}(?![0-9])", "<seconds>"),
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with passphrases in files, and no gateway yet."""
    monkeypatch.chdir(tmp_path)
    for variable in ("GATEWAY_HOME", "CREDENTIALS_DIRECTORY", "GATEWAY_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    for name in ("passphrase", "alice.pass", "bob.pass", "carol.pass"):
        (tmp_path / name).write_text(f"a long passphrase for {name}\n")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def gateway(*arguments: str, exit_code: int = 0) -> Result:
    """One command, in this process."""
    result = CliRunner().invoke(app, list(arguments), prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.exit_code, result.stdout, result.stderr)
    return result


def json_of(*arguments: str) -> object:
    """What a command says with --json, which is all that it says."""
    result = gateway(*arguments, "--json")
    assert result.stderr == ""
    return json.loads(result.stdout)


def found_demo(home: str, agency: str = "XA-NCVI", port: int = 8440) -> None:
    gateway("--home", home, "init", "--demo", "--agency", agency, "--name", "A unit", "--listen", f"127.0.0.1:{port}")
    gateway("--home", home, "admin", "add", "alice", "--admin-passphrase-file", "alice.pass")


def md5_list(path: Path, count: int) -> list[str]:
    """A list of digests of made-up strings, as a checksum tool writes it."""
    digests = [hashlib.md5(f"made-up {number}".encode()).hexdigest() for number in range(count)]
    path.write_text("".join(f"{digest}  {number}.bin\n" for number, digest in enumerate(digests)))
    return digests


MORE = ("--handling", "H1", "--evaluation", "B2", "--category", "icse:1")


def make_set(home: str, name: str = "found") -> None:
    law = "XA Police Data Act 2019, section 12"
    gateway("--home", home, "set", "create", name, "--purpose", "tests", "--legal-basis", law, *MORE)


# Transcripts


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_a_transcript_is_what_a_person_sees(desk: Path, path: Path) -> None:
    write_samples(desk)
    expected = path.read_text(encoding="utf-8")
    seen, proposal = [], ""
    for line in (line for line in expected.splitlines() if line.startswith(("$ ", "#"))):
        seen.append(line)
        if line.startswith("#"):
            continue
        result = CliRunner().invoke(app, shlex.split(line.replace("<proposal>", proposal))[2:], prog_name="gateway")
        text = result.output
        proposal = next(iter(re.findall(r"approval sign ([0-9a-f]{12})", text)), proposal)
        seen += [masked(shown.rstrip()) for shown in text.splitlines()]
        seen += [f"[exit {result.exit_code}]"] if result.exit_code else []
    actual = "\n".join(seen) + "\n"
    if UPDATE:
        path.write_text(actual, encoding="utf-8")
    assert actual == expected


def masked(line: str) -> str:
    for pattern, name in MASKS:
        line = re.sub(pattern, name, line)
    return line


def write_samples(desk: Path) -> None:
    """The files that transcripts speak of."""
    md5_list(desk / "list.txt", 40)
    with (desk / "list.txt").open("a") as sink:
        sink.write("not a digest\n" + hashlib.md5(b"").hexdigest() + "\n")
    (desk / "bad.csv").write_text("md5,colour\n" + "0" * 32 + ",red\n")


# The main path, as real processes


def process(
    *arguments: str, home: str, cwd: Path, input_bytes: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", "--home", home, *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=None if input_bytes is None else input_bytes.decode(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def serving(home: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """`gateway serve` as a process of its own, ended by SIGTERM."""
    command = [sys.executable, "-m", "gateway.cli", "--home", home, "serve"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            for line in server.stderr:
                if "listens on" in line:
                    break
            yield server
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=30)
        finally:
            server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_two_gateways_push_prove_and_pull(desk: Path) -> None:
    digests = md5_list(desk / "list.txt", 300)
    # 1. Two gateways that hold each other's card.
    for home, agency in (("xa", "XA-NCVI"), ("xb", "XB-NCVI")):
        found_demo(home, agency, free_port())
        gateway("--home", home, "identity", "export", f"{home}.card")
    for home, card in (("xa", "xb.card"), ("xb", "xa.card")):
        gateway("--home", home, "partner", "add", card, "--admin", "alice", "--admin-passphrase-file", "alice.pass")
    make_set("xa")
    gateway("--home", "xa", "import", "list.txt", "--set", "found")
    with serving("xb", desk) as server:
        # 2. A push from another process is answered by a receipt that anyone can check.
        # What XB's policy does not take stays out there, and the receipt says so.
        gateway("--home", "xa", "set", "create", "rumours", "--purpose", "tests", "--legal-basis", "law")
        gateway("--home", "xa", "import", "list.txt", "--set", "rumours")
        rumours = json_of("--home", "xa", "push", "--to", "XB-NCVI", "--set", "rumours")
        assert isinstance(rumours, dict)
        assert (rumours["changes"], rumours["refused"]) == (300, 300)
        pushed = process("push", "--to", "XB-NCVI", "--set", "found", "--json", home="xa", cwd=desk)
        assert (pushed.returncode, pushed.stderr) == (0, "")
        report = json.loads(pushed.stdout)
        assert (report["changes"], len(report["receipts"])) == (300, 1)
        exported = json_of("--home", "xa", "receipt", "export", report["receipts"][0], "receipt.json")
        assert isinstance(exported, dict)
        script = [sys.executable, str(ROOT / "scripts" / "verify_receipt.py"), "receipt.json"]
        checked = subprocess.run([*script, "--log-key", exported["log_key"]], capture_output=True, check=False)
        assert checked.returncode == 0
        # 3. A second push has nothing to bring; a look-up over there finds the entry and its owner.
        assert "everything" in gateway("--home", "xa", "push", "--to", "XB-NCVI", "--set", "found").stdout
        hits = json_of("--home", "xb", "look-up", digests[7])
        assert isinstance(hits, list)
        assert (hits[0]["originator"], hits[0]["hub"]) == ("XA-NCVI", "XA-NCVI")
        entry = hits[0]["entry"]
        whereabouts = json_of("--home", "xa", "where", entry, "--set", "found")
        assert isinstance(whereabouts, dict)
        assert whereabouts["holders"][0]["holds"] is True
        # XB has to delete it some day; that day is not today, and duties bind no set of XB's own.
        duties = json_of("--home", "xb", "duties", "list")
        assert isinstance(duties, list)
        kept = {(one["side"], one["set"], one["duty"], one["state"]) for one in duties}
        assert ("here", "XA-NCVI/found", "retain_days(365)", "outstanding") in kept
        assert "the page up to change 300" in gateway("--home", "xb", "duties", "list").stdout
        assert ", retain_days(365)" in gateway("--home", "xb", "set", "show", "XA-NCVI/found").stdout
        purged = json_of("--home", "xb", "set", "purge", "XA-NCVI/found")
        assert purged == {"set": "XA-NCVI/found", "entries": 0, "rows": 0, "blocks": 0}
        assert "nothing is due" in gateway("--home", "xb", "set", "purge", "XA-NCVI/found").stdout
        gateway("--home", "xa", "set", "purge", "found", exit_code=5)
        # 4. A withdrawal and a note go with the next sync; the answer comes back.
        gateway("--home", "xa", "set", "withdraw", "found", entry, "--reason", "listed wrongly")
        gateway("--home", "xa", "message", "send", "see the withdrawal", "--to", "XB-NCVI")
        gateway("--home", "xa", "push", "--to", "XB-NCVI", "--set", "found")
        status = json_of("--home", "xa", "sync", "run")
        assert isinstance(status, list)
        assert (status[0]["partner"], status[0]["last_error"]) == ("XB-NCVI", "")
        assert json_of("--home", "xb", "look-up", digests[7]) == []
        messages = json_of("--home", "xb", "message", "list", "--partner", "XA-NCVI")
        assert isinstance(messages, list)
        assert "see the withdrawal" in [one["text"] for one in messages]
        assert gateway("--home", "xa", "pull", "--from", "XB-NCVI").stdout == "XB-NCVI offers us no set.\n"
    assert server.returncode == 0
    # 5. Both logs hold; the receipt is evidence that the other one was not cut.
    for home, evidence in (("xa", []), ("xb", ["--outside", "receipt.json"])):
        proved = json_of("--home", home, "audit", "verify", *evidence)
        assert isinstance(proved, dict)
        assert (proved["holds"], proved["outside"]) == (True, len(evidence) // 2)


@pytest.mark.slow
def test_an_interrupted_import_keeps_whole_batches_and_goes_on(desk: Path) -> None:
    count = 200_000
    md5_list(desk / "long.txt", count)
    found_demo("xa")
    make_set("xa")
    command = [sys.executable, "-m", "gateway.cli", "--home", "xa", "import", "long.txt", "--set", "found"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=desk, env=environment, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        with closing(sqlite3.connect(f"file:{desk / 'xa' / 'gateway.db'}?mode=ro", uri=True, timeout=30)) as reader:
            reader.isolation_level = None
            while True:
                reader.execute("BEGIN")
                if reader.execute("SELECT seq FROM hash_set").fetchone()[0]:
                    break  # and as long as somebody reads, the next batch is not committed
                reader.execute("ROLLBACK")
                assert time.monotonic() < deadline, "no batch is committed"
                time.sleep(0.01)
            running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    kept = seq_of(desk / "xa")
    assert running.returncode == 130
    assert "Run the same command again" in said
    assert kept % 65_536 == 0
    assert 0 < kept < count
    again = json_of("--home", "xa", "import", "long.txt", "--set", "found")
    assert isinstance(again, dict)
    assert (again["unchanged"], again["added"]) == (kept, count - kept)
    proved = json_of("--home", "xa", "audit", "verify")
    assert isinstance(proved, dict)
    assert proved["holds"]


def seq_of(home: Path) -> int:
    with sqlite3.connect(f"file:{home / 'gateway.db'}?mode=ro", uri=True, timeout=30) as connection:
        seq = connection.execute("SELECT seq FROM hash_set").fetchone()[0]
    connection.close()
    return int(seq)


def test_the_console_is_quick_to_say_its_version(desk: Path) -> None:
    result = process("--version", home="xa", cwd=desk)
    assert (result.returncode, result.stdout) == (0, "gateway 0.1.0\n")
    code = "import sys; from gateway.cli import app; sys.exit('sqlmodel' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# Importing


def test_a_file_that_is_bad_in_its_middle_changes_nothing(desk: Path) -> None:
    found_demo("xa")
    make_set("xa")
    rows = "".join(f"{hashlib.md5(str(n).encode()).hexdigest()}\n" for n in range(70_000))
    (desk / "bad.csv").write_text("md5\n" + rows + '"unclosed\n')
    result = gateway("--home", "xa", "import", "bad.csv", "--set", "found", exit_code=3)
    assert result.stderr.startswith("Error:")
    assert seq_of(desk / "xa") == 0


def test_refused_rows_are_listed_with_line_field_and_reason_and_go_to_a_file(desk: Path) -> None:
    found_demo("xa")
    make_set("xa")
    lines = [f"{hashlib.md5(str(n).encode()).hexdigest()[: 31 if n % 2 else 32]}" for n in range(100)]
    (desk / "list.txt").write_text("\n".join(lines))
    report = json_of("--home", "xa", "import", "list.txt", "--set", "found", "--refused-file", "refused.csv")
    assert isinstance(report, dict)
    assert (report["read"], report["accepted"], report["refused"]) == (100, 50, 50)
    assert report["refused_rows"][0]["line"] == 2
    assert len((desk / "refused.csv").read_text().splitlines()) == 51
    shown = gateway("--home", "xa", "import", "list.txt", "--set", "found").stdout
    assert "and 30 more; --refused-file FILE lists them all" in shown
    assert lines[1] not in shown  # a refused value is never shown: it may be anything
    events = json_of("--home", "xa", "audit", "list", "--kind", "rows_refused")
    assert isinstance(events, list)
    assert [event["details"]["refused"] for event in events] == [50, 50]


def test_standard_input_is_read_once_and_only_if_that_is_wanted(desk: Path) -> None:
    found_demo("xa")
    make_set("xa")
    raw = f"{hashlib.md5(b'a').hexdigest()}\n".encode()
    refused = process("import", "-", "--set", "found", home="xa", cwd=desk, input_bytes=raw)
    assert (refused.returncode, "--no-check" in refused.stderr) == (9, True)
    arguments = ("import", "-", "--set", "found", "--no-check", "--format", "digest_list", "--json")
    taken = process(*arguments, home="xa", cwd=desk, input_bytes=raw)
    assert json.loads(taken.stdout)["added"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["import", "absent.txt", "--set", "found"], 9, "cannot be read"),
        (["import", "list.txt", "--set", "XB-NCVI/found"], 5, "owner"),
        (["import", "list.txt", "--set", "absent"], 7, "no such set"),
        (["import", "list.txt", "--set", "found", "--format", "odd"], 3, "not known"),
        (["import", "bad.csv", "--set", "found"], 3, "--format"),
        (["set", "create", "Found", "--purpose", "p", "--legal-basis", "l"], 3, "small letters"),
        (["set", "create", "XB-NCVI/a", "--purpose", "p", "--legal-basis", "l"], 5, "owner's name"),
        (["set", "create", "found", "--purpose", "p", "--legal-basis", "l"], 7, "exists"),
        (["look-up", "zz"], 3, "hexadecimal"),
        (["look-up"], 9, "nothing to look up"),
        (["where", "7", "--set", "found"], 3, "written as"),
        (["where", "0001-000000000001", "--set", "found"], 7, "no such entry"),
        (["set", "withdraw", "found", "0001-000000000001", "--reason", "r"], 7, "none of these"),
        (["push", "--to", "XB-NCVI", "--set", "found"], 7, "no such partner"),
        (["pull", "--from", "XB-NCVI"], 7, "no such partner"),
        (["sync", "run", "XB-NCVI"], 7, "no such partner"),
        (["message", "send", "hello", "--to", "XB-NCVI"], 7, "no such partner"),
        (["receipt", "show", "00000000"], 7, "no such receipt"),
        (["approval", "show", "00000000"], 7, "no such proposal"),
        (["partner", "add", "list.txt", "--admin", "alice"], 3, "JSON"),
        (["partner", "show", "XB-NCVI"], 7, "no such partner"),
        (["resume", "--admin", "nobody"], 9, "key file"),
        (["admin", "add", "bob", "--admin-passphrase-file", "bob.pass"], 9, "guarded"),
        (["admin", "add", "alice", "--admin-passphrase-file", "bob.pass"], 7, "exists"),
        (["policy", "explain", "--partner", "XB-NCVI", "--set", "found", "--label", "9"], 7, "no label"),
        (["inspect", "list.txt"], 3, "no block"),
        (["audit", "verify", "--outside", "list.txt"], 3, "signed note"),
        (["init", "--agency", "XB-NCVI", "--name", "n"], 9, "not empty"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_an_error_is_a_sentence_and_an_exit_code(refusing: Path, arguments: list[str], code: int, word: str) -> None:
    passphrase = ["--admin-passphrase-file", "alice.pass"] if arguments[:2] == ["partner", "add"] else []
    said = gateway("--home", "xa", *arguments, *passphrase, exit_code=code)
    assert said.stdout == ""
    assert said.stderr.startswith("Error: ")
    assert word in said.stderr
    told = gateway("--home", "xa", *arguments, *passphrase, "--json", exit_code=code)
    problem = json.loads(told.stderr)
    assert (told.stdout, problem["exit_code"]) == ("", code)
    assert problem["type"].startswith("urn:gateway:problem:")
    assert word in json.dumps(problem, ensure_ascii=False)
    # Neither a digest nor a path of this machine stands in an error.
    assert not re.search(r"[0-9a-f]{32}", told.stderr)
    assert str(refusing) not in told.stderr


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One gateway with an empty set, for all the commands that change nothing."""
    folder = tmp_path_factory.mktemp("refusing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
        patch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
        for name in ("passphrase", "alice.pass", "bob.pass"):
            (folder / name).write_text(f"a long passphrase for {name}\n")
            (folder / name).chmod(0o600)
        found_demo("xa")
        make_set("xa")
        write_samples(folder)
    return folder


@pytest.fixture
def refusing(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(prepared)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    return prepared


def test_a_folder_without_a_gateway_is_said_before_a_passphrase_is_asked(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_PASSPHRASE_FILE")
    monkeypatch.setenv("GATEWAY_HOME", str(desk / "nowhere"))
    assert "no gateway in this data folder" in gateway("set", "list", exit_code=9).stderr


@pytest.mark.parametrize("arguments", [["frobnicate"], ["partner", "ad"], ["import"], ["set", "list", "--nope"]])
def test_a_wrong_command_line_is_exit_2(desk: Path, arguments: list[str]) -> None:
    assert gateway(*arguments, exit_code=2).stdout == ""


def test_a_bug_tells_its_kind_and_place_and_never_its_text(refusing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: object) -> object:
        raise KeyError("case 4711")

    monkeypatch.setattr("gateway.store.people.People.administrators", broken)
    said = gateway("--home", "xa", "admin", "list", exit_code=1).stderr
    assert "KeyError" in said
    assert "4711" not in said
    problem = json.loads(gateway("--home", "xa", "admin", "list", "--json", exit_code=1).stderr)
    assert problem["type"] == "urn:gateway:problem:internal"


# The log


@pytest.mark.parametrize(
    ("statement", "leaf"),
    [
        ("UPDATE audit_leaf SET event = replace(event, 'tests', 'other') WHERE idx = 3", 3),
        ("DELETE FROM audit_leaf WHERE idx = 2", 2),
        ("UPDATE audit_leaf SET idx = 100 WHERE idx = 1", 1),
    ],
)
def test_audit_verify_names_the_first_bad_entry(desk: Path, statement: str, leaf: int) -> None:
    found_demo("xa")
    make_set("xa")
    with sqlite3.connect("xa/gateway.db") as connection:
        connection.execute(statement)
    connection.close()
    said = gateway("--home", "xa", "audit", "verify", exit_code=10).stderr
    assert f"leaf {leaf}" in said


def test_a_log_cut_off_at_its_end_is_found_with_a_checkpoint_kept_outside(desk: Path) -> None:
    found_demo("xa")
    make_set("xa")
    gateway("--home", "xa", "audit", "export", "kept")
    with sqlite3.connect("xa/gateway.db") as connection:
        connection.execute("DELETE FROM audit_leaf WHERE idx = 3")
        connection.execute("DELETE FROM audit_node WHERE idx = 3 AND level = 0 OR level = 2 OR level = 1 AND idx = 1")
        connection.execute("DELETE FROM audit_checkpoint WHERE size = 4")
    connection.close()
    said = gateway("--home", "xa", "audit", "verify", "--outside", "kept/checkpoint", exit_code=10).stderr
    assert "cut off" in said
    assert gateway("--home", "xa", "audit", "verify").exit_code == 0  # nothing inside can tell


def test_an_exported_log_is_proved_without_the_gateway(desk: Path) -> None:
    found_demo("xa")
    for number in range(3):
        make_set("xa", f"set-{number}")
    key = json_of("--home", "xa", "identity", "show")
    assert isinstance(key, dict)
    gateway("--home", "xa", "audit", "export", "kept")
    proved = json_of("audit", "verify", "--folder", "kept", "--log-key", str(key["log"]))
    assert isinstance(proved, dict)
    size = proved["size"]
    # C2SP tlog-tiles: a tile of leaf hashes, and the entries beside it.
    tile = (desk / "kept" / "tile" / "0" / "000.p" / str(size)).read_bytes()
    bundle = (desk / "kept" / "tile" / "entries" / "000.p" / str(size)).read_bytes()
    entries = [bundle[at + 2 : at + 35] for at in range(0, len(bundle), 35)]
    assert tile == b"".join(hashlib.sha256(b"\0" + entry).digest() for entry in entries)
    leaves = desk / "kept" / "leaves.jsonl"
    leaves.write_text(leaves.read_text().replace("alice", "eliza"))
    assert "leaf 2" in gateway("audit", "verify", "--folder", "kept", exit_code=10).stderr
    with pytest.raises(AssertionError):
        gateway("--home", "xa", "audit", "export", "kept")  # never over what is there


# Inspecting


def test_inspect_shows_what_is_in_an_envelope_and_never_a_secret(desk: Path) -> None:
    digests = md5_list(desk / "list.txt", 30)
    for home, agency in (("xa", "XA-NCVI"), ("xb", "XB-NCVI")):
        found_demo(home, agency)
        gateway("--home", home, "identity", "export", f"{home}.card")
    for home, card in (("xa", "xb.card"), ("xb", "xa.card")):
        gateway("--home", home, "partner", "add", card, "--admin", "alice", "--admin-passphrase-file", "alice.pass")
    make_set("xa")
    gateway("--home", "xa", "import", "list.txt", "--set", "found")
    node = open_home(desk / "xa", (desk / "passphrase").read_text().strip())
    exchange, name = Exchange(node), "XA-NCVI/found"
    head = exchange.head_for("XB-NCVI", name)
    page = exchange.page_for("XB-NCVI", name, START)
    exchange.mailbox.write("XB-NCVI", "note", {"text": "for their eyes"})
    mail = exchange.mailbox_for("XB-NCVI", 0)
    assert page is not None
    assert mail is not None
    with node.store.reading() as tx, (desk / "block").open("wb") as sink:
        exchange.shelf.get(tx, tx.blocks.of_set(1)[0]).dump(sink)
    node.store.close()
    shown = {}
    for kind, body in (("head", head.body), ("page", page.body), ("mail", mail)):
        (desk / kind).write_bytes(body)
        shown[kind] = json_of("--home", "xb", "inspect", kind)
        assert json_of("--home", "xa", "inspect", kind)["opened"] is False  # type: ignore[index]  # sealed for XB alone
        assert (shown[kind]["opened"], shown[kind]["signature"]) == (True, "verifies")
    assert shown["head"]["payload"]["count"] == 30
    assert shown["page"]["payload"]["block_list"][0]["changes"] == 30
    assert shown["mail"]["payload"]["messages"][0]["kind"] == "note"
    shown["block"] = json_of("inspect", "block")
    assert shown["block"]["format"] == "hash-block 1"
    text = json.dumps(shown)
    assert head.head.key not in text
    assert "for their eyes" not in text
    assert not any(digest in text for digest in digests)
    (desk / "page").write_bytes(page.body[:-1] + bytes([page.body[-1] ^ 1]))
    gateway("--home", "xb", "inspect", "page", exit_code=4)
    gateway("--home", "xa", "partner", "remove", "XB-NCVI", "--reason", "over", *ALICE)
    assert gateway("--home", "xa", "inspect", "receipt", exit_code=9).stderr.startswith("Error")
    assert json_of("--home", "xa", "partner", "show", "XB-NCVI")["state"] == "removed"  # type: ignore[index]


ALICE = ("--admin", "alice", "--admin-passphrase-file", "alice.pass")


def test_a_suspended_partner_is_shown_as_such_and_resumed(desk: Path) -> None:
    for home, agency in (("xa", "XA-NCVI"), ("xb", "XB-NCVI")):
        found_demo(home, agency)
    gateway("--home", "xb", "identity", "export", "xb.card")
    gateway("--home", "xa", "partner", "add", "xb.card", *ALICE)
    gateway("--home", "xa", "partner", "suspend", "XB-NCVI", "--reason", "a key may be lost", *ALICE)
    assert "suspended" in gateway("--home", "xa", "partner", "list").stdout
    gateway("--home", "xa", "resume", "XB-NCVI", *ALICE)
    assert "active" in gateway("--home", "xa", "partner", "list").stdout
    raw = gateway("--home", "xa", "identity", "export").stdout.encode()
    assert parse_card(raw.rstrip(b"\n")).agency == "XA-NCVI"


# Passphrases


def test_a_passphrase_comes_from_a_credential_of_the_service_manager(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_PASSPHRASE_FILE")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(desk))
    with pytest.raises(ConfigError, match="no terminal"):
        Passphrases().gateway()
    (desk / "gateway-passphrase").write_text("from systemd\n")
    (desk / "gateway-passphrase").chmod(0o400)
    assert Passphrases().gateway() == "from systemd"


@pytest.mark.parametrize(
    ("content", "mode", "fault"),
    [(b"", 0o600, "empty"), (b"\xff\n", 0o600, "UTF-8"), (b"secret words\n", 0o644, "others may read")],
)
def test_a_passphrase_file_that_will_not_do_is_refused(desk: Path, content: bytes, mode: int, fault: str) -> None:
    (desk / "file").write_bytes(content)
    (desk / "file").chmod(mode)
    with pytest.raises(ConfigError, match=fault):
        Passphrases(desk / "file").gateway()


def test_guesses_are_cheap_in_a_demo_only() -> None:
    assert cost(demo=True, environ=CHEAP) == Argon2Cost(8192, 1, 1)
    assert cost(demo=False, environ=CHEAP) == RFC9106_SECOND
    assert cost(demo=True, environ={}) == RFC9106_SECOND


# Documentation


def test_every_command_and_option_is_documented() -> None:
    page = COMMANDS_PAGE.read_text(encoding="utf-8")
    before, mark, _ = page.partition("## Reference\n")
    actual = before + mark + reference()
    if UPDATE:
        COMMANDS_PAGE.write_text(actual, encoding="utf-8")
    assert page == actual


def reference() -> str:
    """The reference part of docs/commands.md, from the commands themselves."""
    root = typer.main.get_command(app)
    context = root.make_context("gateway", [], resilient_parsing=True)
    pieces = [
        "\nBefore every command, and all but the last after it as well:\n\n",
        *options_of(root, (*COMMON, "--version")),
    ]
    for name in ROOMS:
        found = root.get_command(context, name)  # type: ignore[attr-defined]
        pieces += command_pages(f"gateway {name}", found)
    return "".join(pieces)


COMMON = ("--home", "--json", "--passphrase-file")


def command_pages(name: str, found: object) -> list[str]:
    children = getattr(found, "commands", None)
    if children:
        return [piece for child, one in children.items() for piece in command_pages(f"{name} {child}", one)]
    arguments = [one for one in found.params if one.param_type_name == "argument"]  # type: ignore[attr-defined]
    usage = " ".join([name, *(usage_of(one) for one in arguments)])
    own = [
        one.opts[0]
        for one in found.params  # type: ignore[attr-defined]
        if one.param_type_name == "option" and one.opts[0] not in (*COMMON, "--help")
    ]
    lines = [f"\n### {name}\n\n    {usage}{' [OPTIONS]' if own else ''}\n\n", f"{found.help.strip()}\n"]  # type: ignore[attr-defined]
    lines += [f"\n- `{usage_of(one)}`: {one.help}" for one in arguments]
    lines += ["\n"] if arguments else []
    return [*lines, *(["\n", *options_of(found, own)] if own else [])]


def usage_of(argument: object) -> str:
    name = argument.metavar or argument.name.upper()  # type: ignore[attr-defined]
    return str(name if argument.required or name.startswith("[") else f"[{name}]")  # type: ignore[attr-defined]


def options_of(found: object, names: object) -> list[str]:
    """One line for each option."""
    lines = []
    for one in found.params:  # type: ignore[attr-defined]
        if one.param_type_name == "option" and one.opts[0] in names:  # type: ignore[operator]
            words = [one.help.rstrip(".") + "."]
            if one.required:
                words.append("Required.")
            elif one.default not in (None, False, "", 0) and not callable(one.default):
                words.append(f"Default: `{one.default}`.")
            lines.append(f"- `{', '.join(one.opts)}`: {' '.join(words)}\n")
    return lines


def test_help_names_every_command(desk: Path) -> None:
    shown = gateway("--help").stdout
    assert all(name in shown for name in ROOMS)


def test_completion_offers_commands(desk: Path) -> None:
    environment = {"COMP_WORDS": "gateway part", "COMP_CWORD": "1", "_GATEWAY_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", "from gateway.cli import app; app(prog_name='gateway')"]
    found = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert found.stdout.split() == ["partner"]
