"""Founding a gateway, running it, saying who it is, looking whether it is well."""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import passphrases
from gateway.cli.shell import Shell, amount, bold, command, plain, when
from gateway.config import MIN_QUORUM, Settings
from gateway.errors import ConfigError, GatewayError
from gateway.home import ADMINISTRATORS, found
from gateway.interchange import IdentityCard
from gateway.keyadmin import export_card, own_card
from gateway.node import Node
from gateway.standing import check
from gateway.store import quick_check

init_app, serve_app, doctor_app = (
    typer.Typer(add_completion=False),
    typer.Typer(add_completion=False),
    typer.Typer(add_completion=False),
)
identity_app = typer.Typer(add_completion=False, help="Who this gateway is: its identity card.", no_args_is_help=True)
COMMANDS = {"init": init_app, "serve": serve_app, "identity": identity_app, "doctor": doctor_app}


@command(init_app, "init")
def init(
    shell: Shell,
    *,
    agency: Annotated[str, typer.Option(help="The agency's code, such as XA-NCVI. It begins with the jurisdiction.")],
    name: Annotated[str, typer.Option(help="The agency's name, as partners will read it.")],
    listen: Annotated[str, typer.Option(help="Address and port to listen on.")] = "127.0.0.1:8440",
    url: Annotated[str, typer.Option(help="Where partners reach this gateway; by default the address above.")] = "",
    tls_certificate: Annotated[str, typer.Option(help="PEM file with the certificate chain.")] = "",
    tls_key: Annotated[str, typer.Option(help="PEM file with the certificate's private key.")] = "",
    quorum: Annotated[
        int | None, typer.Option(help="How many sign a guarded act; 2, in a demo 1.", min=1, max=9)
    ] = None,
    sync_interval: Annotated[
        int, typer.Option(help="Seconds between two syncs with each partner.", min=5, max=86_400)
    ] = 300,
    demo: Annotated[bool, typer.Option("--demo", help="For invented data only: one administrator is enough.")] = False,
) -> None:
    """Make a data folder: keys, settings, starter policies, an empty database. Prints the next three commands."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError("the address to listen on is not HOST:PORT", place="--listen")
    settings = Settings(
        folder=shell.home,
        agency=agency,
        jurisdiction=agency[:2],
        listen_host=host.strip("[]"),
        listen_port=int(port),
        public_url=url or f"{'https' if tls_certificate else 'http'}://{listen}",
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        demo=demo,
        quorum=quorum or (1 if demo else MIN_QUORUM),
        sync_interval_seconds=sync_interval,
    )
    secret = shell.passphrases.gateway(new=True)
    found(settings, secret, name=name, cost=passphrases.cost(demo=demo))
    how = f"gateway --home {shell.home}"
    people = "" if settings.quorum == 1 else f"   ({settings.quorum} people, each with a passphrase of their own)"
    following = [
        f"{how} admin add NAME{people}",
        f"{how} identity export card.json   (send it to partners; read the fingerprint aloud to them)",
        f"{how} partner add CARD --admin NAME   (for each card that a partner sent)",
    ]
    shell.show(
        {"agency": agency, "home": str(shell.home), "quorum": settings.quorum, "demo": demo, "next": following},
        f"{bold(agency)} has its gateway in {plain(str(shell.home))}.",
        "Keep the passphrase and a backup of the folder in two different places: neither can be made again.",
        "Next:",
        *(f"  {plain(line)}" for line in following),
    )


@command(serve_app, "serve")
def serve(shell: Shell) -> None:
    """Run the gateway: answer partners, and follow their feeds on schedule. Ends well on SIGTERM or Ctrl-C."""
    # The web server is slow to import, and no other command needs it.
    from gateway.app import serve as serve_node  # noqa: PLC0415
    from gateway.cli.syncing import link_for  # noqa: PLC0415
    from gateway.doors.loglines import JsonLines  # noqa: PLC0415
    from gateway.exchange import Exchange  # noqa: PLC0415
    from gateway.sync import Schedule  # noqa: PLC0415
    from gateway.watch import Watch  # noqa: PLC0415

    with shell.node() as node:
        _log_to_stderr(JsonLines(), node.settings.log_level)
        exchange = Exchange(node)
        host = node.settings.listen_host

        def ready(port: int) -> None:
            shell.note(f"{node.agency} listens on {host}:{port}, and follows its partners. Ctrl-C ends it.")

        schedule, watch = Schedule(exchange, link_for(node)), Watch(node)
        background = [schedule.run_forever(), watch.run_forever()]
        if node.settings.hashsharing_url:
            from gateway.cli.sources import link_to_source  # noqa: PLC0415
            from gateway.sourcing import Sourcing, follow_forever  # noqa: PLC0415

            background.append(follow_forever(Sourcing(exchange), link_to_source(node)))
        asyncio.run(serve_node(exchange, background=background, ready=ready))


@command(identity_app, "show")
def identity_show(shell: Shell) -> None:
    """Show this gateway's identity card, with the fingerprint that partners compare by voice."""
    with shell.node() as node:
        card = own_card(node)
    shell.show(card_value(card), *card_lines(card))


@command(identity_app, "export")
def identity_export(
    shell: Shell,
    *,
    file: Annotated[Path | None, typer.Argument(help="Where to write it; without a file it goes to stdout.")] = None,
) -> None:
    """Write this gateway's identity card, signed, to hand to partners. It holds public keys only."""
    with shell.node() as node:
        raw, card = export_card(node), own_card(node)
    if file is None:
        typer.echo(raw.decode())
        return
    write_file(file, raw)
    shell.show(
        {"file": str(file), "agency": card.agency, "fingerprint": card.fingerprint},
        f"The identity card of {bold(card.agency)} is in {plain(str(file))}.",
        f"Fingerprint, to compare by voice: {bold(card.fingerprint)}",
    )


@command(doctor_app, "doctor")
def doctor(shell: Shell) -> None:
    """Look at everything that must be in order, and say what is not."""
    results: list[dict[str, object]] = []
    with ExitStack() as opened:
        node: list[Node] = []

        def open_node() -> str:
            node.append(opened.enter_context(shell.node(restored=True)))
            node[0].keystore.check_signing()
            return "open; the end of the log agrees with its checkpoint"

        checks: dict[str, Callable[[], str]] = {
            "settings": lambda: shell.settings().agency,
            "data folder": lambda: _look_at_rights(shell.settings()),
            "policies": lambda: _look_at_policies(shell.settings()),
            "keys, database, log": open_node,
            "database pages": lambda: _look_at_database(node[0]),
            "administrators": lambda: _look_at_administrators(node[0]),
            "never-again list": lambda: _look_at_list(node[0]),
        }
        fault: GatewayError | None = None
        for what, look in checks.items():
            try:
                results.append({"check": what, "ok": True, "found": look()})
            except GatewayError as error:
                # What follows stands on what failed: the first fault is the one to mend.
                results.append({"check": what, "ok": False, "found": str(error)})
                fault = error
                break
    shell.table(results, {"check": "check", "ok": "in order", "found": "found"}, "")
    if fault is not None:
        raise fault


def card_value(card: IdentityCard) -> dict[str, object]:
    """What people ask of a card, as members of a JSON object."""
    return {
        "agency": card.agency,
        "name": card.name,
        "jurisdiction": card.jurisdiction,
        "url": card.url,
        "fingerprint": card.fingerprint,
        "signing_keys": list(card.signing.key_ids),
        "decryption_keys": [key.key_id for key in card.opening],
        "log": card.log,
        "payload_types": list(card.payload_types),
        "test": card.test,
        "created": card.created,
        "number": card.number,
    }


def card_lines(card: IdentityCard) -> list[str]:
    """A card as people read it."""
    return [
        f"{bold(card.agency)}  {plain(card.name)}{'  (test: invented data only)' if card.test else ''}",
        f"  answers at       {plain(card.url)}",
        f"  signing keys     {card.signing.key_ids[0][:16]}… (Ed25519), {card.signing.key_ids[1][:16]}… (ML-DSA-65)",
        f"  decryption key   {card.opening[0].key_id[:16]}… (X-Wing)",
        f"  audit log        {plain(card.log)}",
        f"  made             {when(card.created)}",
        f"  fingerprint      {bold(card.fingerprint)}",
    ]


def write_file(path: Path, raw: bytes) -> None:
    """Write a file that the user named."""
    try:
        path.write_bytes(raw)
    except OSError as error:
        raise ConfigError(f"the file cannot be written: {error.strerror}") from error


def _log_to_stderr(form: logging.Formatter, level: str) -> None:
    """The operating log of a server: JSON lines on stderr, for the service manager to keep."""
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)  # it tells of every waking, every two seconds


def _look_at_rights(settings: Settings) -> str:
    for one in (settings.folder, settings.keystore_path, settings.folder / ADMINISTRATORS):
        if stat.S_IMODE(one.stat().st_mode) & 0o077:
            raise ConfigError("others may enter the data folder or read its keys", remedy="take the rights away")
    return "only its owner may enter"


def _look_at_policies(settings: Settings) -> str:
    from gateway.cli.judging import check_policies  # noqa: PLC0415  rooms know each other only where they meet

    report = check_policies(settings.policies_folder, settings.jurisdiction)
    return f"{report['rules']} rules, {report['examples']} worked examples decided as written"


def _look_at_database(node: Node) -> str:
    word = quick_check(node.store)()
    if word != "ok":
        raise ConfigError("the database is damaged", remedy="stop the gateway and restore a backup")
    return f"{word}, in {node.store.describe()}"


def _look_at_administrators(node: Node) -> str:
    with node.store.reading() as tx:
        seen = check(tx, node)
    found_here, quorum = seen.administrators, seen.quorum
    if found_here < quorum:
        raise ConfigError(
            f"there are {found_here} administrators, and guarded acts need {quorum}", remedy="`gateway admin add NAME`"
        )
    return f"{found_here}, of whom {quorum} must sign; they and {amount(seen.partners, 'partner')} as the log has them"


def _look_at_list(node: Node) -> str:
    from gateway.exchange import listfile, neveragain  # noqa: PLC0415  the exchange is slow to import

    with node.store.reading() as tx:
        listed = neveragain.check(node, tx)
    if listfile.knows_more(node):
        raise ConfigError(
            "the copy of the never-again list in the data folder knows more than the database, which is an older one",
            remedy=f"take it in: `gateway set never-again import {listfile.FILE}`",
        )
    listfile.keep(node)
    return f"{amount(listed, 'listing')} in force, as the log has it"
