"""The NCMEC-style server of the settings, whose list becomes a set of ours: following it now, and where we stand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict

import typer

from gateway.cli.shell import Shell, bold, command, plain, when
from gateway.client import HashSharingLink
from gateway.exchange import Exchange
from gateway.keystore import read_pin
from gateway.node import Node
from gateway.sourcing import Followed, Sourcing, follow

source_app = typer.Typer(
    add_completion=False,
    help="An NCMEC-style server whose list becomes a set of ours (settings hashsharing_…).",
    no_args_is_help=True,
)
COMMANDS = {"source": source_app}


def link_to_source(node: Node) -> Callable[[], HashSharingLink]:
    """Makes links to the server of the settings; its password is read anew for each."""

    def link() -> HashSharingLink:
        settings = node.settings
        password = read_pin(settings.path_of(settings.hashsharing_password_file))
        return HashSharingLink(settings.hashsharing_url, settings.hashsharing_user, password)

    return link


@command(source_app, "follow")
def source_follow(shell: Shell) -> None:
    """Ask the server now for everything that is new, and take it in. A running gateway does it by itself."""
    with shell.node() as node:
        sourcing = Sourcing(Exchange(node))
        with shell.progress("following", "entries") as tell:

            async def work() -> Followed:
                async with link_to_source(node)() as link:
                    return await follow(
                        sourcing, link, asyncio.to_thread, lambda so_far: tell(so_far.report.read, so_far.report.read)
                    )

            followed = asyncio.run(work())
        name = node.settings.hashsharing_set
    report = followed.report
    value = {
        "set": name,
        "pages": followed.pages,
        "read": report.read,
        "added": followed.added,
        "updated": followed.updated,
        "unchanged": followed.unchanged,
        "withdrawn": followed.withdrawn,
        "fingerprints": followed.fingerprints,
        "refused": report.refused,
        "dropped": report.dropped_fields,
    }
    shell.show(
        value,
        f"{bold(name)}: {followed.added:,} added, {followed.updated:,} updated, {followed.withdrawn:,} withdrawn, "
        f"{report.refused:,} refused, of {report.read:,} read.",
    )


@command(source_app, "show")
def source_show(shell: Shell) -> None:
    """Show where we stand with the server."""
    with shell.node() as node:
        state = Sourcing(Exchange(node)).state()
    value = {name: told for name, told in asdict(state).items() if name != "following"}
    shell.show(
        value,
        f"{bold(plain(state.url))} becomes {plain(state.set_name)}",
        f"  taken up to   {when(state.since)}",
        f"  last success  {when(state.last_success)}",
        f"  failures      {state.failures}{f': {plain(state.last_error)}' if state.last_error else ''}",
    )
