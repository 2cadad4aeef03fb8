"""`gateway look-up`: what an analyst sees at a glance, and what a program reads."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from factory import FakeClock, befriend, loopback, make_node, make_set, serving, sha256
from gateway.cli import app, looking
from gateway.cli.shell import Shell
from gateway.exchange import Exchange
from gateway.model import EntryDraft, HandlingCode, VictimStatus
from gateway.node import Node

PDQ = sha256("a picture")


def gateway(*arguments: str, exit_code: int = 0, stdin: bytes | None = None) -> Result:
    """One command, in this process."""
    result = CliRunner().invoke(app, list(arguments), prog_name="gateway", input=stdin)
    assert result.exit_code == exit_code, (arguments, result.exit_code, result.stdout, result.stderr)
    return result


def json_of(*arguments: str) -> Any:
    return json.loads(gateway(*arguments, "--json").stdout)


def near(bits: int) -> str:
    return (int.from_bytes(PDQ, "big") ^ ((1 << bits) - 1)).to_bytes(32, "big").hex()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo gateway with four entries: identified, a lead, one that nobody has identified, one that says nothing."""
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
        patch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
        Path("passphrase").write_text("a long passphrase of tests\n")
        Path("passphrase").chmod(0o600)
        rows = [("identified", 0), ("lead", 5), ("unidentified", 150), ("unknown", 250)]
        lines = [f"{sha256(status).hex()},{near(bits)},90,{status},Blue Door" for status, bits in rows]
        Path("list.csv").write_text("\n".join(["sha256,pdq,pdq_quality,victim_status,series", *lines]) + "\n")
        gateway("init", "--home", "xa", "--demo", "--agency", "XA-NCVI", "--name", "A unit")
        law = "XA Police Data Act 2019, section 12"
        gateway("--home", "xa", "set", "create", "found", "--purpose", "tests", "--legal-basis", law)
        gateway("--home", "xa", "import", "list.csv", "--set", "found", "--format", "gateway_csv")
    return folder


@pytest.fixture(autouse=True)
def at_the_desk(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")


def of(status: str) -> str:
    return sha256(status).hex()


def test_a_person_sees_at_a_glance_what_is_known() -> None:
    shown = gateway("look-up", of("lead"), "ab" * 32, of("identified"), of("unidentified"), of("unknown")).stdout
    heading, *lines, summary = shown.splitlines()
    assert heading.split()[:3] == ["digest", "answer", "who"]
    answers = [line.split("…")[1].split("XA-NCVI")[0].split("  ")[1].strip() for line in lines]
    assert answers == ["lead", "unknown", "identified", "unidentified", "listed"]
    assert summary == "Of 5 digests: 1 identified, 1 lead, 1 unidentified, 1 listed, 1 unknown."


def test_in_a_narrow_window_what_matters_most_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.shell.PLAIN_WIDTH", 80)
    done = gateway("look-up", of("lead"), of("identified"))
    heading, *lines, _ = done.stdout.splitlines()
    assert heading.split() == ["digest", "answer", "who", "since", "set"]
    assert all(line.rstrip().endswith("XA-NCVI/found") for line in lines)
    assert "No room for: entry, from" in done.stderr
    assert "--json" in done.stderr
    assert gateway("look-up", of("lead"), "--json").stderr == ""


def test_what_looks_alike_needs_review_and_says_how_far_apart_it_is() -> None:
    assert gateway("look-up", near(1)).stdout == "Not listed here.\n"
    shown = gateway("look-up", near(1), "--near").stdout
    assert "needs review (1 bit apart, identified)" in shown
    assert "needs review (4 bits apart, lead)" in shown
    assert "confirmed" not in shown
    hits = json_of("look-up", near(0), of("lead"), "--near", "--distance", "4")
    assert [(hit["answer"], hit["distance"], hit["victim_status"]) for hit in hits] == [
        ("needs review", 0, "identified"),
        ("lead", None, "lead"),
    ]


def test_a_list_is_answered_with_what_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MAX_LOOK_UP", 7)
    rows = [f"{n},{sha256(f'strange {n}').hex()}" for n in range(20)]
    rows[13] = f"13,{of('identified')}"
    rows[17] = "17,no digest"
    Path("mine.csv").write_text("\n".join(["number,sha256", *rows]))
    done = gateway("look-up", "--file", "mine.csv")
    assert done.stdout.count("…") == 1
    assert done.stdout.splitlines()[-1] == "Of 19 digests: 1 identified, 18 unknown."
    assert done.stderr == "1 row passed over, no digest in it: line 19\n"
    [hit] = json_of("look-up", "--file", "mine.csv", "--column", "SHA256")
    assert (hit["query"], hit["line"], hit["answer"], hit["who"]) == (14, 15, "identified", "XA-NCVI")
    same = gateway("look-up", "--file", "-", "--json", stdin=Path("mine.csv").read_bytes())
    assert json.loads(same.stdout) == [hit]


def test_flat_pictures_of_a_list_are_not_asked() -> None:
    Path("mine.csv").write_text(f"pdq,pdq_quality\n{near(1)},49\n{near(2)},50\n")
    done = gateway("look-up", "--near", "--file", "mine.csv")
    assert "1 digest of a quality below 50 not asked" in done.stderr
    assert "2 bits apart" in done.stdout
    assert "1 bit apart" not in done.stdout


def test_imagery_is_refused_in_plain_words() -> None:
    Path("holiday.txt").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 100)
    said = gateway("look-up", "--file", "holiday.txt", exit_code=3).stderr
    assert "this file is a picture (JPEG), not a list of digests" in said
    assert "never takes imagery" in said
    gateway("look-up", "--file", "not there", exit_code=9)
    Path("empty").write_text("# nothing\n")
    gateway("look-up", "--file", "empty", exit_code=9)


def test_an_empty_answer_is_an_empty_list() -> None:
    assert json_of("look-up", "ab" * 32) == []
    assert gateway("look-up", "ab" * 32, "cd" * 32).stdout == "None of 2 is listed here.\n"


def test_a_json_list_that_comes_in_batches_is_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MAX_LOOK_UP", 1)
    source = io.BytesIO("\n".join([of("lead"), "ab" * 32, of("identified")]).encode())
    hits = json.loads(gateway("look-up", "--file", "-", "--json", stdin=source.getvalue()).stdout)
    assert [(hit["query"], hit["answer"]) for hit in hits] == [(1, "lead"), (3, "identified")]


# At partners


@pytest.fixture
def partners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Exchange, Exchange]:
    """XA, which holds a list; XB, at whose desk we sit; and XC, which cannot be reached."""
    clock = FakeClock()
    made = [make_node(tmp_path, name, clock=clock, **loopback()) for name in ("XA-NCVI", "XB-NCVI", "XC-NCVI")]
    befriend(*made)
    xa, xb = Exchange(made[0]), Exchange(made[1])
    entry = EntryDraft({"sha256": sha256("identified"), "pdq": PDQ}, victim_status=VictimStatus.IDENTIFIED)
    make_set(xa, "identified", [entry])
    make_set(xb, "mine", [EntryDraft({"sha256": sha256("ours")})], handling=HandlingCode.H3)

    @contextmanager
    def node(_shell: Shell, **_options: object) -> Iterator[Node]:
        yield xb.node

    monkeypatch.setattr(Shell, "node", node)
    return xa, xb


async def asked(*arguments: str, exit_code: int = 0) -> Result:
    return await asyncio.to_thread(lambda: gateway("look-up", *arguments, exit_code=exit_code))


async def test_partners_answers_stand_beside_our_own(partners: tuple[Exchange, Exchange]) -> None:
    xa, _ = partners
    async with serving(xa):
        shown = (await asked(of("identified"), of("ours"), near(3), "--near", "--partner", "XA-NCVI")).stdout
        lines = shown.splitlines()
        assert "identified" in lines[1]
        assert "XA-NCVI/identified" in lines[1]
        assert "XB-NCVI/mine" in lines[2]
        assert "needs review (3 bits apart, identified)" in lines[3]
        assert lines[4] == (
            "XA-NCVI answered: it may tell us of 2; 1 digest not asked, since our policy keeps it from this partner."
        )
        assert lines[5] == "Of 3 digests: 1 identified, 1 listed, 1 needs review."
        said = json.loads((await asked(of("identified"), "--partner", "XA-NCVI", "--json")).stdout)
    [hit], [round_] = said["hits"], said["partners"]
    assert (hit["hub"], hit["answer"], hit["who"], hit["victim_status"]) == (
        "XA-NCVI",
        "identified",
        "XA-NCVI",
        "identified",
    )
    assert round_ == {
        "partner": "XA-NCVI",
        "answered": True,
        "known": 1,
        "withheld": 0,
        "unfit": 0,
        "error": "",
    }


async def test_who_does_not_answer_is_named_and_keeps_nobody_waiting(partners: tuple[Exchange, Exchange]) -> None:
    xa, _ = partners
    async with serving(xa):
        done = await asked(of("identified"), "--all-partners", exit_code=8)
    assert "XA-NCVI answered: it may tell us of 1." in done.stdout
    assert "XC-NCVI did not answer: the partner cannot be reached." in done.stdout
    unknown = await asked(of("identified"), "--partner", "XD-NCVI", "--json", exit_code=7)
    assert json.loads(unknown.stdout)["partners"][0]["error"] == "no such partner"


async def test_a_purpose_that_policy_does_not_know_brings_nothing(partners: tuple[Exchange, Exchange]) -> None:
    xa, _ = partners
    async with serving(xa):
        done = await asked(of("identified"), "--partner", "XA-NCVI", "--purpose", "statistics")
    assert done.stdout == "XA-NCVI answered: it may tell us of 0.\nNot listed here.\n"


def test_partners_are_asked_about_so_many_at_once(
    partners: tuple[Exchange, Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "MAX_AT_PARTNERS", 2)
    said = gateway("look-up", of("1"), of("2"), of("3"), "--partner", "XA-NCVI", exit_code=9).stderr
    assert "more than 2 digests for partners" in said
