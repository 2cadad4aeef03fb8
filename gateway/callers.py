"""Who is calling: access tokens for partners that prove their key, and the proof on every request after that.

    POST /v1/token    client assertion (RFC 7523) + DPoP proof (RFC 9449)   -> a token for TOKEN_SECONDS, kept hashed
    any other         Authorization: DPoP <token>, and a fresh DPoP proof   -> the partner's agency code

Rules:

1. A partner is whoever its enrolled identity card says, and only while its state is "active". The state is read again
   at every request, so a removal takes effect with the next one.
2. Whatever is signed for one use is used once: the `jti` of every assertion and proof that was accepted is remembered
   in the database until it could no longer be accepted, so neither a restart nor a second node lets a replay in.
3. A caller that is refused learns nothing but that: one message for every reason. Why stands in the audit log, as one
   `token_refused` for each refused token request; at most `MAX_RECORDED_PER_ADDRESS` a minute for one address and
   `MAX_RECORDED` in all, so that nobody fills the log from outside. The last one of an address and minute says so.
4. Nothing is written before a signature has been verified by a key that may sign; then it is one short transaction.

Methods block: async callers go through `asyncio.to_thread`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from gateway.audit import EventKind
from gateway.crypto.tokens import (
    ACCESS_TOKEN_BYTES,
    MAX_PROOF_AGE_SECONDS,
    MAX_SKEW_SECONDS,
    Assertion,
    CallerKey,
    DpopProof,
    TokenAlgorithm,
    new_access_token,
    token_hash,
    verify_assertion,
    verify_dpop,
)
from gateway.errors import MalformedError, UnauthenticatedError
from gateway.interchange import parse_card
from gateway.model import AGENCY
from gateway.node import Node
from gateway.recording import RecordingBound
from gateway.store import Transaction
from gateway.store.tables import PartnerRow

TOKEN_PATH = "/v1/token"  # noqa: S105  a path
TOKEN_SECONDS = 300  # FAPI 2.0 5.3.2.1 wants short lives; a removal is at once all the same
GRANT_TYPE = "client_credentials"  # RFC 6749 4.4.2
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 2.2
MAX_RECORDED_PER_ADDRESS = 5  # refusals of one address in one minute that the audit log keeps
MAX_RECORDED = 60  # … and of all addresses together: whoever has many addresses fills no log either
REFUSED = "the caller did not prove who it is"
TOKEN_CHARS = -(-ACCESS_TOKEN_BYTES * 8 // 6)
_AUTHORIZATION = re.compile(r"(?i:DPoP) ([A-Za-z0-9_-]+)")


class TokenError(StrEnum):
    """What an OAuth client is told (RFC 6749 5.2, RFC 9449 5)."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CLIENT = "invalid_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    INVALID_DPOP_PROOF = "invalid_dpop_proof"


class RefusedTokenError(UnauthenticatedError):
    """A token request was refused; `error` is the word for the client, the cause is for the log."""

    def __init__(self, error: TokenError) -> None:
        super().__init__(REFUSED)
        self.error = error


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A token as the token endpoint answers it (RFC 6749 5.1)."""

    access_token: str
    expires_in: int

    def to_json(self) -> dict[str, object]:
        """As the members of a JSON object."""
        return {"access_token": self.access_token, "expires_in": self.expires_in, "token_type": "DPoP"}


class Callers:
    """Lets partners prove who they are. One object serves all threads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._issuer = node.settings.public_url.rstrip("/")
        self._recorded = RecordingBound(MAX_RECORDED_PER_ADDRESS, MAX_RECORDED)

    @property
    def issuer(self) -> str:
        """Our issuer identifier (RFC 8414 2): the public URL."""
        return self._issuer

    def token(
        self, form: Mapping[str, str], dpop: str | None, *, method: str, url: str, address: str = ""
    ) -> TokenAnswer:
        """A token for the partner that signed the request's assertion, bound to the key of its DPoP proof.

        Args:
            form: the members of the request's form, each of which stood there once.
            dpop: the request's DPoP header.
            method, url: of the request, as the caller sees it.
            address: of the caller; it only bounds what is recorded.

        Raises:
            RefusedTokenError: anything else.
        """
        claimed = _Claimed()
        try:
            return self._token(form, dpop, method, url, claimed)
        except RefusedTokenError as refusal:
            self._record(refusal, claimed.agency, address)
            raise

    def authenticate(self, authorization: str | None, dpop: str | None, *, method: str, url: str) -> str:
        """The agency code of the active partner that makes this request.

        Args:
            authorization, dpop: the request's headers.
            method, url: of the request, as the caller sees it; the query does not count (RFC 9449 4.2).

        Raises:
            UnauthenticatedError: no such token any more, or the proof is not for it and for this request. The cause
                says why.
        """
        try:
            return self._authenticate(authorization, dpop, method, url)
        except UnauthenticatedError as error:
            raise UnauthenticatedError(REFUSED) from error

    # Inside

    def _token(
        self, form: Mapping[str, str], dpop: str | None, method: str, url: str, claimed: _Claimed
    ) -> TokenAnswer:
        # 1. The request is one for client credentials with an assertion.
        if "client_assertion" not in form or form.get("client_assertion_type") != ASSERTION_TYPE:
            raise _refusal(TokenError.INVALID_REQUEST, "the form brings no client assertion")
        # 2. The key that the token will be bound to.
        proof = self._proof(dpop, method, url)
        # 3. The partner: its registered key signed, for us and for now.
        assertion = self._assertion(form["client_assertion"], claimed)
        if form.get("client_id", assertion.client_id) != assertion.client_id:  # RFC 7521 4.2
            raise _refusal(TokenError.INVALID_CLIENT, "client_id is not the assertion's issuer")
        if form.get("grant_type") != GRANT_TYPE:
            raise _refusal(TokenError.UNSUPPORTED_GRANT_TYPE, "the grant is not client_credentials")
        # 4. One commit: both are used up, the token exists. A crash before it leaves both unused and no token.
        token = new_access_token(self._node.random)
        with self._node.store.transaction() as tx:
            now = self._node.clock()
            tx.tokens.purge(now)
            first_time = self._use_assertion(tx, assertion)
            first_proof = self._use_proof(tx, proof)
            still_active = _active(tx, assertion.client_id) is not None
            if first_time and first_proof and still_active:
                tx.tokens.add(token_hash(token), assertion.client_id, proof.thumbprint, now + TOKEN_SECONDS)
        if not first_proof:
            raise _refusal(TokenError.INVALID_DPOP_PROOF, "the DPoP proof was used before")
        if not (first_time and still_active):
            raise _refusal(TokenError.INVALID_CLIENT, "the assertion was used before, or the partner has just gone")
        return TokenAnswer(token, TOKEN_SECONDS)

    def _proof(self, dpop: str | None, method: str, url: str) -> DpopProof:
        if dpop is None:
            raise _refusal(TokenError.INVALID_DPOP_PROOF, "no DPoP proof")
        try:
            return verify_dpop(dpop, method, url, self._node.clock())
        except UnauthenticatedError as error:
            raise RefusedTokenError(TokenError.INVALID_DPOP_PROOF) from error

    def _assertion(self, text: str, claimed: _Claimed) -> Assertion:
        def keys_of(client_id: str) -> Sequence[CallerKey]:
            claimed.agency = client_id
            with self._node.store.reading() as tx:
                return _keys_of(tx, client_id)

        try:
            return verify_assertion(
                text,
                keys_of,
                self._issuer,
                self._node.clock(),
                # RFC 7523 3: many clients name the token endpoint instead of the issuer.
                other_audiences=frozenset({self._issuer + TOKEN_PATH}),
            )
        except UnauthenticatedError as error:
            raise RefusedTokenError(TokenError.INVALID_CLIENT) from error

    def _authenticate(self, authorization: str | None, dpop: str | None, method: str, url: str) -> str:
        # 1. The headers.
        match = _AUTHORIZATION.fullmatch(authorization or "")
        if match is None or len(match[1]) != TOKEN_CHARS or dpop is None:
            raise UnauthenticatedError("the request brings no DPoP token, or no proof")
        token, now = match[1], self._node.clock()
        # 2. Whose token it is; None as soon as its partner is not active any more.
        with self._node.store.reading() as tx:
            held = tx.tokens.find(token_hash(token), now)
        if held is None:
            raise UnauthenticatedError("no such token, or it has run out, or its partner is not active")
        partner, thumbprint = held
        # 3. The proof: by the key that the token was given to, over this token and this request.
        proof = verify_dpop(dpop, method, url, now, access_token=token, expected_thumbprint=thumbprint)
        # 4. Used up, in one short transaction.
        with self._node.store.transaction() as tx:
            fresh = self._use_proof(tx, proof)
        if not fresh:
            raise UnauthenticatedError("the DPoP proof was used before")
        return partner

    def _use_assertion(self, tx: Transaction, assertion: Assertion) -> bool:
        # It is refused from `expires` on; a little longer, for the clock may be set back.
        until = assertion.expires + MAX_SKEW_SECONDS
        return tx.tokens.remember(_seen("assertion", assertion.client_id, assertion.jti), until)

    def _use_proof(self, tx: Transaction, proof: DpopProof) -> bool:
        # It is accepted up to and with iat + MAX_PROOF_AGE_SECONDS, so it must still be known then.
        until = proof.iat + MAX_PROOF_AGE_SECONDS + MAX_SKEW_SECONDS
        return tx.tokens.remember(_seen("proof", proof.thumbprint, proof.jti), until)

    def _record(self, refusal: RefusedTokenError, claimed: str, address: str) -> None:
        number = self._recorded.count(address, self._node.clock())
        if number is None:
            return
        partner = claimed if AGENCY.fullmatch(claimed) else ""
        reason = str(refusal.__cause__)
        if number == MAX_RECORDED_PER_ADDRESS:
            reason += "; more refusals of this address and minute are not recorded"
        details: dict[str, object] = {"error": str(refusal.error), "reason": reason}
        if partner:
            details["partner"] = partner
        event = self._node.event(
            EventKind.TOKEN_REFUSED, actor=partner or "unknown", subject=self._node.agency, details=details
        )
        with self._node.store.transaction() as tx:
            tx.log.append([event])


@dataclass(slots=True)
class _Claimed:
    """Who a caller says it is; nothing has proved it."""

    agency: str = ""


def _active(tx: Transaction, client_id: str) -> PartnerRow | None:
    row = tx.people.find_partner(client_id)
    return row if row is not None and row.state == "active" else None


def _keys_of(tx: Transaction, client_id: str) -> Sequence[CallerKey]:
    """The token keys of an active partner, from its identity card; empty for anybody else."""
    row = _active(tx, client_id)
    if row is None:
        return ()
    found = []
    for jwk in parse_card(row.card.encode()).tokens:
        with suppress(MalformedError, ValueError):  # a key of a kind that we do not take proves nobody
            found.append(CallerKey.from_jwk(jwk, TokenAlgorithm(jwk["alg"])))
    return found


def _refusal(error: TokenError, reason: str) -> RefusedTokenError:
    refusal = RefusedTokenError(error)
    refusal.__cause__ = UnauthenticatedError(reason)
    return refusal


def _seen(kind: str, issuer: str, jti: str) -> bytes:
    """Names one thing that was signed for one use. Length-prefixed, so that no two of them can look alike."""
    hasher = hashlib.sha256()
    for part in (kind, issuer, jti):
        raw = part.encode()
        hasher.update(len(raw).to_bytes(4, "big") + raw)
    return hasher.digest()
