"""The doors: HTTP in. One module per surface, and what all of them stand behind.

- `framing`: which bytes are a request at all (HTTP/1.1, stricter than the standard; no socket inside).
- `limits`: how much one caller, and all of them, may take.
- `connection`: one connection within every deadline, and the start-up check.
- `guards`: the server and its middleware: `run_server` is what `app` calls.
- `entrance`: who may come in: authenticates, then holds each partner to its own rate.
- `wire`: strict queries, canonical JSON answers.
- `oauth`, `native`, `log`, `ops`: the surfaces: tokens; sets, envelopes, mailboxes; the audit log; health, metrics.
- `hashsharing`, `taxii`: surfaces for stock clients, NCMEC's hash-sharing API v2 and TAXII 2.1.
- `documents`: the public contract, as OpenAPI and as a page.
- `answers`: problems instead of stack traces, and the headers of every answer.
- `loglines`: log records as JSON lines that cannot be forged from outside.

A door reads the clock, authenticates the caller, calls one deed and renders its answer. It decides nothing itself.
"""
