"""A client of the console that is no browser: it sends what it is told to, headers of attackers included."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

COOKIE = "__Host-gateway-session"


@dataclass
class Reply:
    """An answer, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Client:
    """Somebody with a cookie, or nobody."""

    address: str
    cookie: str = ""
    form_token: str = ""
    more: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str | None] | None = None,
        form_token: str | None = None,
        raw: bytes | None = None,
        response: Any = None,
        **fields: str,
    ) -> Reply:
        """One request. `headers` replace what a browser on a page of ours would send; None leaves one out."""
        sent: dict[str, str | None] = {"Origin": self.address, "Sec-Fetch-Site": "same-origin", **self.more}
        if self.cookie:
            sent["Cookie"] = f"{COOKIE}={self.cookie}"
        if response is not None:
            fields["response"] = json.dumps(response)
            sent["Accept"] = "application/json"
        body = None
        if method == "POST":
            fields["form_token"] = self.form_token if form_token is None else form_token
            body = urlencode(fields) if raw is None else raw
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        sent.update(headers or {})
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)
        try:
            wanted = {name: value for name, value in sent.items() if value is not None}
            connection.request(method, path, body, {"Host": parts.netloc, **wanted})
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def watch(self, path: str) -> http.client.HTTPResponse:
        """A page that follows by itself, as a stream of server-sent events."""
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)
        headers = {"Host": parts.netloc, "Accept": "text/event-stream", "Cookie": f"{COOKIE}={self.cookie}"}
        connection.request("GET", path, headers=headers)
        return connection.getresponse()
