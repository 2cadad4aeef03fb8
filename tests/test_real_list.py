"""A real list: the MD5 digests of this machine's own installed files, from one gateway to two others, compared as sets.

The list comes from Debian's package database and names harmless files. Everything goes through the installed command
and running servers: XA imports it, pushes it to XB, and XC, whose server follows XA on its schedule, has it as well.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from gateway.exchange import Exchange
from gateway.home import open_home
from gateway.node import Node
from partner_simulator import held_entries
from processes import SET_OPTIONS, Fleet, Installed, side_by_side

DATABASE = Path("/var/lib/dpkg/info")
LEAST_ENTRIES = 50_000
EMPTY_FILE = "d41d8cd98f00b204e9800998ecf8427e"  # MD5 of nothing: no file of evidence, and in every list
LINE_FEED = "68b329da9893e34099c7d8ad5cb9c940"  # MD5 of one line feed: known good, by the list every gateway comes with
SET = "XA-NCVI/installed-files"
FOLLOW_SECONDS = 60

pytestmark = pytest.mark.slow


def installed_files(target: Path) -> Counter[str]:
    """Writes the whole list to a file; returns how often each digest stands in it."""
    lists = sorted(DATABASE.glob("*.md5sums"))
    raw = b"".join(one.read_bytes() for one in lists)
    digests = Counter(line.split()[0].decode().lower().lstrip("\\") for line in raw.splitlines() if line.strip())
    assert len(digests) > LEAST_ENTRIES, (
        f"this machine's package database lists {len(digests):,} different files, and this test needs "
        f"{LEAST_ENTRIES:,}: run it on Debian or Ubuntu, and install a large package with many files, such as "
        "`apt-get install linux-source git-doc`"
    )
    target.write_bytes(raw)
    return digests


def digests_at(gateway: Installed) -> Counter[str]:
    """Every MD5 that a gateway holds of the set, as often as it holds it."""
    node = open_home(gateway.home, gateway.passphrase)
    try:
        held = held_entries(Exchange(node), SET)
        return Counter(bytes(one["md5"]).hex() for one in held.values())  # type: ignore[call-overload]
    finally:
        node.store.close()


def mirror_at(gateway: Installed) -> dict[str, object]:
    """How a mirror of the set stands, once the push or the schedule has brought it there."""
    end = time.monotonic() + FOLLOW_SECONDS
    node = open_home(gateway.home, gateway.passphrase)  # looking so costs less than a command each time
    try:
        while not _is_compared(node):
            assert time.monotonic() < end, f"{gateway.agency} does not follow: {gateway.ask('sync', 'status')}"
            time.sleep(0.1)
    finally:
        node.store.close()
    [mirror] = [one for one in gateway.ask("set", "list") if one["set"] == SET]
    return dict(mirror)


def _is_compared(node: Node) -> bool:
    with node.store.reading() as tx:
        mirror = tx.sets.find(SET)
    return mirror is not None and mirror.equality != "unknown"


def test_a_real_list_arrives_whole_by_push_and_by_following(tmp_path: Path) -> None:
    listed = installed_files(tmp_path / "list.md5sums")
    wanted = listed.keys() - {EMPTY_FILE, LINE_FEED}
    with Fleet(tmp_path) as fleet:
        everybody = xa, xb, xc = fleet.found("XA-NCVI", "XB-NCVI", "XC-NCVI")
        fleet.befriend(*everybody)
        # 1. Import: every different digest once, duplicates, empty files and what is known good told.
        xa.run("set", "create", "installed-files", *(word for pair in SET_OPTIONS.items() for word in pair))
        done = xa.ask("import", str(tmp_path / "list.md5sums"), "--set", "installed-files")
        assert done["read"] == listed.total()
        assert (done["refused"], done["added"]) == (listed[EMPTY_FILE], len(wanted))
        assert (done["known_good"], done["never_again"]) == (int(LINE_FEED in listed), 0)
        assert done["repeated"] + done["unchanged"] == done["accepted"] - len(wanted) - done["known_good"]
        # 2. The same file again adds nothing.
        again = xa.ask("import", str(tmp_path / "list.md5sums"), "--set", "installed-files")
        assert (again["added"], again["updated"]) == (0, 0)
        # 3. Pushed to XB; XC's schedule fetches it.
        fleet.serve(xb)  # XA does not answer yet, so its schedule cannot fetch what is to be pushed
        pushed = xa.ask("push", "--to", "XB-NCVI", "--set", "installed-files")
        assert (pushed["changes"], len(pushed["receipts"])) == (len(wanted), pushed["pages"])
        side_by_side(fleet.serve, (xa, xc))
        for mirror in side_by_side(mirror_at, (xb, xc)):
            assert (mirror["entries"], mirror["equality"]) == (len(wanted), "equal")
        # 4. Both ends, set for set; every log holds.
        for gateway in everybody:
            assert digests_at(gateway) == dict.fromkeys(wanted, 1), gateway.agency
        assert all(report["holds"] for report in side_by_side(lambda one: one.ask("audit", "verify"), everybody))
        # 5. One of them, as an officer would ask.
        [hit] = xc.ask("look-up", min(wanted))
        assert (hit["set"], hit["originator"]) == (SET, "XA-NCVI")
