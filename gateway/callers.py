"""Who is calling: access tokens for partners that prove their key, and the proof on every request after that.

    POST /v1/token    client assertion (RFC 7523) + DPoP proof (RFC 9449)   -> a token for TOKEN_SECONDS, kept hashed
    any other         Authorization: DPoP <token>, and a fresh DPoP proof   -> the partner's agency code
    stock clients     Authorization: Basic, Token or Bearer, with a secret  -> the partner's agency code

Rules:

1. A partner is whoever its enrolled identity card says, and only while its state is "active". The state is read again
   at every request, so a removal takes effect with the next one.
2. Whatever is signed for one use is used once: the `jti` of every assertion and proof that was accepted is remembered
   in the database until it could no longer be accepted, so neither a restart nor a second node lets a replay in.
3. A caller that is refused learns nothing but that: one message for every reason. Why stands in the audit log, as one
   `token_refused` for each refused token request; at most `MAX_RECORDED_PER_ADDRESS` a minute for one address and
   `MAX_RECORDED` in all, so that nobody fills the log from outside. The last one of an address and minute says so.
4. Nothing is written before a signature has been verified by a key that may sign; then it is one short transaction.
5. A proof repeats a nonce of ours that is at most `NONCE_SECONDS` old. A proof that is right but for its nonce is
   answered by a nonce: that is no refusal, is not recorded, and uses nothing up.
6. A token is good for the scopes it was given for: `native` and `log` for every partner, any other surface only while
   it is open to the partner.
7. Stock clients that cannot sign call a surface by a secret, if administrators have opened that surface to the partner.
   A secret is shown once and kept as a digest under a key of the keystore, so whoever writes the database makes none.
   It ends with its time, its surface, or its partner's state, whichever is first, with the next request.

Methods block: async callers go through `asyncio.to_thread`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from gateway.audit import Event, EventKind
from gateway.crypto.keys import parse_base64
from gateway.crypto.nonces import RENEW_SECONDS, Nonces
from gateway.crypto.tokens import (
    ACCESS_TOKEN_BYTES,
    MAX_PROOF_AGE_SECONDS,
    MAX_SKEW_SECONDS,
    Assertion,
    CallerKey,
    DpopProof,
    NonceWantedError,
    TokenAlgorithm,
    new_access_token,
    token_hash,
    verify_assertion,
    verify_dpop,
)
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError, UnauthenticatedError
from gateway.model import AGENCY, require
from gateway.node import Node
from gateway.partners import card_in, find
from gateway.recording import RecordingBound
from gateway.store import Transaction
from gateway.store.tables import ClientSecret, PartnerRow
from gateway.store.tokens import HeldToken

TOKEN_PATH = "/v1/token"  # noqa: S105  a path
TOKEN_SECONDS = 300  # FAPI 2.0 5.3.2.1 wants short lives; a removal is at once all the same
GRANT_TYPE = "client_credentials"  # RFC 6749 4.4.2
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 2.2
MAX_RECORDED_PER_ADDRESS = 5  # refusals of one address in one minute that the audit log keeps
MAX_RECORDED = 60  # … and of all addresses together: whoever has many addresses fills no log either
REFUSED = "the caller did not prove who it is"
NONCE_WANTED = "the proof must name the nonce that comes with this answer"
TOKEN_CHARS = -(-ACCESS_TOKEN_BYTES * 8 // 6)
SECRET_BYTES = 32
SECRET_ID_BYTES = 8
MAX_SECRET_DAYS = 365  # a yearly task at the latest; nobody remembers longer where a secret was put
MAX_SECRETS = 8  # live ones of one partner and surface: one for each tool, and two while one is replaced
USED_SECONDS = 3600  # how exactly the last use of a secret is noted: a write for every request would cost too much
MAX_AUTHORIZATION_CHARS = 512  # "Basic", and base64 of an agency code and a secret, are about 120
_AUTHORIZATION = re.compile(r"(?i:DPoP) ([A-Za-z0-9_-]+)")
_SECRET = re.compile(r"([0-9a-f]{16})\.[A-Za-z0-9_-]{43}")
_NONCE_KEY = b"key of dpop-nonce 1"


class Scope(StrEnum):
    """The surfaces that a token or a secret is for."""

    NATIVE = "native"
    LOG = "log"
    TAXII = "taxii"
    HASHSHARING = "hashsharing"


EVERY_PARTNERS = frozenset({Scope.NATIVE, Scope.LOG})
OPENED = frozenset(Scope) - EVERY_PARTNERS  # these are shut until administrators open them to a partner


class TokenError(StrEnum):
    """What an OAuth client is told (RFC 6749 5.2, RFC 9449 5 and 8)."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CLIENT = "invalid_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    INVALID_SCOPE = "invalid_scope"
    INVALID_DPOP_PROOF = "invalid_dpop_proof"
    USE_DPOP_NONCE = "use_dpop_nonce"


_SAYS = {
    TokenError.USE_DPOP_NONCE: NONCE_WANTED,
    TokenError.INVALID_SCOPE: "the scope is not open to the caller",
}


class RefusedTokenError(UnauthenticatedError):
    """A token request was refused; `error` is the word for the client, the cause is for the log.

    `nonce`: with `use_dpop_nonce`, the one to repeat the request with.
    """

    def __init__(self, error: TokenError, nonce: str = "") -> None:
        super().__init__(_SAYS.get(error, REFUSED))
        self.error = error
        self.nonce = nonce


class NonceChallengeError(UnauthenticatedError):
    """The request is to be repeated with a proof that names `nonce`."""

    def __init__(self, nonce: str) -> None:
        super().__init__(NONCE_WANTED)
        self.nonce = nonce


class InsufficientScopeError(DeniedError):
    """The access token is not for this surface, or the surface was shut since; `scope` is the one it takes."""

    def __init__(self, scope: Scope) -> None:
        super().__init__("the access token is not for this surface")
        self.scope = scope


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A token as the token endpoint answers it (RFC 6749 5.1), and a nonce for the proofs that come with it."""

    access_token: str
    expires_in: int
    scope: str
    nonce: str

    def to_json(self) -> dict[str, object]:
        """As the members of a JSON object."""
        return {
            "access_token": self.access_token,
            "expires_in": self.expires_in,
            "scope": self.scope,
            "token_type": "DPoP",
        }


@dataclass(frozen=True, slots=True)
class Admitted:
    """A partner that has proved itself for one request. `nonce`: a fresh one, "" while the one used is young."""

    agency: str
    nonce: str


class Callers:
    """Lets partners prove who they are. One object serves all threads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._issuer = node.settings.public_url.rstrip("/")
        self._recorded = RecordingBound(MAX_RECORDED_PER_ADDRESS, MAX_RECORDED)
        # Of the keystore, so that every node and every restart has the same one.
        self._nonces = Nonces(node.keystore.row_mac(_NONCE_KEY))

    @property
    def issuer(self) -> str:
        """Our issuer identifier (RFC 8414 2): the public URL."""
        return self._issuer

    def now(self) -> int:
        """Unix seconds of the clock that proofs are judged by."""
        return self._node.clock()

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
            RefusedTokenError: anything else; with `use_dpop_nonce` it is to be repeated with the nonce given.
        """
        claimed = _Claimed()
        try:
            return self._token(form, dpop, method, url, claimed)
        except RefusedTokenError as refusal:
            if refusal.error is not TokenError.USE_DPOP_NONCE:
                self._record(refusal.error, refusal.__cause__, claimed.agency, address)
            raise

    def authenticate(
        self,
        authorization: str | None,
        dpop: str | None,
        *,
        method: str,
        url: str,
        scope: Scope = Scope.NATIVE,
    ) -> Admitted:
        """The active partner that makes this request.

        Args:
            authorization, dpop: the request's headers.
            method, url: of the request, as the caller sees it; the query does not count (RFC 9449 4.2).
            scope: the surface that is called.

        Raises:
            NonceChallengeError: all is right but the proof's nonce.
            InsufficientScopeError: all is right, but the token is for other surfaces.
            UnauthenticatedError: no such token any more, or the proof is not for it and for this request. The cause
                says why.
        """
        try:
            return self._authenticate(authorization, dpop, method, url, scope)
        except NonceWantedError as error:
            raise NonceChallengeError(self._nonces.issue(self.now())) from error
        except UnauthenticatedError as error:
            raise UnauthenticatedError(REFUSED) from error

    # Stock clients

    def issue_secret(self, partner: str, surface: Scope, days: int, by: str) -> tuple[str, str]:
        """(id, secret) of a new secret for a partner's stock client. The secret is not to be had a second time.

        Args:
            days: how long it is good, at most `MAX_SECRET_DAYS`.
            by: the administrator who asks for it.

        Raises:
            MalformedError: no surface of stock clients, or a number of days out of bounds.
            NotFoundError: the partner is not active.
            ConflictError: the surface is not open to it, or it has `MAX_SECRETS` for it already.
        """
        require(surface in OPENED, "this surface takes no secrets")
        require(0 < days <= MAX_SECRET_DAYS, f"a secret is good for 1 to {MAX_SECRET_DAYS} days")
        random, now = self._node.random, self.now()
        expires = now + days * 86_400
        identifier = random.bytes(SECRET_ID_BYTES).hex()
        # The id within the secret says where to look, so that nothing is searched by what is secret.
        secret = f"{identifier}.{_base64url(random.bytes(SECRET_BYTES))}"
        row = ClientSecret(
            id=identifier,
            partner=partner,
            surface=str(surface),
            digest=self._secret_digest(secret, partner, surface, expires),
            created=now,
            expires=expires,
        )
        with self._node.store.transaction() as tx:
            if _active(self._node, tx, partner) is None:
                raise NotFoundError("no active partner of this name", remedy="`gateway partner list` names them")
            if not tx.secrets.is_open(partner, surface):
                raise ConflictError("the surface is not open to this partner", remedy="propose to open it first")
            if sum(held.expires > now for held in tx.secrets.all(partner, surface)) >= MAX_SECRETS:
                raise ConflictError(f"there are {MAX_SECRETS} secrets for this surface", remedy="revoke one first")
            tx.secrets.add(row)
            tx.log.append([secret_event(self._node, row, "issued", by)])
        return identifier, secret

    def revoke_secret(self, identifier: str, by: str) -> None:
        """Forget a secret: from the next request on it opens nothing.

        Raises:
            NotFoundError: there is none of this id.
        """
        with self._node.store.transaction() as tx:
            row = tx.secrets.revoke(identifier)
            if row is None:
                raise NotFoundError("no such secret")
            tx.log.append([secret_event(self._node, row, "revoked", by)])

    def authenticate_secret(self, authorization: str | None, surface: Scope, *, address: str = "") -> str:
        """The agency code of the active partner whose stock client makes this request.

        Args:
            authorization: the request's header: `Basic` with agency code and secret, or `Token` or `Bearer` with the
                secret alone.
            surface: the one that is called.
            address: of the caller; it only bounds what is recorded.

        Raises:
            UnauthenticatedError: anything else. The cause says why.
        """
        claimed = _Claimed()
        try:
            return self._authenticate_secret(authorization, surface, claimed)
        except (UnauthenticatedError, MalformedError) as error:
            if authorization is not None:  # stock clients ask without one first, to hear how to prove themselves
                self._record(TokenError.INVALID_CLIENT, error, claimed.agency, address)
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
            still_active = _active(self._node, tx, assertion.client_id) is not None
            scope = _granted(tx, assertion.client_id, form.get("scope"))
            if first_time and first_proof and still_active and scope:
                expires = now + TOKEN_SECONDS
                self._keep_token(tx, token, HeldToken(assertion.client_id, proof.thumbprint, expires, scope))
        if not first_proof:
            raise _refusal(TokenError.INVALID_DPOP_PROOF, "the DPoP proof was used before")
        if not (first_time and still_active):
            raise _refusal(TokenError.INVALID_CLIENT, "the assertion was used before, or the partner has just gone")
        if not scope:
            raise _refusal(TokenError.INVALID_SCOPE, "a scope that is unknown, or not open to the partner")
        return TokenAnswer(token, TOKEN_SECONDS, scope, self._nonces.issue(now))

    def _proof(self, dpop: str | None, method: str, url: str) -> DpopProof:
        if dpop is None:
            raise _refusal(TokenError.INVALID_DPOP_PROOF, "no DPoP proof")
        try:
            return verify_dpop(dpop, method, url, self._node.clock(), nonces=self._nonces)
        except NonceWantedError as error:
            raise RefusedTokenError(TokenError.USE_DPOP_NONCE, self._nonces.issue(self._node.clock())) from error
        except UnauthenticatedError as error:
            raise RefusedTokenError(TokenError.INVALID_DPOP_PROOF) from error

    def _assertion(self, text: str, claimed: _Claimed) -> Assertion:
        def keys_of(client_id: str) -> Sequence[CallerKey]:
            claimed.agency = client_id
            with self._node.store.reading() as tx:
                return _keys_of(self._node, tx, client_id)

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

    def _authenticate(
        self, authorization: str | None, dpop: str | None, method: str, url: str, scope: Scope
    ) -> Admitted:
        # 1. The headers.
        match = _AUTHORIZATION.fullmatch(authorization or "")
        if match is None or len(match[1]) != TOKEN_CHARS or dpop is None:
            raise UnauthenticatedError("the request brings no DPoP token, or no proof")
        token, now = match[1], self._node.clock()
        # 2. Whose token it is; None as soon as its partner is not active any more.
        with self._node.store.reading() as tx:
            held = tx.tokens.find(token_hash(token), now)
            if held is not None and not hmac.compare_digest(held.mac, self._token_mac(token, held)):
                raise UnauthenticatedError("an access token in the database was not written by this gateway")
            if held is not None and _active(self._node, tx, held.partner) is None:
                held = None
            still_open = held is not None and (scope in EVERY_PARTNERS or tx.secrets.is_open(held.partner, scope))
        if held is None:
            raise UnauthenticatedError("no such token, or it has run out, or its partner is not active")
        # 3. The proof: by the key that the token was given to, over this token and this request.
        proof = verify_dpop(
            dpop, method, url, now, access_token=token, expected_thumbprint=held.thumbprint, nonces=self._nonces
        )
        # 4. What the token is for.
        if scope not in held.scope.split() or not still_open:
            raise InsufficientScopeError(scope)
        # 5. Used up, in one short transaction.
        with self._node.store.transaction() as tx:
            fresh = self._use_proof(tx, proof)
        if not fresh:
            raise UnauthenticatedError("the DPoP proof was used before")
        is_old = proof.nonce_age is None or proof.nonce_age >= RENEW_SECONDS
        return Admitted(held.partner, self._nonces.issue(now) if is_old else "")

    def _authenticate_secret(self, authorization: str | None, surface: Scope, claimed: _Claimed) -> str:
        # 1. The header.
        claimed.agency, secret = _presented(authorization or "")
        match, now = _SECRET.fullmatch(secret), self.now()
        if match is None:
            raise UnauthenticatedError("secret: not in the form of one")
        # 2. What is kept under its id; None as soon as its surface is shut or its partner not active any more.
        with self._node.store.reading() as tx:
            held = tx.secrets.live(match[1], surface, now)
            if held is not None and _active(self._node, tx, held.partner) is None:
                held = None
        # 3. Compared in the same time whether there is one or not, and wherever it differs.
        partner, digest = (held.partner, held.digest) if held else ("", bytes(32))
        expected = self._secret_digest(secret, partner, surface, held.expires if held else 0)
        is_it = hmac.compare_digest(expected, digest)
        if held is None or not is_it or claimed.agency not in ("", partner):
            raise UnauthenticatedError("secret: unknown, run out or another's, or surface or partner is not active")
        # 4. Noted, now and then.
        if now - held.used >= USED_SECONDS:
            with self._node.store.transaction() as tx:
                tx.secrets.touch(held.id, now)
        return partner

    def _secret_digest(self, secret: str, partner: str, surface: Scope, expires: int) -> bytes:
        """What is kept of a secret: good for this partner, surface and time, and only this gateway can have made it."""
        return self._node.keystore.row_mac(_digest("client secret 1", surface, partner, str(expires), secret))

    def _keep_token(self, tx: Transaction, token: str, held: HeldToken) -> None:
        mac, scope = self._token_mac(token, held), held.scope
        tx.tokens.add(token_hash(token), held.partner, held.thumbprint, held.expires, scope=scope, mac=mac)

    def _token_mac(self, token: str, held: HeldToken) -> bytes:
        """So that whoever writes the database can neither add a token nor give one to another partner or key."""
        parts = (token, held.partner, held.thumbprint, str(held.expires), held.scope)
        return self._node.keystore.row_mac(_digest("access token 1", *parts))

    def _use_assertion(self, tx: Transaction, assertion: Assertion) -> bool:
        # It is refused from `expires` on; a little longer, for the clock may be set back.
        until = assertion.expires + MAX_SKEW_SECONDS
        return tx.tokens.remember(_digest("assertion", assertion.client_id, assertion.jti), until)

    def _use_proof(self, tx: Transaction, proof: DpopProof) -> bool:
        # It is accepted up to and with iat + MAX_PROOF_AGE_SECONDS, so it must still be known then.
        until = proof.iat + MAX_PROOF_AGE_SECONDS + MAX_SKEW_SECONDS
        return tx.tokens.remember(_digest("proof", proof.thumbprint, proof.jti), until)

    def _record(self, error: TokenError, cause: BaseException | None, claimed: str, address: str) -> None:
        number = self._recorded.count(address, self._node.clock())
        if number is None:
            return
        partner = claimed if AGENCY.fullmatch(claimed) else ""
        reason = str(cause)
        if number == MAX_RECORDED_PER_ADDRESS:
            reason += "; more refusals of this address and minute are not recorded"
        details: dict[str, object] = {"error": str(error), "reason": reason}
        if partner:
            details["partner"] = partner
        event = self._node.event(
            EventKind.TOKEN_REFUSED, actor=partner or "unknown", subject=self._node.agency, details=details
        )
        with self._node.store.transaction() as tx:
            tx.log.append([event])


def secret_event(node: Node, row: ClientSecret, state: str, by: str) -> Event:
    """The audit event of a secret that was "issued" or "revoked"; also for those that end with surface or partner."""
    details = {
        "partner": row.partner,
        "surface": row.surface,
        "secret": row.id,
        "state": state,
        "expires": row.expires,
    }
    return node.event(EventKind.SECRET_CHANGED, actor=by, subject=row.partner, details=details)


@dataclass(slots=True)
class _Claimed:
    """Who a caller says it is; nothing has proved it."""

    agency: str = ""


def _active(node: Node, tx: Transaction, client_id: str) -> PartnerRow | None:
    row = find(node, tx, client_id)
    return row if row is not None and row.state == "active" else None


def _keys_of(node: Node, tx: Transaction, client_id: str) -> Sequence[CallerKey]:
    """The token keys of an active partner, from its identity card; empty for anybody else."""
    row = _active(node, tx, client_id)
    if row is None:
        return ()
    found = []
    for jwk in card_in(row).tokens:
        with suppress(MalformedError, ValueError):  # a key of a kind that we do not take proves nobody
            found.append(CallerKey.from_jwk(jwk, TokenAlgorithm(jwk["alg"])))
    return found


def _granted(tx: Transaction, partner: str, asked: str | None) -> str:
    """The scope of a partner's token: what it asks for, else all that it may have; "" if it asks for too much."""
    may_have = EVERY_PARTNERS | {Scope(row.surface) for row in tx.secrets.surfaces(partner) if row.surface in OPENED}
    wanted = set(may_have) if asked is None else set(asked.split(" "))  # RFC 6749 3.3: one space between each two
    return " ".join(sorted(wanted)) if wanted <= may_have else ""


def _presented(authorization: str) -> tuple[str, str]:
    """(agency code or "", secret) of a stock client's header (RFC 7617, RFC 6750)."""
    scheme, _, rest = authorization.partition(" ")
    if len(authorization) > MAX_AUTHORIZATION_CHARS:
        raise UnauthenticatedError("secret: the header is too long")
    if scheme.lower() in ("token", "bearer"):
        return "", rest
    if scheme.lower() != "basic":
        raise UnauthenticatedError("secret: the header brings none")
    user, colon, secret = parse_base64(rest).decode("latin-1").partition(":")
    if not colon or AGENCY.fullmatch(user) is None:
        raise UnauthenticatedError("secret: the user is no agency code")
    return user, secret


def _refusal(error: TokenError, reason: str) -> RefusedTokenError:
    refusal = RefusedTokenError(error)
    refusal.__cause__ = UnauthenticatedError(reason)
    return refusal


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _digest(*parts: str) -> bytes:
    """SHA-256 over a kind and its parts. Length-prefixed, so that no two kinds can look alike."""
    hasher = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        hasher.update(len(raw).to_bytes(4, "big") + raw)
    return hasher.digest()
