"""The OAuth 2.0 door: the token endpoint and the server's metadata (RFC 6749, RFC 7523, RFC 9449, RFC 8414).

A token request is a form of these members; each stands once, `scope` may, and whatever else is there is passed over:

    POST /v1/token
    DPoP: <proof>
    Content-Type: application/x-www-form-urlencoded

    grant_type=client_credentials&client_assertion_type=urn%3Aietf%3A…%3Ajwt-bearer&client_assertion=<assertion>

Refusals follow OAuth, not RFC 9457: `{"error":"invalid_client","error_description":"…"}`. The first request of a caller
is answered by `use_dpop_nonce`, and the header `DPoP-Nonce` has what its proof must name; so has every token's answer.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from aiohttp import web

from gateway.callers import TOKEN_PATH, Callers, RefusedTokenError, Scope, TokenError
from gateway.crypto.tokens import TokenAlgorithm
from gateway.doors.answers import CHALLENGE
from gateway.doors.entrance import NONCE_HEADER, Entrance
from gateway.doors.guards import accepts, read_body
from gateway.doors.limits import source_of
from gateway.doors.wire import json_answer
from gateway.errors import MalformedError

FORM_TYPE = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 16_384  # an assertion has at most 8 KiB
MAX_FORM_MEMBERS = 16  # three are needed; resource and the like are passed over
METADATA_PATH = "/.well-known/oauth-authorization-server"


class OAuthDoor:
    """The routes of the authorization server."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._callers = entrance.callers

    def routes(self) -> list[web.RouteDef]:
        """What the application serves of this door."""
        return [
            web.post(TOKEN_PATH, self.post_token),
            web.get(METADATA_PATH, self.get_metadata, allow_head=False),
        ]

    @accepts(MAX_FORM_BYTES)
    async def post_token(self, request: web.Request) -> web.Response:
        """A token for a partner that proves its key."""
        try:
            form = _form(request.content_type, await read_body(request))
        except MalformedError:
            return self._refusal(TokenError.INVALID_REQUEST, "the request is not a form whose members stand once")
        try:
            answer = await asyncio.to_thread(
                self._callers.token,
                form,
                request.headers.get("DPoP"),
                method=request.method,
                url=self._entrance.url_of(request),
                address=source_of(request.remote or ""),
            )
        except RefusedTokenError as error:
            return self._refusal(error.error, error.message, error.nonce)
        granted = json_answer(answer.to_json())
        granted.headers[NONCE_HEADER] = answer.nonce
        return granted

    async def get_metadata(self, _request: web.Request) -> web.Response:
        """What clients need to know of the authorization server."""
        return json_answer(metadata(self._callers))

    def _refusal(self, error: TokenError, description: str, nonce: str = "") -> web.Response:
        # RFC 6749 5.2: 401 where the client did not authenticate, 400 for everything else.
        status = 401 if error is TokenError.INVALID_CLIENT else 400
        answer = json_answer({"error": str(error), "error_description": description}, status=status)
        answer.headers["Date"] = self._entrance.date()
        if status == 401:
            answer.headers["WWW-Authenticate"] = CHALLENGE
        if nonce:
            answer.headers[NONCE_HEADER] = nonce
        return answer


def metadata(callers: Callers) -> dict[str, object]:
    """The members of RFC 8414 section 2 and RFC 9449 section 5.1 that apply here.

    There is no `jwks_uri` (tokens are opaque), and no endpoint for people: nobody logs in by a browser.
    """
    algorithms = [str(algorithm) for algorithm in TokenAlgorithm]
    return {
        "issuer": callers.issuer,
        "token_endpoint": callers.issuer + TOKEN_PATH,
        "scopes_supported": [str(scope) for scope in Scope],
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "dpop_signing_alg_values_supported": algorithms,
    }


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """The members of a form.

    Raises:
        MalformedError: another media type, not a form, too many members, or one that stands twice.
    """
    if content_type != FORM_TYPE:
        raise MalformedError("not a form")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FORM_MEMBERS,
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise MalformedError("not a form") from error
    form = dict(pairs)
    if len(form) != len(pairs):  # RFC 6749 3.2: parameters MUST NOT be included more than once
        raise MalformedError("a member stands twice")
    return form
