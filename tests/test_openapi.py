"""The OpenAPI contract: valid by its own standard, and word for word what the application serves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from factory import FakeClock, befriend, drafts, link_to, loopback, make_node, make_set, serving
from gateway.app import build_app
from gateway.callers import Scope, TokenError
from gateway.crypto.tokens import TokenAlgorithm
from gateway.doors.answers import CHALLENGE
from gateway.doors.native import CARD_TYPE
from gateway.doors.taxii import MAX_MATCHES
from gateway.errors import GatewayError
from gateway.exchange import CURSOR_MEDIA_TYPE, RECEIPT_MEDIA_TYPE, Exchange
from gateway.interchange import START
from gateway.sync import PartnerSync

CONTRACTS = Path(__file__).parent.parent / "contracts"
CONTRACT: dict[str, Any] = yaml.safe_load((CONTRACTS / "openapi.yaml").read_text(encoding="utf-8"))
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


@pytest.fixture
def xa(tmp_path: Path) -> Exchange:
    return Exchange(make_node(tmp_path, "XA-NCVI", clock=FakeClock(), **loopback()))


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in CONTRACT["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield method.upper(), path, operation


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = CONTRACT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def check(schema: dict[str, Any], value: object) -> None:
    Draft202012Validator({**schema, "components": CONTRACT["components"]}).validate(value)


def test_the_contract_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(CONTRACT).validate()


def test_routes_and_methods_of_the_application_are_those_of_the_contract(xa: Exchange) -> None:
    app = build_app(xa)
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    served = {(method, path) for method, path in served if method != "*"}  # these refuse whatever else is asked
    assert served == {(method, path) for method, path, _ in operations()}


async def test_exactly_the_operations_without_security_are_open_to_all(xa: Exchange) -> None:
    async with serving(xa), aiohttp.ClientSession() as session:
        for method, path, operation in operations():
            taxii = {"collection": "0", "object": "0", "status": "0"}
            named = {"agency": "XA-NCVI", "name": "found", "member": "1", "entry": "1-0", "type": "MD5", **taxii}
            url = xa.node.settings.public_url + path.format(**named)
            async with session.request(method, url) as answer:
                assert answer.status == 200 or "DPoP" not in await answer.text()  # a refusal teaches nothing
                open_to_all = operation.get("security") == []
                assert (answer.status == 401) is not open_to_all, (method, path)
                if not open_to_all:
                    assert "401" in operation["responses"]
                    proved = {"$ref": "#/components/parameters/Proof"} in operation.get("parameters", [])
                    scheme = answer.headers["WWW-Authenticate"].partition(" ")[0]
                    expected = [{"secret": []}] if scheme == "Basic" else None
                    assert (operation.get("security"), proved) == (expected, scheme == "DPoP")


async def test_answers_are_those_of_the_contract(xa: Exchange, tmp_path: Path) -> None:
    xb = Exchange(make_node(tmp_path, "XB-NCVI", clock=FakeClock()))
    befriend(xa.node, xb.node)
    name = make_set(xa, "found", drafts(2))
    pushed = make_set(xb, "listed", drafts(2))
    agency, short = name.split("/")
    seen: set[tuple[str, str, int]] = set()
    asked: list[tuple[str, str, int, str, bytes]] = []

    def note(method: str, path: str, status: int, kind: str, body: bytes) -> None:
        template = path.replace(f"/{agency}/{short}/", "/{agency}/{name}/").replace("absent", short)
        asked.append((method, template.replace(f"/{agency}/{short}/", "/{agency}/{name}/"), status, kind, body))

    async with serving(xa), link_to(xa.node, xb.node) as link:
        request = link._request

        async def noted(method: str, path: str, **options: Any) -> Any:
            answer = await request(method, path, **options)
            note(method, path, answer.status, answer.media_type, answer.body)
            return answer

        link._request = noted  # type: ignore[method-assign]
        await link.sets()
        head = await link.head(name, "")
        assert head is not None
        await link.head(name, head[0])
        xb.take_head("XA-NCVI", head[1])
        page = await link.changes(name, START)
        assert page is not None
        await link.changes(name, xb.take_page("XA-NCVI", page).cursor)
        await link.mailbox(0)
        await link.post_envelope(xb.head_for("XA-NCVI", pushed).body)
        sent = xb.page_to_push("XA-NCVI", pushed, START)
        assert sent is not None
        await link.post_envelope(sent.body)
        await link.card()
        await link.checkpoint()
        await link.consistency(1, 2)
        await link.witnessed()
        await PartnerSync(xb, link, "XA-NCVI").witness()
        assert (await link._ask("GET", "/v1/log/cosigned", max_bytes=4000)).body
        for wrong in (link.head(f"{agency}/absent", ""), link.post_envelope(b"rubbish"), link.mailbox(9)):
            with pytest.raises(GatewayError):
                await wrong
        for path in ("/.well-known/oauth-authorization-server", "/health/live", "/health/ready", "/metrics"):
            assert link._session is not None
            async with link._session.get(xa.node.settings.public_url + path) as answer:
                note("GET", path, answer.status, answer.content_type, await answer.read())
    for method, path, status, kind, body in asked:
        response = resolve(CONTRACT["paths"][path][method.lower()]["responses"][str(status)])
        content = response.get("content", {})
        assert (kind in content) if body else not content, (method, path, status)
        schema = content.get(kind, {}).get("schema")
        if schema and kind.endswith("json"):
            check(schema, json.loads(body))
        seen.add((method, path, status))
    assert {(path, status) for _, path, status in seen} >= {
        ("/v1/token", 200),
        ("/v1/sets/{agency}/{name}/head", 200),
        ("/v1/sets/{agency}/{name}/head", 304),
        ("/v1/sets/{agency}/{name}/changes", 200),
        ("/v1/sets/{agency}/{name}/changes", 204),
        ("/v1/sets/{agency}/{name}/head", 404),
        ("/v1/envelopes", 200),
        ("/v1/envelopes", 400),
        ("/v1/mailbox", 204),
    }


def test_closed_lists_of_the_contract_are_those_of_the_code() -> None:
    schemas = CONTRACT["components"]["schemas"]
    assert schemas["OAuthError"]["properties"]["error"]["enum"] == [str(error) for error in TokenError]
    assert schemas["Algorithms"]["const"] == [str(algorithm) for algorithm in TokenAlgorithm]
    metadata = CONTRACT["paths"]["/.well-known/oauth-authorization-server"]["get"]["responses"]["200"]["content"]
    scopes = metadata["application/json"]["schema"]["properties"]["scopes_supported"]["const"]
    assert scopes == [str(scope) for scope in Scope]
    challenge = CONTRACT["components"]["headers"]["Challenge"]["schema"]["pattern"]
    assert re.fullmatch(challenge, CHALLENGE)
    values = re.compile(schemas["TaxiiValues"]["pattern"])
    assert values.fullmatch(",".join("v" * MAX_MATCHES))
    assert not values.fullmatch(",".join("v" * (MAX_MATCHES + 1)))
    posted = CONTRACT["paths"]["/v1/envelopes"]["post"]["responses"]["200"]["content"]
    assert set(posted) == {RECEIPT_MEDIA_TYPE, CURSOR_MEDIA_TYPE}
    assert set(CONTRACT["paths"]["/v1/card"]["get"]["responses"]["200"]["content"]) == {CARD_TYPE}


def test_the_prose_contract_names_every_operation() -> None:
    prose = (CONTRACTS / "http-1.md").read_text(encoding="utf-8")
    for method, path, _ in operations():
        assert f"`{method} {path}`" in prose, (method, path)
