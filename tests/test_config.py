"""gateway.config: settings are checked whole, documented whole, and policy files are read with care."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import config
from gateway.config import KEYS, Settings, dump_settings, load_settings, read_examples, read_policies, read_sheets
from gateway.errors import ConfigError

ROOT = Path(__file__).parent.parent
MINIMAL = 'agency = "XA-NCVI"\njurisdiction = "XA"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gateway.toml").write_text(MINIMAL)
    return tmp_path


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A small, sound policy folder."""
    here = tmp_path / "policies"
    for path, text in {
        "README.md": "read me",
        "schema.cedarschema": "entity Agreement;",
        "00-federation/base.cedar": "// federation",
        "00-federation/examples.toml": "# federation",
        "XA/agreement-xb.cedar": "// ä XA with XB",
        "XA/examples.toml": "# XA",
        "XB/agreement-xa.cedar": "// XB with XA",
    }.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
    return here


def load(folder: Path, more: str = "", **environ: str) -> Settings:
    (folder / "gateway.toml").write_text(MINIMAL + more)
    return load_settings(folder, environ)


# --- settings ---


def test_a_minimal_file_gives_safe_defaults(folder: Path) -> None:
    settings = load_settings(folder, {})
    assert (settings.quorum, settings.demo, settings.listen_host) == (2, False, "127.0.0.1")
    assert settings.database_url == f"sqlite:///{folder}/gateway.db"
    assert settings.policies_folder == folder / "policies"
    assert settings.tls_files is None


def test_keys_and_fields_are_the_same() -> None:
    assert list(KEYS) == [setting.name for setting in fields(Settings) if setting.name != "folder"]


def test_docs_list_every_key_with_its_default_and_no_other(folder: Path) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z0-9_]+)` \| ([^|]+) \|", text, flags=re.MULTILINE))
    assert list(rows) == list(KEYS)
    defaults = {setting.name: setting.default for setting in fields(Settings)}
    for name in set(KEYS) - {"agency", "jurisdiction"}:
        shown = tomllib.loads(f"value = {rows[name].strip().strip('`')}")["value"]
        assert shown == defaults[name], name
    for name, key in KEYS.items():
        assert key.means in text, name


def test_dumped_settings_load_again(folder: Path) -> None:
    settings = Settings(folder, "XA-NCVI", "XA", listen_port=9000, demo=True, quorum=1, log_level="debug")
    (folder / "gateway.toml").write_text(dump_settings(settings))
    assert load_settings(folder, {}) == settings


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=30))
def test_any_printable_text_survives_the_round_trip(text: str) -> None:
    settings = Settings(Path("/data"), "XA-NCVI", "XA", policies=text)
    found = tomllib.loads(dump_settings(settings))
    assert found["policies"] == text
    assert list(found) == list(KEYS)


def test_dumped_settings_explain_each_key(folder: Path) -> None:
    text = dump_settings(load_settings(folder, {}))
    assert all(f"# {key.means}" in text for key in KEYS.values())


def test_an_unknown_key_is_refused_with_the_nearest_known(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'quorrum'") as caught:
        load(folder, "quorrum = 2")
    assert caught.value.remedy == "did you mean quorum?"


def test_an_unknown_key_like_no_other_points_to_the_docs(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, "zzz = 1")
    assert caught.value.remedy == "see docs/configuration.md"


@pytest.mark.parametrize("missing", ["agency", "jurisdiction"])
def test_a_missing_key_is_named(folder: Path, missing: str) -> None:
    (folder / "gateway.toml").write_text("".join(line for line in MINIMAL.splitlines(True) if missing not in line))
    with pytest.raises(ConfigError, match=f"key '{missing}' is missing"):
        load_settings(folder, {})


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('quorum = "2"', "quorum"),
        ("quorum = true", "quorum"),
        ("quorum = 2.0", "quorum"),
        ("quorum = 1", "quorum"),
        ("quorum = 0\ndemo = true", "quorum"),
        ("quorum = 10", "quorum"),
        ("demo = 1", "demo"),
        ("listen_port = 65536", "listen_port"),
        ("listen_port = -1", "listen_port"),
        ("listen_port = true", "listen_port"),
        ("sync_interval_seconds = 1", "sync_interval_seconds"),
        ("page_changes = 65537", "page_changes"),
        ("page_changes = 0", "page_changes"),
        ("head_lifetime_hours = 0", "head_lifetime_hours"),
        ("max_envelope_bytes = 1", "max_envelope_bytes"),
        ("max_connections = 1", "max_connections"),
        ("requests_per_minute = 0", "requests_per_minute"),
        ('log_level = "loud"', "log_level"),
        ("policies = []", "policies"),
        ('policies = ""', "database"),
        ('database = ""', "database"),
        ('policies = "a\\u0007b"', "policies"),
        ('tls_certificate = "a.pem"', "tls_key"),
        ('tls_key = "a.key"', "tls_key"),
        ('listen_host = "0.0.0.0"', "listen_host"),
        ('listen_host = "::"', "listen_host"),
        ('listen_host = ""', "listen_host"),
        ('listen_host = "gateway.example"', "listen_host"),
        ('listen_host = "127.0.0.1.example"', "listen_host"),
        ('public_url = "http://gateway.example"', "public_url"),
        ('public_url = "http://localhost.example:1"', "public_url"),
        ('public_url = "http://127.0.0.1@gateway.example"', "public_url"),
        ('public_url = "https://gateway.example/path"', "public_url"),
        ('public_url = "https://gateway.example?x"', "public_url"),
        ('public_url = "https://user@gateway.example"', "public_url"),
        ('public_url = "https://user:pw@gateway.example"', "public_url"),
        ('public_url = "https://gateway.example:99999"', "public_url"),
        ('public_url = "https://[::1"', "public_url"),
        ('public_url = "https://"', "public_url"),
        ('public_url = "ftp://127.0.0.1"', "public_url"),
        ('public_url = "gateway.example"', "public_url"),
    ],
)
def test_a_bad_value_is_refused_by_its_key(folder: Path, line: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"key '{name}'") as caught:
        load(folder, line)
    assert caught.value.place == "gateway.toml"
    assert str(folder) not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_plain_http_is_for_loopback(folder: Path, host: str) -> None:
    assert load(folder, f'listen_host = "{host}"').listen_host == host


def test_with_tls_any_address_will_do(folder: Path) -> None:
    settings = load(
        folder,
        'listen_host = "0.0.0.0"\npublic_url = "https://gateway.example"\n'
        'tls_certificate = "tls/chain.pem"\ntls_key = "/etc/gateway/tls.key"',
    )
    assert settings.tls_files == (folder / "tls/chain.pem", Path("/etc/gateway/tls.key"))


def test_one_administrator_alone_is_for_a_demo(folder: Path) -> None:
    assert load(folder, "quorum = 1\ndemo = true").quorum == 1


@pytest.mark.parametrize(
    "line",
    [
        'agency = "XB-NCVI"\njurisdiction = "XA"',
        'agency = "nobody"\njurisdiction = "XA"',
        'agency = "XA-NCVI"\njurisdiction = "xa"',
    ],
)
def test_agency_and_jurisdiction_must_agree(folder: Path, line: str) -> None:
    (folder / "gateway.toml").write_text(line)
    with pytest.raises(ConfigError):
        load_settings(folder, {})


def test_the_environment_overrides_the_database(folder: Path) -> None:
    url = "postgresql+psycopg://gateway:secret@db/gateway"
    settings = load(folder, 'database = "other.db"', GATEWAY_DATABASE_URL=url)
    assert settings.database_url == url
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("driver", ["mysql", "postgres", "postgresql+asyncpg", "sqlite+aiosqlite"])
def test_a_strange_database_url_is_refused_without_showing_it(folder: Path, driver: str) -> None:
    url = f"{driver}://gateway:secret@db/gateway"
    with pytest.raises(ConfigError, match="the database URL") as caught:
        load(folder, GATEWAY_DATABASE_URL=url)
    with pytest.raises(ConfigError, match="'database' is a URL") as written:
        load(folder, f'database = "{url}"')
    assert "secret" not in str(caught.value) + str(written.value)


def test_a_database_file_may_be_anywhere(folder: Path) -> None:
    assert load(folder, 'database = "/var/lib/gateway/g.db"').database_url == "sqlite:////var/lib/gateway/g.db"


def test_a_missing_broken_or_huge_settings_file_is_refused(folder: Path) -> None:
    path = folder / "gateway.toml"
    for raw in (b"agency = ", b"\xff\xfe", b"#" * (config.MAX_SETTINGS_BYTES + 1)):
        path.write_bytes(raw)
        with pytest.raises(ConfigError):
            load_settings(folder, {})
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(folder, {})


def test_a_linked_settings_file_is_refused(folder: Path) -> None:
    (folder / "real.toml").write_text(MINIMAL)
    (folder / "gateway.toml").unlink()
    (folder / "gateway.toml").symlink_to(folder / "real.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(folder, {})


# --- policy files ---


def test_read_policies_takes_schema_federation_and_own_country(policies: Path) -> None:
    texts = read_policies(policies, "XA")
    assert texts == {
        "schema.cedarschema": "entity Agreement;",
        "00-federation/base.cedar": "// federation",
        "XA/agreement-xb.cedar": "// ä XA with XB",
    }


def test_read_examples_takes_federation_and_own_country(policies: Path) -> None:
    assert read_examples(policies, "XA") == {"00-federation": "# federation", "XA": "# XA"}


def test_sheets_and_templates_may_lie_beside_the_rules(policies: Path) -> None:
    before = read_policies(policies, "XA")
    (policies / "XA" / "share.md").write_text("# XA")
    (policies / "templates").mkdir()
    (policies / "templates" / "whatever").write_bytes(b"\xff")
    assert read_policies(policies, "XA") == before
    assert read_sheets(policies, "XA") == {"XA/share.md": "# XA"}


@pytest.mark.parametrize(
    "path", ["notes.txt", "XA/notes.txt", "XA/Agreement.cedar", "00-federation/a.cedar~", "xa", ".x"]
)
def test_an_unexpected_file_is_refused_by_name(policies: Path, path: str) -> None:
    (policies / path).write_text("")
    with pytest.raises(ConfigError, match="unexpected file") as caught:
        read_policies(policies, "XA")
    assert caught.value.place == path


@pytest.mark.parametrize("path", ["XA/more.cedar", "XA/examples.toml", "schema.cedarschema", "XC"])
def test_a_symbolic_link_is_refused(policies: Path, path: str, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("// not ours")
    (policies / path).unlink(missing_ok=True)
    (policies / path).symlink_to(target)
    with pytest.raises(ConfigError) as caught:
        read_policies(policies, "XA")
    assert caught.value.place == path
    assert str(tmp_path) not in str(caught.value)


def test_a_country_folder_that_is_a_link_is_refused(policies: Path) -> None:
    (policies / "XC").symlink_to(policies / "XA")
    for read in (read_policies, read_examples):
        with pytest.raises(ConfigError):
            read(policies, "XC")


def test_what_is_no_ordinary_file_is_refused_and_does_not_hang(policies: Path) -> None:
    os.mkfifo(policies / "XA" / "pipe.cedar")
    with pytest.raises(ConfigError, match="not an ordinary file"):
        read_policies(policies, "XA")


def test_a_schema_that_is_a_pipe_does_not_hang(policies: Path) -> None:
    (policies / "schema.cedarschema").unlink()
    os.mkfifo(policies / "schema.cedarschema")
    with pytest.raises(ConfigError, match="not an ordinary file"):
        read_policies(policies, "XA")


def test_a_file_too_large_or_not_utf8_is_refused(policies: Path) -> None:
    path = policies / "XA" / "agreement-xb.cedar"
    for raw, message in ((b"/" * (config.MAX_POLICY_BYTES + 1), "larger"), (b"\xff", "UTF-8")):
        path.write_bytes(raw)
        with pytest.raises(ConfigError, match=message) as caught:
            read_policies(policies, "XA")
        assert caught.value.place == "XA/agreement-xb.cedar"


def test_too_many_files_are_refused(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "MAX_POLICY_FILES", 3)
    with pytest.raises(ConfigError, match="more than 3 policy files"):
        read_policies(policies, "XA")


@pytest.mark.parametrize("jurisdiction", ["XZ", "xa", "..", "", "00"])
def test_a_jurisdiction_without_a_folder_is_refused(policies: Path, jurisdiction: str) -> None:
    with pytest.raises(ConfigError):
        read_policies(policies, jurisdiction)


def test_a_missing_policy_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such folder of policies \(nowhere\)"):
        read_policies(tmp_path / "nowhere", "XA")


def test_settings_cannot_be_changed_into_unsafe_ones(folder: Path) -> None:
    with pytest.raises(ConfigError):
        replace(load_settings(folder, {}), quorum=1)
