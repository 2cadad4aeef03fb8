"""The chain of custody as one page to print: no script, nothing from elsewhere, every word escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from gateway.cases.custody import Check, Custody, Step, Verdict

_MARKS = {Verdict.VERIFIED: "✓", Verdict.NOT_PROVED: "–", Verdict.BROKEN: "✗"}
_CLASSES = {Verdict.VERIFIED: "good", Verdict.NOT_PROVED: "open", Verdict.BROKEN: "bad"}
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Chain of custody of case {case}</title>
<style>
body {{ font: 14px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #111; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1rem; margin: 1.2rem 0 .2rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .3rem 0; }}
dt {{ color: #555; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
section {{ border-left: .3rem solid #999; padding-left: .8rem; break-inside: avoid; }}
section.good {{ border-color: #1a7f37; }} section.bad {{ border-color: #b00020; }}
.verdict {{ font-weight: 600; }} code {{ font-size: .85em; }}
@media print {{ @page {{ margin: 1.5cm; }} body {{ margin: 0; max-width: none; font-size: 10pt; }} }}
</style>
</head>
<body>
<h1>Chain of custody</h1>
<dl>
<dt>Case</dt><dd>{reference}</dd>
<dt>Local id</dt><dd><code>{case}</code>, {state}</dd>
<dt>As {agency} has it</dt><dd>{at}</dd>
<dt>Log</dt><dd>{origin}, tree of {size} leaves, root <code>{root}</code></dd>
<dt>The whole chain</dt><dd class="verdict">{verdict}</dd>
</dl>
<p>Each step is a leaf of the log named above. "Verified" says that the log holds it and, where a partner is in it, that
the partner's own log or signature bears it out. "Not proved" says that nothing contradicts it and something is lacking.
"Broken" says that something that is there does not hold.</p>
{steps}</body>
</html>
"""


def page(custody: Custody) -> bytes:
    """The chain of custody as a page."""
    reference = (
        f"{custody.originator} {custody.reference}" if custody.reference else f"{custody.originator}, erased here"
    )
    return _PAGE.format(
        case=escape(custody.case),
        reference=escape(reference),
        state=escape(custody.state),
        agency=escape(custody.agency),
        at=_when(custody.at),
        origin=escape(custody.origin),
        size=custody.head.size,
        root=custody.head.root.hex(),
        verdict=escape(custody.verdict),
        steps="".join(_step(number, one) for number, one in enumerate(custody.steps, 1)),
    ).encode()


def _step(number: int, step: Step) -> str:
    facts = [
        ("By", step.who),
        ("Partner", step.partner),
        ("Thread", step.thread),
        ("Version", str(step.version or "")),
        ("Report, SHA-256", step.digest),
    ]
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>\n" for name, value in facts if value)
    return (
        f'<section class="{_CLASSES[step.verdict]}">\n<h2>{number}. {_when(step.at)}: {escape(step.deed)}</h2>\n'
        f"<dl>\n{rows}{''.join(map(_check, step.checks))}"
        f'<dt>This step</dt><dd class="verdict">{step.verdict}</dd>\n</dl>\n</section>\n'
    )


def _check(one: Check) -> str:
    return f"<dt>{escape(one.what)}</dt><dd>{_MARKS[one.verdict]} {one.verdict}: {escape(one.why)}</dd>\n"


def _when(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
