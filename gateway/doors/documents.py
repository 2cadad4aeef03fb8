"""The public contract for whoever is about to call: `/openapi.yaml`, and as a page for people `/docs`.

Both are files that travel with the program (`contracts/`), the same for every caller, and tell nothing of this gateway,
its partners or its sets. Still, what need not answer strangers does not: without the setting `public_docs` they are for
this machine alone, and everybody else finds nothing there. The page has no script and fetches nothing; its one style
sheet is named by its hash, so that the browser would take no other.
"""

from __future__ import annotations

import base64
import hashlib
import re

from aiohttp import web

from gateway.config import Settings
from gateway.doors.ops import is_local
from gateway.errors import ConfigError, NotFoundError
from gateway.shipped import contracts_path

YAML_TYPE = "application/yaml"  # RFC 9512
PAGE_TYPE = "text/html; charset=utf-8"
_STYLE = re.compile(rb"<style>(.*?)</style>", re.S)


class DocumentsDoor:
    """The routes of the contract.

    Raises:
        ConfigError: the program was installed without it.
    """

    def __init__(self, settings: Settings) -> None:
        self._public = settings.public_docs
        try:
            self._yaml, self._page = (contracts_path().joinpath(f"openapi.{kind}").read_bytes() for kind in _KINDS)
        except OSError as error:
            raise ConfigError("the program was installed without its contract", remedy="install it again") from error
        self._policy = content_policy(self._page)

    def routes(self) -> list[web.RouteDef]:
        """What the application serves of this door."""
        return [
            web.get("/docs", self.get_docs, allow_head=False),
            web.get("/openapi.yaml", self.get_contract, allow_head=False),
        ]

    async def get_docs(self, request: web.Request) -> web.Response:
        """The contract as a page."""
        self._admit(request)
        return web.Response(
            body=self._page, headers={"Content-Type": PAGE_TYPE, "Content-Security-Policy": self._policy}
        )

    async def get_contract(self, request: web.Request) -> web.Response:
        """The contract itself."""
        self._admit(request)
        return web.Response(body=self._yaml, content_type=YAML_TYPE)

    def _admit(self, request: web.Request) -> None:
        if not self._public and not is_local(request):
            raise NotFoundError("there is nothing here")


_KINDS = ("yaml", "html")


def content_policy(page: bytes) -> str:
    """The Content-Security-Policy of a page: nothing but the style sheets that stand in it."""
    hashes = [base64.b64encode(hashlib.sha256(style).digest()).decode() for style in _STYLE.findall(page)]
    styles = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    return f"default-src 'none'; style-src {styles}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
