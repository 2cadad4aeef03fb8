"""The data folder: founding is one step, opening compares everything that must agree."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from factory import CHEAP, PASSPHRASE, FakeClock, SeededRandom
from gateway import policy
from gateway.audit import EventKind, parse_event
from gateway.config import Settings
from gateway.errors import AuditBrokenError, ConfigError, ConflictError
from gateway.home import agency_name, found, open_home
from gateway.node import POLICY_META, Node


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def make(folder: Path, clock: FakeClock, agency: str = "XA-NCVI", **settings: Any) -> Path:
    """A founded data folder."""
    chosen = Settings(folder=folder, agency=agency, jurisdiction=agency[:2], **settings)
    found(chosen, PASSPHRASE, name=f"Unit of {agency[:2]}", clock=clock, random=SeededRandom(agency), cost=CHEAP)
    return folder


@pytest.fixture
def home(tmp_path: Path, clock: FakeClock) -> Path:
    return make(tmp_path / "xa", clock)


def events(node: Node) -> list[tuple[EventKind, dict[str, object]]]:
    with node.store.reading() as tx:
        parsed = [parse_event(leaf.event_bytes) for leaf in tx.log.leaves() if leaf.event_bytes]
    return [(event.kind, event.details) for event in parsed]


def change(home: Path, statement: str, *values: object) -> None:
    """Change the database behind the gateway's back."""
    with sqlite3.connect(home / "gateway.db") as connection:
        connection.execute(statement, values)
    connection.close()


def edit(home: Path, old: str, new: str) -> None:
    path = home / "gateway.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_founded_gateway_opens_and_its_log_begins_with_the_founding(home: Path, clock: FakeClock) -> None:
    node = open_home(home, PASSPHRASE, clock=clock)
    kinds = [kind for kind, _ in events(node)]
    assert kinds == [EventKind.GATEWAY_INITIALISED, EventKind.POLICY_ACTIVATED]
    details = events(node)[0][1]
    assert (details["agency"], details["quorum"], details["demo"]) == ("XA-NCVI", 2, False)
    assert agency_name(node) == "Unit of XA"
    assert set(node.keystore.signing_key.public.key_ids) <= set(details["key_ids"])  # type: ignore[arg-type]


def test_only_the_owner_may_enter_the_folder_or_read_its_keys(home: Path) -> None:
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "administrators").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "keystore.json").stat().st_mode) == 0o600


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "xa").mkdir()
    (tmp_path / "xa" / "letter.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="not empty"):
        make(tmp_path / "xa", clock)
    assert [path.name for path in tmp_path.rglob("*")] == ["xa", "letter.txt"]


def test_an_empty_folder_will_do(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "xa").mkdir(mode=0o755)
    make(tmp_path / "xa", clock)
    assert stat.S_IMODE((tmp_path / "xa").stat().st_mode) == 0o700


@pytest.mark.parametrize("fault", ["passphrase", "database", "name"])
def test_a_founding_that_fails_leaves_nothing(tmp_path: Path, clock: FakeClock, fault: str) -> None:
    settings = Settings(
        folder=tmp_path / "xa",
        agency="XA-NCVI",
        jurisdiction="XA",
        database="no-such-folder/gateway.db" if fault == "database" else "gateway.db",
    )
    passphrase = "short" if fault == "passphrase" else PASSPHRASE
    with pytest.raises(Exception, match=r"passphrase|database|name"):  # whatever stops it
        found(settings, passphrase, name="" if fault == "name" else "Unit", clock=clock, cost=CHEAP)
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_belongs_to_a_gateway_is_not_founded_upon(home: Path, tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(ConflictError, match="belongs to a gateway"):
        make(tmp_path / "xb", clock, "XB-NCVI", database=str(home / "gateway.db"))


def test_a_jurisdiction_without_shipped_rules_starts_closed(tmp_path: Path, clock: FakeClock) -> None:
    home = make(tmp_path / "xz", clock, "XZ-NCVI")
    node = open_home(home, PASSPHRASE, clock=clock)
    assert node.policy.jurisdiction == "XZ"
    assert not [rule for rule in node.policy.rules.values() if rule.kind == "permit"]
    assert (home / "policies" / "XZ" / "README.md").exists()


def test_only_the_own_jurisdictions_rules_are_copied(home: Path) -> None:
    assert {path.name for path in (home / "policies").iterdir()} == {
        "LOCK",
        "schema.cedarschema",
        "00-federation",
        "XA",
    }


def test_a_wrong_passphrase_opens_nothing(home: Path, clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match="passphrase"):
        open_home(home, "another passphrase", clock=clock)


def test_a_folder_that_was_never_founded_is_a_plain_error(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read.*gateway\.toml"):
        open_home(tmp_path, PASSPHRASE, clock=clock)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("demo = false", "demo = true", "demo"),
        ('agency = "XA-NCVI"', 'agency = "XA-OTHER"', "another agency"),
        ("quorum = 3", "quorum = 2", "quorum"),
    ],
)
def test_editing_the_settings_does_not_lower_what_was_founded(
    tmp_path: Path, clock: FakeClock, old: str, new: str, fault: str
) -> None:
    home = make(tmp_path / "xa", clock, quorum=3)
    edit(home, old, new)
    with pytest.raises(ConfigError, match=fault):
        open_home(home, PASSPHRASE, clock=clock)


def test_a_quorum_may_rise(home: Path, clock: FakeClock) -> None:
    edit(home, "quorum = 2", "quorum = 3")
    assert open_home(home, PASSPHRASE, clock=clock).settings.quorum == 3


def test_a_policy_that_somebody_else_wrote_into_the_database_opens_nothing(home: Path, clock: FakeClock) -> None:
    node = open_home(home, PASSPHRASE, clock=clock)
    other = policy.digest_texts({**node.policies.texts, "XA/national.cedar": "// nothing\n"})
    with node.store.transaction() as tx:
        tx.people.set_meta(POLICY_META, other)
    with pytest.raises(AuditBrokenError, match="policy"):
        open_home(home, PASSPHRASE, clock=clock)


def test_rules_that_are_not_sound_open_nothing(home: Path, clock: FakeClock) -> None:
    (home / "policies" / "XA" / "national.cedar").write_text("permit (principal, action, resource);")
    with pytest.raises(ConfigError, match="XA/national"):
        open_home(home, PASSPHRASE, clock=clock)


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("UPDATE audit_leaf SET entry = ? WHERE idx = 1", [b"\1" + bytes(32)]),
        ("UPDATE audit_node SET hash = ? WHERE level = 1", [bytes(32)]),
        ("DELETE FROM audit_leaf WHERE idx = 1", []),
        ("DELETE FROM audit_checkpoint", []),
        ("UPDATE audit_checkpoint SET note = replace(note, char(10) || 'previous', char(10) || 'Previous')", []),
    ],
)
def test_a_log_whose_end_was_changed_stops_the_gateway(
    home: Path, clock: FakeClock, statement: str, values: list[object]
) -> None:
    change(home, statement, *values)
    with pytest.raises(AuditBrokenError) as caught:
        open_home(home, PASSPHRASE, clock=clock)
    assert "audit verify" in caught.value.remedy or caught.value.index == 1


def test_looking_at_a_broken_log_is_still_possible_and_writes_nothing(home: Path, clock: FakeClock) -> None:
    change(home, "DELETE FROM audit_checkpoint")
    (home / "policies" / "XA" / "national.cedar").write_text("// other rules\n")
    node = open_home(home, PASSPHRASE, clock=clock, check_log=False)
    assert len(events(node)) == 2
