"""Schemathesis against a gateway that really serves: is every answer, whatever is asked, one that the contract names?

    with ContractRun(place, seed=1) as run:
        report = run.run(examples=20)

XB asks XA over HTTP, from the contract alone, with what the contract allows and with what it does not. Each request
is let in as a partner's is: `private_key_jwt` for a token, a DPoP proof of its own for each request, signed by the same
code with which the gateway's client signs; at the surfaces for stock clients with a secret. What has to be sealed or
signed is real, cut off, or rubbish.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests
import schemathesis
import yaml
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from factory import FakeClock, befriend, drafts, link_to, loopback, make_node, make_set, serving, sha256, signed_card_of
from gateway import keyring
from gateway.adapters.ncmec import NAMESPACE, Member
from gateway.callers import ASSERTION_TYPE, GRANT_TYPE, Callers, Scope
from gateway.client import ENVELOPE_TYPE, FORM_TYPE
from gateway.crypto.keys import SYSTEM_RANDOM, new_message_id
from gateway.crypto.tokens import make_assertion, make_dpop
from gateway.doors.hashsharing import XML_TYPES
from gateway.exchange import Exchange, largevalues
from gateway.exchange.collections import collection_id, inbox_id
from gateway.interchange import START
from gateway.model import EntryDraft
from gateway.node import Node
from gateway.sync import PartnerSync

CONTRACT = Path(__file__).parents[1] / "contracts" / "openapi.yaml"
PROOF = {"$ref": "#/components/parameters/Proof"}
PREFIXES = {Scope.TAXII: "/taxii2/", Scope.HASHSHARING: "/hashsharing/"}
FOUND, INBOX = "XA-NCVI/found", "XA-NCVI/from-xb-ncvi"
INBOX_PATH = "/taxii2/hashes/collections/{collection}/objects/"
INBOX_ONLY = {("post", "collection"), ("delete", "collection")}
FEEDBACK = f'<feedbackSubmission xmlns="{NAMESPACE}"><affirmative /></feedbackSubmission>'.encode()
# What has the right form may still be wrong, for what it says or when it comes: 400 is an answer to it.
REFUSED = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "429"]
FRAMING = {"connection", "content-encoding", "content-length", "expect", "host", "transfer-encoding", "upgrade"}
UNCHECKED = ("positive_data_acceptance",)


def load_contract() -> dict[str, Any]:
    """The contract as it is published."""
    contract: dict[str, Any] = yaml.safe_load(CONTRACT.read_text(encoding="utf-8"))
    return contract


def _without_framing(_context: Any, headers: dict[str, Any] | None) -> dict[str, Any] | None:
    """Made-up headers but those by which a request is refused before its operation is looked at: see `test_guards`."""
    return headers and {name: value for name, value in headers.items() if name.lower() not in FRAMING}


@dataclass
class Signer(requests.auth.AuthBase):
    """Lets each request in as XB's own, by the gateway's own signing code."""

    node: Node
    url: str
    secrets: dict[Scope, str]
    token: str = ""
    nonce: str | None = None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        path = urlsplit(str(request.url)).path
        surface = next((scope for scope, prefix in PREFIXES.items() if path.startswith(prefix)), None)
        if surface is not None:
            return requests.auth.HTTPBasicAuth(self.node.agency, self.secrets[surface])(request)
        if path == "/v1/token":
            self._assert(request)
        elif path.startswith("/v1/"):
            request.headers["Authorization"] = f"DPoP {self._token()}"
            request.headers["DPoP"] = self._proof(str(request.method), path, self.token)
        return request

    def _token(self) -> str:
        while not self.token:
            form = {"grant_type": GRANT_TYPE, "client_assertion_type": ASSERTION_TYPE}
            form["client_assertion"] = self._assertion()
            headers = {"DPoP": self._proof("POST", "/v1/token"), "Content-Type": FORM_TYPE}
            answer = requests.post(f"{self.url}/v1/token", data=urlencode(form), headers=headers, timeout=30)
            self.nonce = answer.headers.get("DPoP-Nonce", self.nonce)
            self.token = answer.json().get("access_token", "")
        return self.token

    def _assert(self, request: requests.PreparedRequest) -> None:
        """A token request with everything that cannot be made up: the proof, and a real assertion for one made up."""
        request.headers["DPoP"] = self._proof("POST", "/v1/token")
        body = request.body.decode("latin-1") if isinstance(request.body, bytes) else request.body
        form = dict(parse_qsl(str(body or ""), keep_blank_values=True))
        if form.get("client_assertion"):
            request.prepare_body({**form, "client_assertion": self._assertion()}, None)

    def _assertion(self) -> str:
        jti = new_message_id(SYSTEM_RANDOM)
        return make_assertion(self.node.keystore.token_key, self.node.agency, self.url, self.node.clock(), jti)

    def _proof(self, method: str, path: str, token: str | None = None) -> str:
        key, now, jti = self.node.keystore.token_key, self.node.clock(), new_message_id(SYSTEM_RANDOM)
        return make_dpop(key, method, self.url + path, now, jti, access_token=token, nonce=self.nonce)


@dataclass
class Report:
    """What a run found. `answers` counts statuses by operation."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)  # title and operation -> what happened, once each

    @property
    def succeeded(self) -> set[str]:
        """The operations that answered with success at least once."""
        return {label for label, status in self.answers if status < 300}

    def take(self, event: events.EngineEvent) -> None:
        """Count what an event of the engine tells."""
        if isinstance(event, events.NonFatalError | events.FatalError):
            self.failures[f"error: {getattr(event, 'label', '')}"] = str(getattr(event, "value", event))
        if not isinstance(event, events.ScenarioFinished):
            return
        for key, interaction in event.recorder.interactions.items():
            if interaction.response is not None:
                label = event.recorder.cases[key].value.operation.label
                self.answers[label, interaction.response.status_code] += 1
        for key, checks in event.recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    failure = check.failure_info.failure
                    title = f"{event.recorder.cases[key].value.operation.label}: {check.name}"
                    self.failures.setdefault(title, f"{failure.message}\n{check.failure_info.code_sample}")


class ContractRun:
    """XA served in a thread of its own, and XB that asks."""

    def __init__(self, place: Path, *, seed: int) -> None:
        clock = FakeClock()
        self._seed = seed
        self.xa = Exchange(make_node(place, "XA-NCVI", clock=clock, **loopback(public_docs=True)))
        self.xb = Exchange(make_node(place, "XB-NCVI", clock=clock))
        befriend(self.xa.node, self.xb.node)
        # Perceptual digests may go over TLS alone here, so that there is a large fingerprint to ask for.
        texts, surfaces = dict(self.xa.node.policies.texts), "00-federation/surfaces.cedar"
        texts[surfaces] = texts[surfaces].replace('Action::"share_perceptual_digests",', "")
        self.xa.node.policies.take_up(texts, self.xa.node.today)
        make_set(self.xa, "found")
        large = {"tmk_pdqf": largevalues.keep(self.xa.node, FOUND, b"a fingerprint of a made-up video")}
        entries = [EntryDraft({"sha256": sha256(f"{n}"), "md5": sha256(f"{n}")[:16]} | large) for n in range(20)]
        self.xa.ledger.import_entries(FOUND, entries, actor="tester", form="test")
        clock.advance(2)
        url = self.xa.node.settings.public_url
        self.signer = Signer(self.xb.node, url, {scope: self._secret(scope) for scope in PREFIXES})
        self._posted = {ENVELOPE_TYPE: self._envelopes()} | {kind: [FEEDBACK] for kind in XML_TYPES}
        make_set(self.xa, INBOX.partition("/")[2])
        self._loop = asyncio.new_event_loop()
        self._ready, self._over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        self._objects, self._there = self._look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)
        for exchange in (self.xa, self.xb):
            exchange.node.store.close()

    def _serve(self) -> None:
        async def until_over() -> None:
            async with serving(self.xa):
                self._ready.set()
                await self._over.wait()

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(until_over())

    def _secret(self, scope: Scope) -> str:
        with self.xa.node.store.transaction() as tx:
            assert tx.secrets.open("XB-NCVI", str(scope), self.xa.node.clock(), "a proposal")
        return Callers(self.xa.node).issue_secret("XB-NCVI", scope, 30, "duty-officer")[1]

    def _envelopes(self) -> list[bytes]:
        """Heads and pages of XB for XA."""
        made = []
        for name in ("listed", "listed-too"):
            full = make_set(self.xb, name, drafts(3))
            made.append(self.xb.head_for("XA-NCVI", full).body)
            page = self.xb.page_to_push("XA-NCVI", full, START)
            assert page is not None
            made.append(page.body)
        return made

    def run(self, *, examples: int, contract: dict[str, Any] | None = None) -> Report:
        """Every operation asked with the corners of its schema and, beyond them, `examples` times.

        Args:
            contract: what to hold the answers against, if not the contract of this gateway. It is changed.
        """
        report, told = Report(), contract or load_contract()
        schema = schemathesis.openapi.from_dict(self._askable(told), config=self._config(examples))
        schema.auth.set_from_requests(self.signer)
        schema.hook("map_headers")(_without_framing)
        for kind, bodies in self._posted.items():
            real = st.sampled_from(bodies)
            cut = st.builds(lambda whole, at: whole[:at], real, st.integers(0, 4000))
            schemathesis.openapi.media_type(kind, st.one_of(real, cut, st.binary(max_size=200)))
        for event in from_schema(schema).execute():
            report.take(event)
        return report

    def _look(self) -> tuple[list[Any], dict[str, list[Any]]]:
        """STIX objects that XA serves, and by the name of a parameter what there really is."""

        def ask(method: str, path: str, **options: Any) -> requests.Response:
            answer = requests.request(method, self.signer.url + path, auth=self.signer, timeout=30, **options)
            assert answer.ok, answer.text
            return answer

        found = collection_id(FOUND)
        served = ask("GET", INBOX_PATH.format(collection=found)).json()["objects"]
        kind = {"Content-Type": "application/taxii+json;version=2.1"}
        sent = ask("POST", INBOX_PATH.format(collection=inbox_id(INBOX)), json={"objects": served}, headers=kind)
        listed = ask("GET", "/hashsharing/v2/entries").text
        self.xb.take_head("XA-NCVI", self.xa.head_for("XB-NCVI", FOUND, set()).body)
        asyncio.run(self._exchange())
        return served, {
            "agency": ["XA-NCVI"],
            "name": ["found"],
            "collection": [found],
            "object": [one["id"] for one in served],
            "status": [sent.json()["id"]],
            "member": [str(Member("XA-NCVI").number)],
            "entry": re.findall("<id>([^<]+)</id>", listed),
            "type": ["MD5", "TMK_PDQF"],
            "card": [hashlib.sha256(signed_card_of(self.xa.node)).hexdigest()],
            "view": [""],
            "epoch": [0, 1],
            "seq": [0],
            "old": [1, 2],
            "new": [2, 3],
            "size": [1, 2],
            "after": [0],
        }

    async def _exchange(self) -> None:
        """XB tells XA its keys, cosigns and pulls; what it posts for that can be sent again."""
        async with link_to(self.xa.node, self.xb.node) as link:
            request = link._request

            async def noted(method: str, path: str, **options: Any) -> Any:
                if method == "POST" and path != "/v1/token":
                    self._posted.setdefault(options["headers"]["Content-Type"], []).append(options["body"])
                return await request(method, path, **options)

            link._request = noted  # type: ignore[method-assign]
            sync = PartnerSync(self.xb, link, "XA-NCVI")
            await sync.witness()
            await sync.pull()
            await link.post_keys(keyring.own_news(self.xb.node).dump())

    def _askable(self, contract: dict[str, Any]) -> dict[str, Any]:
        """The contract without the proof among its parameters: nobody can make one up, the signer brings it."""
        for item in contract["paths"].values():
            for word, holder in (("", item), *item.items()):
                if isinstance(holder, dict):
                    asked = [one for one in holder.get("parameters", ()) if one != PROOF]
                    holder["parameters"] = [self._reaching(contract, word, one) for one in asked]
        inbox = contract["paths"].get(INBOX_PATH)
        for one in inbox["post"]["requestBody"]["content"].values() if inbox else ():
            one["example"] = {"objects": self._objects}
        return contract

    def _reaching(self, contract: dict[str, Any], method: str, parameter: dict[str, Any]) -> dict[str, Any]:
        """A parameter that is often what there really is: nobody makes up the id of an object."""
        if "$ref" in parameter:
            parameter = contract["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
        name = parameter["name"]
        there = [inbox_id(INBOX)] if (method, name) in INBOX_ONLY else self._there.get(name)
        return {**parameter, "schema": {"anyOf": [{"enum": there}, parameter["schema"]]}} if there else parameter

    def _config(self, examples: int) -> SchemathesisConfig:
        return SchemathesisConfig.from_dict(
            {
                "seed": self._seed,
                "base-url": self.signer.url,
                "workers": 1,
                "continue-on-failure": True,
                "generation": {"max-examples": examples, "database": "none"},
                "checks": {name: {"enabled": False} for name in UNCHECKED}
                | {"negative_data_rejection": {"enabled": True, "expected-statuses": REFUSED}},
            }
        )
