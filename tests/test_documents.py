"""The contract as a page: complete, made from the contract, harmless in a browser, and for whom it is meant."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from factory import FakeClock, loopback, make_node, serving
from gateway.doors.documents import content_policy
from gateway.exchange import Exchange
from gateway.problem_words import INTERNAL, TYPE_PREFIX, WORDS

ROOT = Path(__file__).parents[1]
YAML = (ROOT / "contracts" / "openapi.yaml").read_bytes()
HTML = (ROOT / "contracts" / "openapi.html").read_bytes()
CONTRACT: dict[str, Any] = yaml.safe_load(YAML)
SCRIPT = ROOT / "scripts" / "contract_page.py"
SCRIPT_NAMES: dict[str, Any] = {"__name__": "contract_page", "__file__": str(SCRIPT)}
exec(compile(SCRIPT.read_text(), str(SCRIPT), "exec"), SCRIPT_NAMES)
page = SCRIPT_NAMES["page"]
UNCLOSED = {"meta"}


class Reader(HTMLParser):
    """What stands in a page: its tags, ids, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in UNCLOSED:
            self._open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(str(value))
            if name == "href":
                self.links.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


READ = Reader(HTML.decode())


def test_the_page_is_what_the_contract_says_now() -> None:
    assert page(CONTRACT).encode() == HTML, "run scripts/contract_page.py"


def test_each_operation_and_shared_part_has_an_anchor_and_every_link_leads_to_one() -> None:
    operations = [one["operationId"] for item in CONTRACT["paths"].values() for one in item.values() if "tags" in one]
    shared = [(kind, name) for kind in ("parameters", "headers", "responses", "schemas") for name in _shared(kind)]
    assert len(READ.ids) == len(set(READ.ids))
    assert set(READ.ids) >= {f"op-{name}" for name in operations} | {f"{kind}-{name}" for kind, name in shared}
    assert {link.removeprefix("#") for link in READ.links} <= set(READ.ids)


def _shared(kind: str) -> list[str]:
    return list(CONTRACT["components"][kind])


def test_no_sentence_or_status_of_the_contract_is_left_out() -> None:
    shown = " ".join(READ.text.split())
    found = 0
    for sentence in _sentences(CONTRACT):
        if sentence != CONTRACT["servers"][0]["description"]:
            assert " ".join(sentence.replace("`", "").split()) in shown, sentence
            found += 1
    assert found > 100


def _sentences(node: Any) -> list[str]:
    if isinstance(node, list):
        return [one for part in node for one in _sentences(part)]
    if not isinstance(node, dict):
        return []
    paragraphs = [
        paragraph
        for word in ("description", "summary")
        if isinstance(node.get(word), str)
        for paragraph in node[word].strip().split("\n\n")
    ]
    return paragraphs + [one for part in node.values() for one in _sentences(part)]


def test_the_page_has_no_script_and_fetches_nothing() -> None:
    assert not READ.tags.keys() & {"script", "link", "img", "iframe", "form", "object", "embed", "svg", "base"}
    assert not {name for name in READ.attributes if name.startswith("on")} | READ.attributes & {"src", "style"}
    (style,) = re.findall(rb"<style>(.*?)</style>", HTML, re.S)
    assert not re.search(rb"url\(|@import|https?:", style)
    assert all(link.startswith("#") for link in READ.links)


def test_what_looks_like_markup_in_a_contract_is_shown_as_text() -> None:
    bad = "<script>alert(1)</script>"
    described = {**CONTRACT, "info": {**CONTRACT["info"], "title": bad, "description": f"`{bad}`"}}
    read = Reader(page(described))
    assert read.tags["script"] == 0
    assert read.text.count(bad) >= 2


def test_a_keyword_that_the_page_would_leave_out_is_refused() -> None:
    shared = CONTRACT["components"]
    with pytest.raises(ValueError, match="multipleOf"):
        page({**CONTRACT, "components": {**shared, "schemas": {"Odd": {"type": "integer", "multipleOf": 2}}}})


def test_the_contract_lists_every_problem() -> None:
    listed = CONTRACT["components"]["schemas"]["Problem"]["properties"]["type"]["oneOf"]
    words = [one["const"] for one in listed]
    assert sorted(words) == sorted([*(TYPE_PREFIX + word for word in [*WORDS.values(), INTERNAL]), "about:blank"])


@pytest.mark.parametrize(
    ("public", "host", "there"),
    [(False, "127.0.0.1", True), (False, "xa.example", False), (True, "xa.example", True)],
)
async def test_strangers_read_the_contract_only_where_the_settings_say_so(
    tmp_path: Path, public: bool, host: str, there: bool
) -> None:
    settings = loopback(public_docs=public) | {"public_url": "https://xa.example"}  # as behind a proxy here
    xa = Exchange(make_node(tmp_path, "XA-NCVI", clock=FakeClock(), **settings))
    async with serving(xa) as server, aiohttp.ClientSession() as session:

        async def ask(path: str) -> tuple[int, bytes]:
            url = f"http://127.0.0.1:{server.port}{path}"
            async with session.get(url, headers={"Host": host}) as answer:
                return answer.status, await answer.read()

        nothing = await ask("/nothing")
        assert nothing[0] == 404
        assert await ask("/docs") == ((200, HTML) if there else nothing)
        assert await ask("/openapi.yaml") == ((200, YAML) if there else nothing)


async def test_the_browser_is_told_to_take_nothing_but_the_page(tmp_path: Path) -> None:
    xa = Exchange(make_node(tmp_path, "XA-NCVI", clock=FakeClock(), **loopback()))
    async with serving(xa), aiohttp.ClientSession() as session:
        async with session.get(f"{xa.node.settings.public_url}/docs") as answer:
            headers = answer.headers
        async with session.get(f"{xa.node.settings.public_url}/openapi.yaml") as answer:
            assert answer.headers["Content-Type"] == "application/yaml"
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    (style,) = re.findall(rb"<style>(.*?)</style>", HTML, re.S)
    named = base64.b64encode(hashlib.sha256(style).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy.pop("style-src") == f"'sha256-{named}'"
    assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert set(policy.values()) == {"'none'"}
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_without_a_style_sheet_may_have_none() -> None:
    assert "style-src 'none';" in content_policy(b"<p>plain</p>")
