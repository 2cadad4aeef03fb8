"""TLS pins: a certificate's key by its SHA-256, so that partners accept that key and nobody else's (RFC 7469 2.4).

    pin = base64( SHA-256( SubjectPublicKeyInfo in DER ) )

The same as `openssl x509 -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64`.
A pin names the key, not the certificate: a renewed certificate over the same key has the same pin.
"""

from __future__ import annotations

import base64
import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.errors import MalformedError
from gateway.model import require

MAX_PEM_BYTES = 256 * 1024  # a chain of some ten certificates, post-quantum ones among them


def pin_of(certificate_der: bytes) -> str:
    """The pin of a certificate's key.

    Raises:
        MalformedError: not a certificate, or its key is of an unusual kind or spelling.
    """
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
    except ValueError as error:
        raise MalformedError("TLS: not a certificate") from error
    return _pin(certificate)


def pins_of_pem(raw: bytes) -> tuple[str, ...]:
    """The pins of the certificates in a PEM file, in their order: the server's own comes first.

    Raises:
        MalformedError: as `pin_of`, or no certificate at all.
    """
    require(len(raw) <= MAX_PEM_BYTES, "TLS: the chain of certificates is too long")
    try:
        certificates = x509.load_pem_x509_certificates(raw)
    except ValueError as error:
        raise MalformedError("TLS: not a PEM file with certificates") from error
    return tuple(_pin(certificate) for certificate in certificates)


def _pin(certificate: x509.Certificate) -> str:
    try:
        info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (UnsupportedAlgorithm, ValueError) as error:
        raise MalformedError("TLS: the certificate's key is of no kind that is known here") from error
    # A key in another spelling than its usual one would have two pins: ours, and the one that other tools compute.
    require(info in certificate.tbs_certificate_bytes, "TLS: the certificate's key is not written in its usual form")
    return base64.b64encode(hashlib.sha256(info).digest()).decode("ascii")
