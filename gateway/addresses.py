"""Which addresses are called: exactly those that an identity card names, in the one spelling that nobody misreads.

Whoever writes a card chooses where we connect to, so a URL that lenient readers understand in different ways (an
address as a number, a user before the host, a path) is refused rather than interpreted.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from gateway.errors import PartnerError

_HOST_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PLAIN_URL = re.compile(r"(?i:https?)://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?/?")


def base_url(url: str) -> str:
    """The URL of a card, if it is one that we call: scheme, host and port alone, in their usual spelling.

    Raises:
        PartnerError: anything else, whatever a more lenient reader might make of it.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise PartnerError("the partner's URL is not one") from error
    if _PLAIN_URL.fullmatch(url) is None or port == 0:
        raise PartnerError("the partner's URL is more than scheme, host and port")
    address = _address(host)
    if address is None and _HOST_NAME.fullmatch(host) is None:  # so no 0x7f.1, no 127.1, no 2130706433
        raise PartnerError("the partner's URL names no host that we call")
    loopback = host == "localhost" or (address is not None and address.is_loopback)
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise PartnerError("the partner's URL is not https")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
