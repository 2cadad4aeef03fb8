#!/usr/bin/env python3
"""Write `contracts/openapi.html`: the OpenAPI contract as one page for people.

    scripts/contract_page.py            write it anew, after a change of contracts/openapi.yaml
    scripts/contract_page.py --check    exit 1 when it is not what the contract says now

The page has no script and fetches nothing: it reads the same from a gateway (`/docs`), from a file and on paper. Each
operation, parameter, header, response and schema has an anchor of its own. `page` is pure: the same contract gives the
same bytes. It knows the parts of OpenAPI 3.1 that the contract uses, and fails at a keyword that it would leave out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from re import sub
from typing import Any

import yaml  # type: ignore[import-untyped]  # only for who makes the page

CONTRACTS = Path(__file__).parents[1] / "contracts"
METHODS = ("get", "put", "post", "delete")
Node = Mapping[str, Any]

# Words of a schema that stand in its one line, in this order.
_BOUNDS = {
    "format": "{}",
    "pattern": "pattern {}",
    "const": "always {}",
    "enum": "one of {}",
    "minimum": "from {}",
    "maximum": "to {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "maxItems": "at most {} items",
    "default": "else {}",
}
_OTHERS = {"$ref", "type", "title", "description", "properties", "required", "items", "oneOf", "additionalProperties"}

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --line: #d8dde4; --paper: #fdfdfc; --tint: #f2f4f6;
  --link: #1f5f99; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe4ea; --soft: #98a4b3; --line: #343c47; --paper: #161a20;
  --tint: #1e242c; --link: #86b9e8; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.25rem 6rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.4rem; margin: 3.5rem 0 .5rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2.5rem 0 .25rem; overflow-wrap: anywhere; }
h4 { font-size: .85rem; margin: 1.25rem 0 .25rem; color: var(--soft); font-weight: 600; }
p { margin: .4rem 0; }
a { color: var(--link); text-decoration-thickness: 1px; text-underline-offset: .15em; }
h3 a.to { color: inherit; text-decoration: none; }
h3 a.to:hover, h3 a.to:focus-visible { text-decoration: underline; }
code { font: .875em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
h3 code { font-size: 1em; }
.soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: .925rem; }
caption { text-align: left; font-size: .85rem; font-weight: 600; color: var(--soft); padding: 1rem 0 .25rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-top: 1px solid var(--line); }
thead th { font-size: .8rem; font-weight: 600; color: var(--soft); border-top: 0; }
tbody th { font-weight: 600; white-space: nowrap; }
ul.members { margin: .2rem 0 0; padding-left: 1.1rem; }
nav p { font-size: .925rem; margin: 1.25rem 0 0; font-weight: 600; }
nav ul { columns: 18rem 2; column-gap: 2rem; padding-left: 1.1rem; margin: .25rem 0; font-size: .925rem; }
:target { background: var(--tint); outline: .5rem solid var(--tint); }
@media (max-width: 40rem) { tbody th { white-space: normal; overflow-wrap: anywhere; } }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --tint: #fff; --link: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } tr { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; } }
"""


def page(contract: Node) -> str:
    """The contract as an HTML document."""
    return "\n".join(_Page(contract).lines()) + "\n"


class _Page:
    def __init__(self, contract: Node) -> None:
        self._contract = contract
        self._shared = contract["components"]

    def lines(self) -> Iterator[str]:
        info = self._contract["info"]
        title = escape(f"{info['title']}: {info['summary'].rstrip('.')}")
        yield "<!doctype html>"
        yield '<html lang="en">'
        yield f'<head><meta charset="utf-8"><title>{title}</title>'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield f"<style>{STYLE}</style></head>"
        yield "<body>"
        yield f"<header><h1>{escape(info['title'])}</h1>"
        yield f'<p class="soft">{_text(info["summary"])} OpenAPI {escape(self._contract["openapi"])}.</p>'
        for paragraph in info["description"].strip().split("\n\n"):
            yield f"<p>{_text(paragraph)}</p>"
        yield "</header>"
        yield from self._contents()
        yield "<main>"
        yield from self._callers()
        for tag in self._contract["tags"]:
            yield f'<section id="{_id("tag", tag["name"])}"><h2>{escape(tag["name"].capitalize())}</h2>'
            yield f"<p>{_text(tag['description'])}</p>"
            for method, path, item in self._operations(tag["name"]):
                yield from self._operation(method, path, item)
            yield "</section>"
        yield from self._components()
        yield "</main></body></html>"

    def _operations(self, tag: str) -> Iterator[tuple[str, str, Node]]:
        for path, item in self._contract["paths"].items():
            for method in METHODS:
                if method in item and item[method]["tags"] == [tag]:
                    yield method, path, item

    def _contents(self) -> Iterator[str]:
        yield '<nav aria-label="Contents">'
        for tag in self._contract["tags"]:
            yield f'<p><a href="#{_id("tag", tag["name"])}">{escape(tag["name"].capitalize())}</a></p><ul>'
            for method, path, item in self._operations(tag["name"]):
                target = _id("op", item[method]["operationId"])
                yield f'<li><a href="#{target}"><code>{method.upper()} {escape(path)}</code></a></li>'
            yield "</ul>"
        yield "<p>Shared</p><ul>"
        yield '<li><a href="#callers">Who calls</a></li>'
        for name in ("parameters", "headers", "responses", "schemas"):
            yield f'<li><a href="#{name}">{name.capitalize()}</a></li>'
        yield "</ul></nav>"

    def _callers(self) -> Iterator[str]:
        yield '<section id="callers"><h2>Who calls</h2>'
        for name, scheme in self._shared["securitySchemes"].items():
            yield f'<h3 id="{_id("security", name)}">{escape(name)}</h3>'
            yield f"<p>{_text(scheme['description'])}</p>"
            yield f'<p class="soft">HTTP scheme <code>{escape(scheme["scheme"])}</code></p>'
        yield "</section>"

    def _operation(self, method: str, path: str, item: Node) -> Iterator[str]:
        operation = item[method]
        target = _id("op", operation["operationId"])
        yield f'<section id="{target}">'
        yield f'<h3><a class="to" href="#{target}"><code>{method.upper()} {escape(path)}</code></a></h3>'
        yield f"<p>{_text(operation['summary'])}.</p>"
        if "description" in operation:
            yield f"<p>{_text(operation['description'])}</p>"
        yield f'<p class="soft">{self._security(operation)}</p>'
        yield from self._parameters([*item.get("parameters", []), *operation.get("parameters", [])])
        if "requestBody" in operation:
            yield "<h4>Body</h4>"
            yield self._content(operation["requestBody"])
        yield from self._statuses(operation["responses"])
        yield "</section>"

    def _security(self, operation: Node) -> str:
        needed = operation.get("security", self._contract["security"])
        names = [name for one in needed for name in one]
        if not names:
            return "Open to everybody who reaches the gateway."
        return "Needs " + " or ".join(f'<a href="#{_id("security", name)}">{escape(name)}</a>' for name in names) + "."

    def _parameters(self, listed: list[Node]) -> Iterator[str]:
        if not listed:
            return
        yield f"<table><caption>Parameters</caption>{_head('name', 'in', 'what')}<tbody>"
        for one in listed:
            found, link = self._found(one)
            yield f'<tr><th scope="row">{_linked(found["name"], link)}</th><td>{escape(found["in"])}</td>'
            yield f"<td>{self._parameter(found)}</td></tr>"
        yield "</tbody></table>"

    def _parameter(self, found: Node) -> str:
        needed = "" if found.get("required") else '<span class="soft">May be left out.</span> '
        return needed + _sentence(found) + self._schema(found["schema"])

    def _statuses(self, responses: Node) -> Iterator[str]:
        yield f"<table><caption>Answers</caption>{_head('status', 'what')}<tbody>"
        for status, one in responses.items():
            found, link = self._found(one)
            yield f'<tr><th scope="row">{_linked(status, link)}</th>'
            yield f"<td>{_text(found['description'])}" + ("" if link else self._rest(found)) + "</td></tr>"
        yield "</tbody></table>"

    def _rest(self, response: Node) -> str:
        headers = []
        for name, one in response.get("headers", {}).items():
            found, link = self._found(one)
            headers.append(f"<li>{_linked(name, link)}" + ("" if link else f": {self._header(found)}") + "</li>")
        listed = f'<ul class="members">{"".join(headers)}</ul>' if headers else ""
        return listed + self._content(response)

    def _header(self, found: Node) -> str:
        needed = "" if found.get("required") else '<span class="soft">Not always.</span> '
        return needed + _sentence(found) + self._schema(found["schema"])

    def _content(self, holder: Node) -> str:
        shown = [
            f"<li><code>{escape(kind)}</code>"
            + (f": {self._schema(one['schema'])}" if "schema" in one else "")
            + "</li>"
            for kind, one in holder.get("content", {}).items()
        ]
        return f'<ul class="members">{"".join(shown)}</ul>' if shown else ""

    def _components(self) -> Iterator[str]:
        kinds = {
            "parameters": self._parameter,
            "headers": self._header,
            "responses": lambda one: _text(one["description"]) + self._rest(one),
            "schemas": lambda one: _sentence(one) + self._schema(one, described=True),
        }
        for kind, shown in kinds.items():
            yield f'<section id="{kind}"><h2>{kind.capitalize()}</h2>'
            for name, one in self._shared[kind].items():
                title = f"{one['name']} ({one['in']})" if kind == "parameters" else name
                yield f'<h3 id="{_id(kind, name)}">{escape(title)}</h3>'
                yield f"<div>{shown(one)}</div>"
            yield "</section>"

    def _schema(self, schema: Node, *, described: bool = False) -> str:
        """A schema as a line and, below, its members. `described`: its description stands before it already."""
        unknown = set(schema) - set(_BOUNDS) - _OTHERS
        if unknown:
            raise ValueError(f"the page would leave out {sorted(unknown)} of a schema")
        words = [_linked(schema["$ref"].rpartition("/")[2], _anchor(schema["$ref"]))] if "$ref" in schema else []
        if "type" in schema:
            words.append("list of" if schema["type"] == "array" and "items" in schema else escape(schema["type"]))
        words += [form.format(_value(schema[word])) for word, form in _BOUNDS.items() if word in schema]
        line = ", ".join(words).replace("list of, ", "list, ")
        told = "" if described else _sentence(schema)
        return told + (f'<span class="soft">{line}</span>' if line else "") + self._members(schema)

    def _members(self, schema: Node) -> str:
        rows = []
        if "items" in schema:
            rows.append(f"<li>each: {self._schema(schema['items'])}</li>")
        for one in schema.get("oneOf", []):
            rows.append(f"<li>{self._schema(one)}</li>")
        for name, one in schema.get("properties", {}).items():
            needed = "" if name in schema.get("required", ()) else ' <span class="soft">(may be missing)</span>'
            rows.append(f"<li><code>{escape(name)}</code>{needed}: {self._schema(one)}</li>")
        if "properties" in schema and schema.get("additionalProperties", True) is not False:
            rows.append('<li class="soft">other members are passed over</li>')
        return f'<ul class="members">{"".join(rows)}</ul>' if rows else ""

    def _found(self, node: Node) -> tuple[Node, str]:
        """What a reference leads to, and its anchor; a node that is none is itself, without one."""
        if "$ref" not in node:
            return node, ""
        _, _, kind, name = node["$ref"].split("/")
        return self._shared[kind][name], _anchor(node["$ref"])


def _head(*names: str) -> str:
    cells = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>"


def _id(kind: str, name: str) -> str:
    return f"{kind}-{name.replace(' ', '-')}"


def _anchor(reference: str) -> str:
    _, _, kind, name = reference.split("/")
    return _id(kind, name)


def _linked(name: str, target: str) -> str:
    shown = f"<code>{escape(str(name))}</code>"
    return f'<a href="#{target}">{shown}</a>' if target else shown


def _sentence(node: Node) -> str:
    return f"{_text(node['description'])} " if "description" in node else ""


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value)) if value else "nothing"
    return f"<code>{escape(str(value))}</code>"


def _text(text: str) -> str:
    """A sentence of the contract; what stands between backticks is code."""
    return sub(r"`([^`]+)`", r"<code>\1</code>", escape(" ".join(text.split()), quote=False))


def main(arguments: list[str]) -> int:
    """Write the page, or only compare it."""
    made = page(yaml.safe_load((CONTRACTS / "openapi.yaml").read_text(encoding="utf-8")))
    target = CONTRACTS / "openapi.html"
    if arguments == ["--check"]:
        return 0 if target.is_file() and target.read_text(encoding="utf-8") == made else 1
    target.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
