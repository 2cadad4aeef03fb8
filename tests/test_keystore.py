"""The keystore: one sealed file, written whole or not at all, readable by its owner alone."""

import json
import os
import stat
import threading

import pytest

from gateway import keystore
from gateway.crypto import canonical
from gateway.crypto.keys import SigningKey
from gateway.crypto.seal import Argon2Cost
from gateway.errors import ConfigError, ConflictError, MalformedError, NotFoundError
from gateway.keystore import Keystore, create_personal, open_personal

CHEAP = Argon2Cost(8 * 1024, 1, 1)
PASSPHRASE = "invented words for tests"
NOW = 1_760_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keystore.json"


@pytest.fixture
def created(path):
    return Keystore.create(path, PASSPHRASE, now=NOW, cost=CHEAP)


def files(path):
    """What is in the folder beside the lock that changes take."""
    return sorted(set(os.listdir(path.parent)) - {".keystore.json.lock"})


class Counting:
    """Randomness of a simulation."""

    def __init__(self):
        self.calls = 0

    def bytes(self, count):
        self.calls += 1
        return bytes([self.calls]) * count


def test_opened_keystore_holds_the_keys_that_were_made(path, created):
    opened = Keystore.open(path, PASSPHRASE)
    assert opened.signing_key.public == created.signing_key.public
    assert opened.token_key.thumbprint() == created.token_key.thumbprint()
    assert opened.master_key.raw == created.master_key.raw
    assert opened.sealing_key == created.sealing_key == opened.opening_keys[0].public
    assert opened.log_key("xa.example/log/1").verifier == created.log_key("xa.example/log/1").verifier
    assert opened.witness_key("xa.example/w").verifier == created.witness_key("xa.example/w").verifier
    assert opened.held_opening_keys[0].created == NOW


def test_no_seed_serves_two_purposes(created):
    seeds = {
        *created.signing_key.seeds,
        created.token_key.seed,
        created.master_key.raw,
        created.opening_keys[0].seed,
        created.log_key("a/log/1").seed(),
        created.witness_key("a").seed(),
    }
    assert len(seeds) == 7


def test_file_is_private_and_leaves_no_draft(path, created):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files(path) == ["keystore.json"]


def test_file_shows_no_key(path, created):
    text = path.read_text()
    for seed in (
        *created.signing_key.seeds,
        created.token_key.seed,
        created.master_key.raw,
        created.opening_keys[0].seed,
    ):
        assert seed.hex() not in text
    assert set(json.loads(text)) == {"version", "label", "kdf", "salt", "nonce", "sealed"}


def test_wrong_passphrase_is_refused_with_a_remedy(path, created):
    with pytest.raises(ConfigError, match="passphrase") as caught:
        Keystore.open(path, PASSPHRASE + "x")
    assert caught.value.remedy
    assert PASSPHRASE not in str(caught.value)


def test_empty_passphrase_on_opening_is_refused(path, created):
    with pytest.raises(ConfigError):
        Keystore.open(path, "")


def test_short_passphrase_is_refused_when_keys_are_made(path):
    with pytest.raises(ConfigError, match="12 characters"):
        Keystore.create(path, "x" * 11, now=NOW, cost=CHEAP)
    assert not path.exists()


def test_existing_file_is_never_replaced(path, created):
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="already"):
        Keystore.create(path, PASSPHRASE, now=NOW, cost=CHEAP)
    assert path.read_bytes() == before
    assert files(path) == ["keystore.json"]


def test_missing_file_is_named_without_its_path(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        Keystore.open(tmp_path / "nowhere.json", PASSPHRASE)
    assert "nowhere" not in str(caught.value)


def test_missing_folder_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        Keystore.create(tmp_path / "no" / "keystore.json", PASSPHRASE, now=NOW, cost=CHEAP)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_file_that_others_can_read_is_refused(path, created, mode):
    path.chmod(mode)
    with pytest.raises(ConfigError, match="others") as caught:
        Keystore.open(path, PASSPHRASE)
    assert "chmod 600" in caught.value.remedy


@pytest.mark.parametrize("raw", [b"", b"{}", b"not json", b"\x00" * 2_000_000, b'{"version":"passphrase box 1"}'])
def test_damaged_file_is_a_config_error(path, raw):
    path.write_bytes(raw)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="damaged"):
        Keystore.open(path, PASSPHRASE)


def test_box_with_other_content_is_a_config_error(path):
    box = keystore.PassphraseBox("gateway keystore 1", CHEAP)
    for secret in (b"", b"{}", b'{"opening":[]}', b"[]"):
        path.write_bytes(box.seal(PASSPHRASE, secret))
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="damaged"):
            Keystore.open(path, PASSPHRASE)


def test_new_opening_key_overlaps_with_the_old_one(path, created):
    old = created.sealing_key
    created.add_opening_key(now=NOW + 100)
    opened = Keystore.open(path, PASSPHRASE)
    assert opened.sealing_key == created.sealing_key != old
    assert [key.public for key in opened.opening_keys] == [created.sealing_key, old]
    assert [held.created for held in opened.held_opening_keys] == [NOW + 100, NOW]
    assert opened.signing_key.public == created.signing_key.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_old_opening_keys_are_destroyed_but_never_the_newest(path, created):
    first = created.held_opening_keys[0]
    created.add_opening_key(now=NOW + 100)
    assert created.drop_opening_key(first.key_id)
    assert not created.drop_opening_key(first.key_id)
    [newest] = Keystore.open(path, PASSPHRASE).held_opening_keys
    assert newest.created == NOW + 100
    assert first.key.seed.hex() not in repr(newest)
    with pytest.raises(ConflictError, match="in use"):
        created.drop_opening_key(newest.key_id)


def test_next_signing_pair_signs_nothing_before_it_is_activated(path, created):
    old = created.held_signing_key
    new = created.add_signing_key(now=NOW + 5)
    assert (old.number, new.number) == (1, 2)
    assert created.signing_key.public == old.key.public
    created.activate_signing_key(new.key_id)
    assert Keystore.open(path, PASSPHRASE).signing_key.public == new.key.public
    assert created.drop_signing_key(old.key_id)
    assert [one.key_id for one in Keystore.open(path, PASSPHRASE).held_signing_keys] == [new.key_id]


def test_key_in_use_is_never_dropped_and_a_strange_one_never_used(path, created):
    token = created.add_token_key(now=NOW + 5)
    created.activate_token_key(token.key_id)
    for drop, key_id in (
        (created.drop_signing_key, created.held_signing_key.key_id),
        (created.drop_token_key, token.key_id),
    ):
        with pytest.raises(ConflictError):
            drop(key_id)
    before = path.read_bytes()
    with pytest.raises(NotFoundError):
        created.activate_signing_key("00" * 32)
    assert path.read_bytes() == before


def test_change_by_another_process_is_noticed_at_the_next_use(path, created):
    beside = Keystore.open(path, PASSPHRASE)
    new = beside.add_opening_key(now=NOW + 9)
    assert created.sealing_key == new.key.public
    created.add_token_key(now=NOW + 10)
    assert len(beside.held_token_keys) == 2
    assert len(beside.held_opening_keys) == 2


def test_two_that_change_the_file_at_once_lose_neither_change(path, created):
    beside = Keystore.open(path, PASSPHRASE)
    threads = [
        threading.Thread(target=one.add_opening_key, kwargs={"now": NOW + number})
        for number in range(3)
        for one in (created, beside)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Keystore.open(path, PASSPHRASE).held_opening_keys) == 7


def test_row_mac_is_this_gateways_alone(path, created, tmp_path):
    other = Keystore.create(tmp_path / "other.json", PASSPHRASE, now=NOW, cost=CHEAP)
    assert created.row_mac(b"row") == Keystore.open(path, PASSPHRASE).row_mac(b"row") != other.row_mac(b"row")
    assert created.row_mac(b"row") != created.row_mac(b"another row")


def test_keystore_of_before_keys_were_rotated_still_opens(path):
    seeds = {name: (name[0] * 32).encode().hex() for name in ("token", "log", "witness", "master")}
    pair = {"signing_ed25519": "01" * 32, "signing_mldsa65": "02" * 32}
    opening = [{"created": NOW, "seed": "05" * 32}]
    secret = canonical.encode({**seeds, **pair, "opening": opening})
    path.write_bytes(keystore.PassphraseBox("gateway keystore 1", CHEAP).seal(PASSPHRASE, secret))
    path.chmod(0o600)
    opened = Keystore.open(path, PASSPHRASE)
    assert opened.signing_key.seeds == (b"\x01" * 32, b"\x02" * 32)
    assert opened.held_signing_key.number == 1
    assert opened.token_key.seed == b"t" * 32
    opened.add_opening_key(now=NOW + 1)
    assert Keystore.open(path, PASSPHRASE).signing_key.public == opened.signing_key.public


def test_passphrase_that_was_changed_meanwhile_changes_nothing(path, created):
    other = Keystore.create(path.with_name("other.json"), "another good passphrase", now=NOW, cost=CHEAP)
    path.with_name("other.json").replace(path)
    assert other is not None
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        created.add_opening_key(now=NOW + 1)
    assert path.read_bytes() == before


def test_number_of_keys_is_bounded(path, created, monkeypatch):
    monkeypatch.setattr(keystore, "MAX_HELD_KEYS", 1)
    before = path.read_bytes()
    with pytest.raises(ConflictError):
        created.add_opening_key(now=NOW)
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file(path, created, monkeypatch, call):
    before = path.read_bytes()

    def fails(*arguments, **keywords):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(keystore.os if call == "fsync" else keystore.Path, call, fails)
        with pytest.raises(ConfigError, match="cannot be written"):
            created.add_opening_key(now=NOW + 1)
    assert path.read_bytes() == before
    assert files(path) == ["keystore.json"]
    assert len(created.opening_keys) == 1
    assert len(Keystore.open(path, PASSPHRASE).opening_keys) == 1


def test_draft_that_a_crash_left_is_removed_by_the_next_write(path, created):
    leftover = path.parent / ".keystore.json.abc.new"
    leftover.write_bytes(path.read_bytes())
    created.add_opening_key(now=NOW + 1)
    assert files(path) == ["keystore.json"]


def test_one_seed_makes_one_keystore(tmp_path):
    first, second = (
        Keystore.create(tmp_path / name, PASSPHRASE, now=NOW, random=Counting(), cost=CHEAP) for name in "ab"
    )
    assert repr(first) == repr(second)
    assert first.master_key.raw == second.master_key.raw


def test_repr_shows_key_ids_only(created):
    text = repr(created) + repr(created.held_opening_keys) + repr(created._secrets)
    assert created.signing_key.public.key_set_id in text
    assert created.sealing_key.key_id in text
    for seed in (*created.signing_key.seeds, created.master_key.raw, created.opening_keys[0].seed):
        assert seed.hex() not in text
        assert repr(seed) not in text


# Administrators


def test_administrator_has_a_key_of_their_own(tmp_path):
    path = tmp_path / "ada.json"
    made = create_personal(path, "Ada Invented", PASSPHRASE, cost=CHEAP)
    opened = open_personal(path, PASSPHRASE)
    assert (opened.name, opened.signing_key.public) == ("Ada Invented", made.signing_key.public)
    opened.signing_key.public.verify(b"m", made.signing_key.sign(b"m"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "Ada" not in path.read_text()


def test_administrator_file_refuses_what_a_keystore_refuses(tmp_path):
    path = tmp_path / "ada.json"
    create_personal(path, "Ada Invented", PASSPHRASE, cost=CHEAP)
    for attempt in (
        lambda: open_personal(path, "wrong words altogether"),
        lambda: create_personal(path, "Eve Invented", PASSPHRASE, cost=CHEAP),
        lambda: create_personal(tmp_path / "eve.json", "Eve Invented", "short", cost=CHEAP),
        lambda: open_personal(tmp_path / "eve.json", PASSPHRASE),
    ):
        with pytest.raises(ConfigError):
            attempt()
    with pytest.raises(MalformedError):
        create_personal(tmp_path / "eve.json", "", PASSPHRASE, cost=CHEAP)


def test_one_kind_of_file_does_not_open_as_the_other(tmp_path, path, created):
    personal = tmp_path / "ada.json"
    create_personal(personal, "Ada Invented", PASSPHRASE, cost=CHEAP)
    with pytest.raises(ConfigError, match="kind"):
        Keystore.open(personal, PASSPHRASE)
    with pytest.raises(ConfigError, match="kind"):
        open_personal(path, PASSPHRASE)


def test_personal_file_with_other_content_is_a_config_error(tmp_path):
    path = tmp_path / "ada.json"
    box = keystore.PassphraseBox("administrator key 1", CHEAP)
    short = b'{"name":"Ada","signing_ed25519":"00","signing_mldsa65":"zz"}'
    for secret in (b"{}", b"[]", short):
        path.write_bytes(box.seal(PASSPHRASE, secret))
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="damaged"):
            open_personal(path, PASSPHRASE)


def test_personal_repr_shows_no_seed(tmp_path):
    made = create_personal(tmp_path / "ada.json", "Ada Invented", PASSPHRASE, cost=CHEAP)
    assert isinstance(made.signing_key, SigningKey)
    assert made.signing_key.seeds[0].hex() not in repr(made)
