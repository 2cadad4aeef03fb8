"""On which database a test runs: SQLite unless `GATEWAY_TEST_DATABASE` says otherwise, both where it matters.

The suites of `BOTH` run once on each at every check; `scripts/soak --only postgresql` runs the others on PostgreSQL.
What keeps all of them quick is in `thrift`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import postgres
from factory import DATABASE_VARIABLE

pytest_plugins = ["thrift"]

BOTH = frozenset({"test_store", "test_exchange", "test_schedule", "test_faults"})
# Of the other suites, what looks into the database's file or changes rows in SQLite's own words: whole modules, and
# single tests of others. What they show is about the gateway, which is the same over both.
SQLITES_MODULES = frozenset({"test_cli", "test_cli_people", "test_home", "test_log_tampering", "test_standing"})
SQLITES_TESTS = {
    "test_app": ("a_gateway_without_its_database_does_not_start",),
    "test_approvals": (
        "a_done_proposal_that_was_opened_again_in_the_database_takes_no_signature",
        "a_proposal_written_into_the_database_never_waits_longer_than_one_may",
    ),
    "test_callers": (
        "a_proof_without_a_good_nonce_is_asked_for_one_and_leaves_no_trace",
        "a_token_that_somebody_changed_in_the_database_opens_nothing",
    ),
    "test_erasing": ("from_an_old_backup_it_does_not_come_back", "no_old_octet_and_no_old_key_is_in_any_file"),
    "test_hostile_partner": ("rows_that_belong_to_no_leaf_are_found_by_the_check_in_short_reads",),
    "test_mailbox": ("a_changed_row_is_not_sent",),
    "test_native": ("a_gateway_without_its_database_is_alive_but_not_ready",),
    "test_neveragain": (
        "a_copy_that_knows_more_than_a_restored_database_is_not_written_over",
        "a_copy_that_was_damaged_is_made_anew",
        "a_row_that_was_taken_out_put_in_or_changed_is_noticed",
        "the_copy_beside_the_database_goes_on_with_each_act",
        "the_file_of_before_brings_back_what_the_database_has_lost",
    ),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite: about SQLite's own file; never run on another database")
    config.addinivalue_line("markers", "postgresql: about PostgreSQL; never run on another database")
    config.addinivalue_line("markers", "once: long, and not about the database; at a check on SQLite alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker, chosen = metafunc.definition.get_closest_marker, DATABASE_VARIABLE in os.environ
    module, name = metafunc.module.__name__, metafunc.function.__name__.removeprefix("test_")
    only = [kind for kind in ("sqlite", "postgresql") if marker(kind)]
    if chosen and (module in SQLITES_MODULES or name in SQLITES_TESTS.get(module, ())):
        only = ["sqlite"]
    if only:
        metafunc.parametrize("database", only, indirect=True)
    elif module in BOTH and not chosen and not marker("once"):
        metafunc.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The kind of database that this test's gateways use."""
    kind: str = getattr(request, "param", os.environ.get(DATABASE_VARIABLE, "sqlite"))
    monkeypatch.setenv(DATABASE_VARIABLE, kind)
    before = postgres.made()  # by fixtures of a whole module, which were there first
    yield kind
    postgres.drop_made(before)


@pytest.fixture(autouse=True, scope="module")
def _databases_of_a_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """What fixtures of a whole module make is of the same kind as its tests', and goes with it."""
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ in SQLITES_MODULES:
            patch.setenv(DATABASE_VARIABLE, "sqlite")
        yield
    postgres.drop_made()
