"""Certificates for courts: that a real, identified child is behind an entry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.certificates import page
from gateway.cli.founding import write_file
from gateway.cli.people import Admin, AdminPassphrase, KeyFile, guarded
from gateway.cli.sets import full_name
from gateway.cli.shell import Shell, bold, command, when
from gateway.errors import ConfigError, ConflictError
from gateway.exchange import Exchange
from gateway.keyadmin import own_card

certificate_app = typer.Typer(
    add_completion=False, help="Certificates for courts: a real child is behind an entry.", no_args_is_help=True
)
COMMANDS = {"certificate": certificate_app}
COLUMNS = {
    "certificate": "certificate",
    "court_reference": "for",
    "issued": "issued",
    "revoked": "revoked",
    "assertion": "assertion",
}
Id = Annotated[str, typer.Argument(metavar="ID", help="The certificate, or the beginning of its id.")]
Out = Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not be there yet.")]


@command(certificate_app, "issue")
def certificate_issue(
    shell: Shell,
    *,
    name: Annotated[str, typer.Argument(metavar="[SET]", help="The set: AGENCY/name, or the name alone.")] = "",
    entry: Annotated[str, typer.Argument(metavar="[ENTRY]", help="The entry, as `look-up` shows it.")] = "",
    case: Annotated[str, typer.Option(help="A case, or the beginning of its id, in place of an entry.")] = "",
    victim: Annotated[str, typer.Option(help="The child's pseudonym in that case.")] = "",
    court_reference: Annotated[str, typer.Option(help="The court's reference, in one line; it stands in it.")],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Certify for a court that a real child, whom we have identified, is behind an entry (guarded). It names nobody."""
    if bool(case) == bool(name) or bool(case) != bool(victim) or bool(name) != bool(entry):
        raise ConfigError(
            "either a set and an entry, or a case and a child of it", remedy="SET ENTRY, or --case, --victim"
        )
    with shell.node() as node:
        exchange = Exchange(node)
        certificates = exchange.statuses.certificates
        if case:
            act = certificates.issue_for(exchange.statuses.assertion_of(case, victim), court_reference)
        else:
            act = certificates.issue(exchange.shelf, full_name(node, name), entry, court_reference)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(certificate_app, "list")
def certificate_list(shell: Shell) -> None:
    """List the certificates that we issued, the newest first."""
    with shell.node() as node:
        found = Exchange(node).statuses.certificates.all()
    rows: list[dict[str, object]] = [
        {
            "certificate": one.id,
            "assertion": one.assertion,
            "court_reference": one.court_reference,
            "issued": when(one.issued) if not shell.as_json else one.issued,
            "revoked": when(one.revoked) if not shell.as_json else one.revoked,
        }
        for one in found
    ]
    shell.table(rows, COLUMNS, "No certificate was issued yet.")


@command(certificate_app, "save")
def certificate_save(
    shell: Shell,
    *,
    identifier: Id,
    file: Out,
    as_page: Annotated[
        bool, typer.Option("--html", help="As one page for a printer, in place of the signed file.")
    ] = False,
    revocation: Annotated[bool, typer.Option(help="Its revocation, in place of the certificate.")] = False,
) -> None:
    """Write a certificate (or its revocation) to a file: what a court gets, for `scripts/verify_certificate.py`."""
    with shell.node() as node:
        one, card = Exchange(node).statuses.certificates.get(identifier), own_card(node)
    if revocation and not one.revoked:
        raise ConflictError("this certificate is not revoked")
    if revocation and as_page:
        raise ConfigError("a revocation has no page", remedy="leave out --html")
    raw = one.revocation if revocation else one.file
    write_file(file, page(raw, card.fingerprint).encode() if as_page else raw)
    shell.show({"certificate": one.id, "file": str(file)}, f"Written: {bold(str(file))}")


@command(certificate_app, "revoke")
def certificate_revoke(
    shell: Shell, *, identifier: Id, reason: Annotated[str, typer.Option(help="Why, in one line; it stands in it.")]
) -> None:
    """Say of a certificate that it holds no more. Lowering the status does so by itself."""
    with shell.node() as node:
        one = Exchange(node).statuses.certificates.revoke(identifier, reason, actor=node.agency)
    shell.show(
        {"certificate": one.id, "revoked": one.revoked},
        f"Revoked: {bold(one.id[:12])}. Hand the revocation to whoever has the certificate: "
        f"gateway certificate save {one.id[:12]} FILE --revocation",
    )
