"""docs/scripting.md is true: its example runs as it stands there, and its tables name what there is."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from factory import drafts, make_set
from gateway import client, errors
from gateway.errors import PartnerError
from gateway.exchange import Exchange
from gateway.home import open_home
from processes import Fleet, Installed, environment

PAGE = (Path(__file__).parents[1] / "docs" / "scripting.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(SHOWN,) = re.findall(r"```text\n\$ python exchange.py .*?\n(.*?)```", PAGE, re.S)


def make(gateway: Installed, name: str, count: int) -> None:
    node = open_home(gateway.home, gateway.passphrase)
    make_set(Exchange(node), name, drafts(count))
    node.store.close()


def exchange(gateway: Installed, folder: Path, partner: str, name: str) -> subprocess.CompletedProcess[str]:
    """The example, run from a file."""
    script = folder / "exchange.py"
    script.write_text(EXAMPLE, encoding="utf-8")
    words = [str(gateway.home), str(gateway.passphrase_file), partner, name]
    return subprocess.run(
        [sys.executable, str(script), *words],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_the_example_prints_what_stands_on_the_page_and_moves_nothing_twice(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        xa, xb = fleet.found("XA-NCVI", "XB-NCVI")
        fleet.befriend(xa, xb)
        make(xa, "found", 2)
        make(xb, "listed", 3)
        fleet.serve(xb)
        first = exchange(xa, tmp_path, "XB-NCVI", "XA-NCVI/found")
        again = exchange(xa, tmp_path, "XB-NCVI", "XA-NCVI/found")
        kept = xa.ask("receipt", "list")
        there = xb.ask("set", "list")
        wrong = exchange(xa, tmp_path, "XD-NCVI", "XA-NCVI/found")
    assert (first.returncode, first.stderr) == (0, "")
    assert re.sub(r"\d+", "N", first.stdout) == re.sub(r"\d+", "N", SHOWN)
    assert first.stdout.splitlines()[:3] == SHOWN.splitlines()[:3]
    assert "XA-NCVI/found: 0 changes sent; pages: 0\n" in again.stdout
    assert again.stdout.count("leaf") == 0
    assert len(kept) == 1
    assert {one["set"]: one["entries"] for one in there}["XA-NCVI/found"] == 2
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "no such partner" in wrong.stderr


def test_the_page_names_every_function_of_the_link_and_nothing_else() -> None:
    public = {name for name, _ in inspect.getmembers(client.PartnerLink, inspect.isfunction) if name[0] != "_"}
    table = PAGE.partition("## The link")[2].partition("## What may")[0]
    named = {one for row in re.findall(r"^\| (`.*?) \|", table, re.M) for one in re.findall(r"`(\w+)\(", row)}
    assert named == public
    for name in public:
        assert inspect.getdoc(getattr(client.PartnerLink, name)), name


def test_the_page_names_errors_that_there_are() -> None:
    table = PAGE.partition("## What may go wrong")[2]
    named = [one for row in re.findall(r"^\| (`.*?) \|", table, re.M) for one in re.findall(r"`(\w+Error)`", row)]
    assert len(named) > 10
    for name in named:
        assert issubclass(getattr(errors, name, None) or getattr(client, name), errors.GatewayError)
    assert issubclass(client.BrokenOffError, PartnerError)


def test_what_the_client_offers_is_there_and_explained() -> None:
    assert set(client.__all__) >= {"PartnerLink", "LinkLimits", "BrokenOffError"}
    for name in client.__all__:
        found = getattr(client, name)
        assert isinstance(found, str) or inspect.getdoc(found)
