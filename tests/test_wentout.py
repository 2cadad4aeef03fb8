"""Which files that left hold an entry: what the log and the manifests say of it, and what cannot be said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from factory import FakeClock, befriend, drafts, make_node, make_set, sha256
from gateway.cli import app
from gateway.cli.shell import Shell
from gateway.errors import VerificationError
from gateway.exchange import Exchange
from gateway.exchange.exporting import Order, Places
from gateway.exchange.lookup import parse_entry
from gateway.exchange.wentout import EXPORTS, Holding, WentOut
from gateway.exportmanifest import verify_logged
from gateway.model import EntryDraft, HandlingCode
from gateway.node import Node

SET, XB, XC = "XA-NCVI/found", "XB-NCVI", "XC-NCVI"


@dataclass
class Desk:
    """A gateway with a set, and a folder for files."""

    xa: Exchange
    clock: FakeClock
    folder: Path

    @property
    def manifests(self) -> Path:
        return self.xa.node.settings.folder / EXPORTS

    def export(self, name: str, partner: str = XB, form: str = "gateway_csv") -> None:
        self.manifests.mkdir(exist_ok=True)
        places = Places(self.folder / name, self.folder / f"{name}.note", self.manifests / f"{name}.manifest")
        self.xa.exporting.export(Order(SET, partner, form), places)
        self.clock.advance(60)

    def take(self, *entries: EntryDraft) -> None:
        self.xa.ledger.import_entries(SET, entries, actor="tester", form="test")
        self.clock.advance(60)

    def files(self, number: int) -> list[WentOut]:
        [hit] = [
            one
            for one in self.xa.lookup.find([sha256(f"made-up {number}").hex()], actor="tester")
            if one.set_name == SET
        ]
        return list(self.xa.lookup.where(SET, hit.entry).files)

    def told(self, number: int) -> list[tuple[str, Holding]]:
        return [(Path(one.manifest).stem, one.holding) for one in self.files(number)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    clock = FakeClock()
    node = make_node(tmp_path, "XA-NCVI", clock=clock)
    befriend(node, *(make_node(tmp_path, name, clock=clock) for name in (XB, XC)))
    folder = tmp_path / "files"
    folder.mkdir()
    desk = Desk(Exchange(node), clock, folder)
    make_set(desk.xa, "found", drafts(3))
    return desk


def test_a_file_holds_what_was_in_the_set_and_nothing_that_came_later(desk: Desk) -> None:
    assert desk.files(1) == []
    desk.export("first")
    desk.take(*drafts(1, first=10))
    desk.export("second", XC)
    [first, second] = desk.files(1)
    assert (first.partner, first.form, first.sealed, first.holding) == (XB, "gateway_csv", False, Holding.HOLDS)
    assert (second.partner, second.manifest) == (XC, "second.manifest")
    assert first.at < second.at
    assert first.leaf < second.leaf
    assert desk.told(10) == [("second", Holding.HOLDS)]


def test_a_file_holds_the_version_of_its_day(desk: Desk) -> None:
    desk.export("first")
    desk.take(*drafts(1, first=1, category="icse:2"))
    assert desk.told(1) == [("first", Holding.EARLIER)]
    desk.export("second")
    assert desk.told(1) == [("first", Holding.EARLIER), ("second", Holding.HOLDS)]
    desk.take(*drafts(1, first=1, category="icse:3"))
    assert desk.told(1) == [("first", Holding.PERHAPS), ("second", Holding.EARLIER)]
    assert desk.told(2) == [("first", Holding.HOLDS), ("second", Holding.HOLDS)]


def test_what_policy_withheld_is_in_no_file(desk: Desk) -> None:
    desk.take(*drafts(1, first=20, handling=HandlingCode.H3))
    desk.export("first")
    assert desk.told(20) == []
    assert desk.told(1) == [("first", Holding.HOLDS)]


def test_an_entry_that_moved_under_a_withheld_label_is_where_it_was(desk: Desk) -> None:
    desk.export("first")
    desk.take(*drafts(1, first=1, handling=HandlingCode.H3))
    desk.export("second")
    assert desk.told(1) == [("first", Holding.EARLIER)]


def test_without_the_manifest_that_the_log_names_nothing_is_sure(desk: Desk) -> None:
    desk.export("first")
    manifest = desk.manifests / "first.manifest"
    kept = manifest.read_bytes()
    for change in (
        lambda: manifest.write_bytes(kept[:-1] + b" "),
        manifest.unlink,
        lambda: shutil.rmtree(desk.manifests),
    ):
        change()
        [one] = desk.files(1)
        assert (one.partner, one.holding, one.manifest) == (XB, Holding.PERHAPS, "")
    desk.manifests.mkdir()
    (desk.manifests / "under another name").write_bytes(kept)
    [one] = desk.files(1)
    assert (one.holding, one.manifest) == (Holding.HOLDS, "under another name")


def test_a_manifest_is_known_by_its_digest_alone(desk: Desk) -> None:
    desk.export("first")
    raw = (desk.manifests / "first.manifest").read_bytes()
    with pytest.raises(VerificationError):
        verify_logged(raw, sha256("another").hex())


def test_why_an_entry_went_speaks_of_files(desk: Desk) -> None:
    desk.export("first")
    desk.export("second")
    desk.export("third", XC)
    [story] = desk.xa.storyteller.explain("ref-1", XB, set_name=SET)
    leaves = [one.leaf for one in story.files]
    assert len(leaves) == 2
    assert f"It is in files for it (leaves {leaves[0]}, {leaves[1]})." in story.sentence
    desk.take(*drafts(1, first=1, category="icse:2"))
    [story] = desk.xa.storyteller.explain("ref-1", XC, set_name=SET)
    assert story.sentence.endswith(
        f"An earlier version, or perhaps it, is in a file for it (leaf {story.files[0].leaf})."
    )
    [story] = desk.xa.storyteller.explain("ref-2", XC, set_name=SET)
    assert story.sentence.endswith(f"It is in a file for it (leaf {story.files[0].leaf}).")
    assert json.dumps([one.manifest for one in story.files]) == '["third.manifest"]'


def test_who_has_a_file_with_any_of_several_entries_is_named_once_before_they_go(desk: Desk) -> None:
    desk.export("first")
    desk.take(*drafts(1, first=1, category="icse:2"), *drafts(1, first=10))
    desk.export("second", XC)
    hits = [desk.xa.lookup.find([sha256(f"made-up {number}").hex()], actor="tester")[0] for number in (0, 1, 10)]
    entries = [parse_entry(hit.entry) for hit in hits]
    told = [(one.partner, one.holding) for one in desk.xa.lookup.files(SET, entries)]
    assert told == [(XB, Holding.HOLDS), (XC, Holding.HOLDS)]
    assert [one.partner for one in desk.xa.lookup.files(SET, entries[2:])] == [XC]
    assert [one.holding for one in desk.xa.lookup.files(SET, entries[1:2])] == [Holding.EARLIER, Holding.HOLDS]


def test_a_withdrawal_names_the_partners_that_have_a_file(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.export("first")
    entry = desk.xa.lookup.find([sha256("made-up 1").hex()], actor="tester")[0].entry

    @contextmanager
    def node(_shell: Shell) -> Iterator[Node]:
        yield desk.xa.node

    monkeypatch.setattr(Shell, "node", node)
    place = CliRunner().invoke(app, ["where", entry, "--set", "found"], prog_name="gateway")
    assert "XB-NCVI  has it in a file: gateway_csv, " in place.stdout
    said = CliRunner().invoke(
        app, ["set", "withdraw", "found", entry, "--reason", "wrong", "--json"], prog_name="gateway"
    )
    assert said.exit_code == 0, said.stderr
    [file] = json.loads(said.stdout)["files"]
    assert (file["partner"], file["holding"], file["manifest"]) == (XB, "holds", "first.manifest")


def test_where_a_form_left_entries_of_a_label_out_nothing_is_sure(desk: Desk) -> None:
    desk.take(EntryDraft({"pdq": sha256("other")}))  # of which policy shows no digest over this surface
    desk.export("some")
    assert desk.told(1) == [("some", Holding.PERHAPS)]
