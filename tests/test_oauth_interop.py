"""Clients that are not ours prove themselves to a gateway: npm `oauth4webapi` all the way, Authlib as far as it goes.

`scripts/test` installs the locked npm package; without Node.js those tests cannot run and say so.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey, OKPKey

from factory import FakeClock, card_of, drafts, enrol, events, loopback, make_node, make_set, serving
from gateway.audit import EventKind
from gateway.crypto.keys import TokenKey, new_message_id
from gateway.crypto.tokens import CallerKey, TokenAlgorithm, make_dpop
from gateway.exchange import Exchange
from gateway.node import Node

FOLDER = Path(__file__).parent / "interop_oauth"
ALGORITHMS = ["Ed25519", "ES256"]

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed")


@pytest.fixture(scope="module")
def foreign_client() -> None:
    if not (FOLDER / "node_modules" / "oauth4webapi").is_dir():
        install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        run = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"npm ci failed: {run.stderr[-500:]}"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(time.time()))  # theirs is this machine's


@pytest.fixture
def xb(tmp_path: Path, clock: FakeClock) -> Node:
    return make_node(tmp_path, "XB-NCVI", clock=clock)


@pytest_asyncio.fixture
async def xa(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Exchange]:
    """XA, serving, with a set that its partners may follow."""
    exchange = Exchange(make_node(tmp_path, "XA-NCVI", clock=clock, **loopback()))
    make_set(exchange, "found", drafts(1))
    async with serving(exchange):
        yield exchange


def b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


def private_jwk(algorithm: str) -> dict[str, str]:
    """A fresh key."""
    if algorithm != "ES256":
        key = TokenKey.generate()
        return {**key.public_jwk(), "d": b64(int.from_bytes(key.seed, "big"))}
    numbers = ec.generate_private_key(ec.SECP256R1()).private_numbers()
    x, y = numbers.public_numbers.x, numbers.public_numbers.y
    return {"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y), "d": b64(numbers.private_value)}


def enrol_with(xa: Exchange, xb: Node, jwk: dict[str, str], algorithm: str) -> str:
    """Make this the token key of XB's identity card; returns its thumbprint."""
    public = {name: value for name, value in jwk.items() if name != "d"}
    enrol(xa.node, dataclasses.replace(card_of(xb), tokens=({**public, "alg": algorithm},)))
    return CallerKey.from_jwk(public, TokenAlgorithm(algorithm)).thumbprint


@needs_node
@pytest.mark.usefixtures("foreign_client")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_oauth4webapi_gets_a_token_and_reads_the_sets(xa: Exchange, xb: Node, algorithm: str) -> None:
    jwk = private_jwk(algorithm)
    kid = enrol_with(xa, xb, jwk, algorithm)
    asked = {"issuer": xa.node.settings.public_url, "agency": "XB-NCVI", "algorithm": algorithm, "jwk": jwk, "kid": kid}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec("node", "client.mjs", cwd=FOLDER, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await child.communicate(json.dumps(asked).encode())
    assert child.returncode == 0, err.decode()[-2000:]
    sets = {"status": 200, "body": {"sets": [{"set": "XA-NCVI/found", "purpose": "victim_identification"}]}}
    assert json.loads(out) == {
        "token_type": "dpop",  # it writes the type in small letters, whatever we write
        "scope": "native",
        "expires_in": 300,
        "sets": sets,
        "atTokenEndpoint": 1,
        "again": sets,
        "challenges": 2,
        "refused": {
            "status": 403,
            "parameters": {"algs": "Ed25519 EdDSA ES256", "error": "insufficient_scope", "scope": "log"},
        },
    }
    assert events(xa.node, EventKind.TOKEN_REFUSED) == []


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize("algorithm", list(TokenAlgorithm))
@pytest.mark.parametrize("audience", ["", "/v1/token"])
async def test_authlib_authenticates_and_is_told_that_a_proof_is_missing(
    xa: Exchange, xb: Node, algorithm: TokenAlgorithm, audience: str
) -> None:
    # Authlib signs client assertions, and has no DPoP: on its own it ends at invalid_dpop_proof. With a proof from
    # elsewhere its assertion is a good one, by the issuer's name or by the token endpoint's, which is its default.
    jwk = private_jwk(algorithm)
    enrol_with(xa, xb, jwk, algorithm)
    key = (ECKey if algorithm == "ES256" else OKPKey).import_key(jwk)
    url = xa.node.settings.public_url
    signer = PrivateKeyJWT(url + audience if audience else url, alg=algorithm)

    def form() -> str:
        class Auth:
            client_id, client_secret = "XB-NCVI", key

        _, _, body = signer(Auth(), "POST", f"{url}/v1/token", {}, urlencode({"grant_type": "client_credentials"}))
        return str(body)

    proving, nonce = TokenKey.generate(), ""

    def proof() -> str:
        jti, now = new_message_id(xb.random), int(time.time())
        return make_dpop(proving, "POST", f"{url}/v1/token", now, jti, nonce=nonce or None)

    async def post(session: aiohttp.ClientSession, body: str, **headers: str) -> tuple[int, Any, str]:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        async with session.post(f"{url}/v1/token", data=body, headers=headers) as answer:
            return answer.status, await answer.json(), answer.headers.get("DPoP-Nonce", "")

    async with aiohttp.ClientSession() as session:
        status, answer, _ = await post(session, form())
        assert (status, answer["error"]) == (400, "invalid_dpop_proof")
        body = form()
        status, answer, nonce = await post(session, body, DPoP=proof())
        assert (status, answer["error"]) == (400, "use_dpop_nonce")
        status, answer, _ = await post(session, body, DPoP=proof())
        assert (status, answer["token_type"], answer["scope"]) == (200, "DPoP", "log native")
