"""Drafts of a policy: what they change, archives of a policy folder, and what is proposed of them."""

from __future__ import annotations

import io
import random
import stat
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from factory import FakeClock, SeededRandom, make_node
from gateway.config import read_policy_files
from gateway.errors import ConflictError, MalformedError, TooLargeError
from gateway.node import Node
from gateway.policy import check, describe, digest_texts, rule_changes
from gateway.policyarchive import MAX_ARCHIVE_BYTES, read_archive
from gateway.policydrafts import Draft, propose_files, rehearse_files

SHIPPED = Path(__file__).parents[1] / "policies"
NATIONAL, AGREEMENT = "XA/national.cedar", "XA/agreement-xb.cedar"
FILES = read_policy_files(SHIPPED, "XA")
FORBID = """
@id("xa-nothing-under-h0")
@law("XA Invented Act 2026, section 1")
@says("Nothing under H0 is shared.")
@reviewed_by("XA Ministry of Justice")
@valid_until("2034-12-31")
forbid (principal, action in Action::"share", resource) when { resource.handling == Handling::"H0" };
"""


def packed(files: dict[str, str], *more: tuple[zipfile.ZipInfo, bytes], under: str = "") -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(under + path, text)
        for info, body in more:
            archive.writestr(info, body)
    return raw.getvalue()


def member(name: str, *, mode: int = stat.S_IFREG | 0o644, kind: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.compress_type = mode << 16, kind
    return info


# Archives


@pytest.mark.parametrize("under", ["", "policies/"])
def test_an_archive_of_the_folder_holds_what_the_folder_holds(under: str) -> None:
    every = {str(path.relative_to(SHIPPED)): path.read_text() for path in SHIPPED.rglob("*.*") if path.is_file()}
    assert set(every) > set(FILES)  # other countries, templates
    assert read_archive(packed(every, under=under), "XA") == FILES


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../XA/evil.cedar",
            "XA/../../evil.cedar",
            "/etc/cron.d/evil",
            "XA\\evil.cedar",
            "C:/evil.cedar",
            "./XA/a.cedar",
        ),
        *("XA//evil.cedar", "XA/evil\u202e.cedar", "XA/evil.cedar\x00.txt", "XA/" + "a" * 300 + ".cedar"),
    ],
)
def test_a_path_that_leads_anywhere_else_is_refused(name: str) -> None:
    raw = packed(FILES, (member(name.replace("\0", "!")), b"permit (principal, action, resource);"))
    with pytest.raises(MalformedError, match="plain relative"):
        read_archive(raw.replace(b".cedar!.txt", b".cedar\0.txt"), "XA")


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFCHR | 0o644, stat.S_IFSOCK])
def test_a_link_or_a_device_is_refused(mode: int) -> None:
    with pytest.raises(MalformedError, match="ordinary files"):
        read_archive(packed(FILES, (member("XA/more.cedar", mode=mode), b"/etc/passwd")), "XA")


@pytest.mark.parametrize("name", ["XA/run.sh", "XA/deep/er.cedar", "readme.exe", "00-federation/quality.toml", "XA"])
def test_what_no_policy_folder_holds_is_refused(name: str) -> None:
    with pytest.raises(MalformedError, match="unexpected file"):
        read_archive(packed(FILES, (member(name), b"x")), "XA")


def test_a_file_that_unpacks_to_more_than_a_policy_file_is_refused() -> None:
    bomb = packed(FILES, (member("XA/more.cedar"), b"\n" * (40 << 20)))
    assert len(bomb) < 100 << 10
    tracemalloc.start()
    with pytest.raises(TooLargeError, match="larger than"):
        read_archive(bomb, "XA")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # it is never unpacked whole


def test_files_that_unpack_to_more_than_a_policy_together_are_refused() -> None:
    many = [(member(f"XA/more-{number}.cedar"), b"\n" * (250 << 10)) for number in range(40)]
    with pytest.raises(TooLargeError, match="more than a policy"):
        read_archive(packed(FILES, *many), "XA")
    with pytest.raises(TooLargeError, match="files"):
        read_archive(packed({f"XA/a{number}.cedar": "" for number in range(2_100)}), "XA")
    with pytest.raises(TooLargeError, match="archive is larger"):
        read_archive(bytes(MAX_ARCHIVE_BYTES + 1), "XA")


def test_what_an_archive_says_of_a_size_is_not_believed() -> None:
    raw = packed(FILES, (member("XA/more.cedar"), b"\n" * (300 << 10)))
    lying = raw.replace((300 << 10).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != raw
    with pytest.raises(MalformedError):
        read_archive(lying, "XA")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("raw", [b"", b"PK", b"not an archive", packed({}), packed({"XA/national.cedar": ""})])
def test_what_is_no_archive_of_a_policy_folder_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        read_archive(raw, "XA")
    twice = packed(FILES, (member(NATIONAL), b"// another"))
    with pytest.raises(MalformedError, match="twice"):
        read_archive(twice, "XA")
    with pytest.raises(MalformedError, match="UTF-8"):
        read_archive(packed(FILES, (member("XA/more.cedar"), b"\xff")), "XA")
    with pytest.raises(MalformedError, match="ordinary"):
        read_archive(packed(FILES, (member("XA/more.cedar", kind=zipfile.ZIP_LZMA), b"// a")), "XA")


def test_an_archive_with_any_octet_changed_gives_files_or_is_refused() -> None:
    source, raw = random.Random("archives"), packed({path: FILES[path] for path in (NATIONAL, "schema.cedarschema")})
    for _ in range(400):
        changed = bytearray(raw)
        for _ in range(source.randint(1, 4)):
            changed[source.randrange(len(raw))] = source.randrange(256)
        try:
            read_archive(bytes(changed), "XA")
        except MalformedError:
            continue


# Drafts


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path, clock=FakeClock(), random=SeededRandom("drafts"))


def test_a_draft_is_what_it_changes_and_brings_its_sheets(node: Node) -> None:
    draft = Draft.of(FILES, {**FILES, NATIONAL: FILES[NATIONAL] + FORBID, "XA/share.md": "stale"})
    assert list(draft.changes) == [NATIONAL]
    files = draft.files(node, FILES)
    rules = {path: text for path, text in files.items() if path.endswith((".cedar", ".cedarschema"))}
    assert files["XA/share.md"] == describe(rules)["XA/share.md"]
    assert "xa-nothing-under-h0" in files["XA/share.md"]
    assert Draft({}).files(node, FILES) == FILES


@pytest.mark.parametrize("path", ["XB/national.cedar", "../XA/national.cedar", "LOCK", "XA/share.md", "", "XA/a.sh"])
def test_a_draft_has_only_files_of_this_gateways_policy(node: Node, path: str) -> None:
    with pytest.raises(MalformedError, match="no file of this name"):
        Draft({path: ""}).files(node, FILES)


def test_a_rehearsal_names_the_file_and_rule_that_is_wrong_and_every_example_decided_otherwise(node: Node) -> None:
    broken = {**FILES, NATIONAL: FILES[NATIONAL] + FORBID.replace("@law", "@lore")}
    found = rehearse_files(node, broken)
    assert (found.rules, found.moved, found.checked.policies) == (None, None, None)
    assert [fault.place for fault in found.checked.faults] == [f"{NATIONAL}, rule xa-nothing-under-h0"]
    found = rehearse_files(node, {**FILES, NATIONAL: FILES[NATIONAL] + FORBID})
    assert len(found.checked.faults) > 1
    assert all("examples.toml, example" in fault.place for fault in found.checked.faults)
    assert found.rules is not None
    assert [rule.id for rule in found.rules.added] == ["xa-nothing-under-h0"]


def test_only_what_was_rehearsed_and_holds_is_proposed(node: Node) -> None:
    files = {**FILES, NATIONAL: FILES[NATIONAL] + "// reviewed\n"}
    act, arguments = propose_files(node, files, folder=digest_texts(files))
    assert (act, arguments["folder"]) == ("policy_activate", digest_texts(files))
    with pytest.raises(ConflictError, match="has changed"):
        propose_files(node, files, folder=digest_texts(FILES))
    bad = {**FILES, NATIONAL: FILES[NATIONAL] + FORBID}
    with pytest.raises(MalformedError, match="otherwise than written"):
        propose_files(node, bad, folder=digest_texts(bad))


def test_more_than_one_page_rehearses_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policydrafts.MAX_REHEARSED", -1)
    with pytest.raises(TooLargeError, match="one page"):
        rehearse_files(node, FILES)


# Rules from one policy to another


def rules(**changed: str) -> dict[str, str]:
    every = {path: text for path, text in FILES.items() if path.endswith((".cedar", ".cedarschema"))}
    return {**every, **changed}


def test_a_changed_rule_is_told_part_by_part() -> None:
    text = (
        FILES[AGREEMENT]
        .replace("retain_days(365)", "retain_days(90)")
        .replace('[Handling::"H0", Handling::"H1"]', '[Handling::"H0"]', 1)
    )
    changes = rule_changes(rules(), rules(**{AGREEMENT: text}))
    assert (changes.added, changes.removed, changes.files) == ((), (), ())
    told = {(one.id, part.part): (part.before, part.after) for one in changes.changed for part in one.parts}
    assert told["xa-xb-share-perceptual", "duties"] == ("no_onward, retain_days(365)", "no_onward, retain_days(90)")
    assert any(part == "does" and "H1" in before and "H1" not in after for (_, part), (before, after) in told.items())


def test_a_change_that_has_no_plain_words_is_told_all_the_same() -> None:
    odd = FORBID.replace('resource.handling == Handling::"H0"', "if {} then true else false")
    before, after = (
        rules(**{NATIONAL: FILES[NATIONAL] + odd.replace("{}", condition)})
        for condition in ('resource.handling == Handling::"H0"', 'resource.handling == Handling::"H1"')
    )
    [changed] = rule_changes(before, after).changed
    assert (changed.id, [part.part for part in changed.parts]) == ("xa-nothing-under-h0", ["does"])
    assert rule_changes(before, before).nothing
    assert [one.id for one in rule_changes(before, rules()).removed] == ["xa-nothing-under-h0"]


def test_a_rule_without_marks_of_a_sheet(node: Node) -> None:
    text = FORBID.replace('resource.handling == Handling::"H0"', 'resource.legal_basis == "a_b *c*"')
    [added] = rule_changes(rules(), rules(**{NATIONAL: FILES[NATIONAL] + text})).added
    assert "“a_b *c*”" in added.does
    assert check(rules(), {}, on=node.today).sound().digest == digest_texts(rules())
