"""TLS with partners: whose certificate is accepted where we call, and which pins our own identity card names.

Rules:

1. TLS 1.3 and nothing below.
2. Where a partner's identity card has pins, its certificate is accepted exactly if its key is one of them. No authority
   is asked, nor are name and dates looked at: the card was read aloud and approved under four eyes, so it says more
   than an authority does. The look is part of the handshake; of a wrong server's answer nothing is read, and nothing
   of ours is sent.
3. Where it has none, the authorities of this machine decide.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection
from pathlib import Path

from gateway.config import Settings
from gateway.crypto.pins import MAX_PEM_BYTES, pin_of, pins_of_pem
from gateway.errors import ConfigError, MalformedError
from gateway.interchange import MAX_CARD_PINS


class NotPinnedError(ssl.SSLCertVerificationError):
    """The server's key is none of those that the partner's identity card pins. Raised within a handshake."""


def partner_tls(pins: Collection[str], otherwise: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """How a partner is called whose identity card has these pins.

    Args:
        otherwise: how its certificate is verified without pins, instead of by the authorities of this machine.
    """
    return _pinning_tls(frozenset(pins)) if pins else otherwise or _verifying_tls()


def own_pins(settings: Settings) -> tuple[str, ...]:
    """The pins of our identity card: our certificate's key if we have TLS, then those that the settings add.

    Raises:
        ConfigError: the certificate cannot be read, or is none; or there are more pins than a card holds.
    """
    files = settings.tls_files
    served = (_served_pin(files[0]),) if files else ()
    pins = tuple(dict.fromkeys((*served, *settings.own_pins)))
    if len(pins) > MAX_CARD_PINS:
        raise ConfigError(
            f"an identity card holds {MAX_CARD_PINS} TLS pins", place="tls_pins", remedy="take out those of the past"
        )
    return pins


def _served_pin(certificate: Path) -> str:
    try:
        with certificate.open("rb") as file:
            return pins_of_pem(file.read(MAX_PEM_BYTES + 1))[0]
    except (OSError, MalformedError) as error:
        raise ConfigError(
            "the TLS certificate cannot be used",
            place="tls_certificate",
            remedy="give a PEM file that this user may read, with the server's own certificate first",
        ) from error


def _verifying_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _pinning_tls(pins: frozenset[str]) -> ssl.SSLContext:
    class PinnedObject(ssl.SSLObject):
        """A connection whose handshake succeeds only with a pinned key."""

        def do_handshake(self) -> None:
            super().do_handshake()
            shown = self.getpeercert(binary_form=True)
            try:
                pinned = shown is not None and pin_of(shown) in pins
            except MalformedError as error:
                raise NotPinnedError("a certificate of an unknown kind") from error
            if not pinned:
                raise NotPinnedError("a key that is not pinned")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The pin takes the place of authority and name: see rule 2.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.sslobject_class = PinnedObject  # every connection of this context, and before any of its users
    return context
