"""The hash-sharing door and its other side as people run them: one gateway serves, another follows it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner, Result

from factory import LEGAL_BASIS
from gateway.adapters.ncmec import NAMESPACE, REASONS, Member
from gateway.callers import Callers, Scope
from gateway.cli import app
from gateway.config import SETTINGS_FILE, dump_settings, load_settings
from gateway.exchange import Exchange
from gateway.exchange.labels import SetDefaults
from gateway.home import open_home
from gateway.model import EntryDraft, HandlingCode
from processes import Fleet, Installed

DIGESTS = [hashlib.md5(f"made-up {number}".encode()).digest() for number in range(4)]
SET = "XB-NCVI/from-xa"


def gateway(of: Installed, *arguments: str, exit_code: int = 0) -> Result:
    passphrase = str(of.home.parent / f"{of.agency}.passphrase")
    whole = ["--home", str(of.home), "--passphrase-file", passphrase, *arguments]
    result = CliRunner().invoke(app, whole, prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.output, result.stderr)
    return result


def json_of(of: Installed, *arguments: str) -> Any:
    return json.loads(gateway(of, *arguments, "--json").stdout)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Fleet, Installed, Installed, str]]:
    """XA, which lists four files and opened its door to XB; XB, which is set up to follow it; XB's password."""
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    with Fleet(tmp_path) as fleet:
        xa, xb = fleet.found("XA-NCVI", "XB-NCVI")
        fleet.befriend(xa, xb)
        earlier = int(time.time()) - 200
        node = replace(open_home(xa.home, xa.passphrase), clock=lambda: earlier)
        exchange = Exchange(node)
        defaults = SetDefaults(LEGAL_BASIS, category="icse:1", handling=HandlingCode.H1, evaluation="B2")
        exchange.ledger.create_set("XA-NCVI/found", "victim_identification", defaults, "tester")
        listed = [EntryDraft({"md5": one}, source_ref=str(n)) for n, one in enumerate(DIGESTS)]
        exchange.ledger.import_entries("XA-NCVI/found", listed, actor="tester", form="test")
        with node.store.transaction() as tx:
            tx.secrets.open("XB-NCVI", str(Scope.HASHSHARING), earlier, "a proposal")
        password = Callers(node).issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")[1]
        node.store.close()
        (xb.home / "secret").touch(mode=0o600)
        (xb.home / "secret").write_text(f"{password}\n")
        following = replace(
            load_settings(xb.home),
            hashsharing_url=f"http://127.0.0.1:{xa.port}/hashsharing",
            hashsharing_user="XB-NCVI",
            hashsharing_password_file="secret",
            hashsharing_set=SET,
        )
        (xb.home / SETTINGS_FILE).write_text(dump_settings(following))
        gateway(xb, "set", "create", "from-xa", "--purpose", "victim_identification", "--legal-basis", LEGAL_BASIS)
        fleet.serve(xa)
        yield fleet, xa, xb, password


@pytest.mark.slow
def test_a_gateway_follows_another_by_command_and_by_itself(fleet: tuple[Fleet, Installed, Installed, str]) -> None:
    processes, xa, xb, _ = fleet
    assert gateway(xb, "source", "follow").stdout == f"{SET}: 4 added, 0 updated, 0 withdrawn, 0 refused, of 4 read.\n"
    time.sleep(1.1)  # in the same second there is nothing to ask for
    told = json_of(xb, "source", "follow")
    assert (told["pages"], told["added"], told["unchanged"], told["withdrawn"]) == (1, 0, 0, 0)
    state = json_of(xb, "source", "show")
    assert (state["failures"], state["set_name"], state["last_error"]) == (0, SET, "")
    assert [hit["set"] for hit in json_of(xb, "look-up", DIGESTS[0].hex())] == [SET]
    assert "taken up to" in gateway(xb, "source", "show").stdout
    before = state["last_success"]
    served = processes.serve(xb)
    until = time.monotonic() + 30
    while json_of(xb, "source", "show")["last_success"] == before and time.monotonic() < until:
        time.sleep(0.2)
    assert json_of(xb, "source", "show")["last_success"] > before, served.said()
    assert served.stop() == 0
    (xb.home / "secret").write_text("another\n")
    time.sleep(1.1)
    assert "does not answer" in gateway(xb, "source", "follow", exit_code=6).stderr
    assert json_of(xb, "source", "show")["failures"] == 1
    gateway(xa, "source", "show", exit_code=9)


@pytest.mark.slow
def test_what_partners_say_of_entries_is_listed(fleet: tuple[Fleet, Installed, Installed, str]) -> None:
    _, xa, _, password = fleet
    assert json_of(xa, "opinion", "list") == []
    guid, why = next(iter(REASONS.items()))
    reason = f"<negative><reasonIds><guid>{guid}</guid></reasonIds></negative>"
    body = f'<feedbackSubmission xmlns="{NAMESPACE}">{reason}</feedbackSubmission>'
    base = f"http://127.0.0.1:{xa.port}/hashsharing/v2"
    path = f"{base}/entries/{Member('XA-NCVI').number}/1-0001000000000001/MD5/feedback"
    answer = requests.put(
        path, data=body, headers={"Content-Type": "application/xml"}, auth=("XB-NCVI", password), timeout=10
    )
    assert answer.status_code == 200
    (told,) = json_of(xa, "opinion", "list", "--set", "XA-NCVI/found")
    assert told.pop("given_at") > 0
    assert told == {
        "set": "XA-NCVI/found",
        "entry": "0001-000000000001",
        "version": 1,
        "algorithm": "md5",
        "partner": "XB-NCVI",
        "way": "hashsharing",
        "verdict": "negative",
        "reasons": [guid],
        "why": why,
        "note": "",
    }
    assert why in gateway(xa, "opinion", "list").stdout
    # Our own people give the same entry a large fingerprint.
    (xa.home.parent / "video.tmk").write_bytes(b"a fingerprint of a made-up video")
    give = ("set", "fingerprint", "found", "0001-000000000001", str(xa.home.parent / "video.tmk"))
    assert json_of(xa, *give) == {"set": "XA-NCVI/found", "entry": "0001-000000000001", "changed": True}
    assert gateway(xa, *give).stdout == "Entry 0001-000000000001 of XA-NCVI/found had it already.\n"
    gateway(xa, *give[:3], "0001-000000000009", give[4], exit_code=7)
    gateway(xa, "opinion", "list", "--set", "XA-NCVI/absent", exit_code=7)
