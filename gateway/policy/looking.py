"""What rules look at: which attributes of a request can change a decision, and which texts they are compared with.

An attribute that no rule looks at makes no difference, so a table of the whole policy need not go through its words.
What cannot be told apart counts as looked at. It serves for choosing what is shown: nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

LABEL = (
    *("set_name", "originator", "jurisdiction", "handling", "category", "victim_status"),
    *("evaluation.source", "evaluation.information", "legal_basis", "restrictions", "onward"),
)
PARTNER = ("principal.agency", "principal.jurisdiction")
JOINING = {"&&", "||", "!", "if-then-else"}
_ALL = {"resource": LABEL, "principal": PARTNER, "evaluation": LABEL[6:8]}

Form = Mapping[str, object]


def looks_at(forms: Iterable[Form]) -> dict[str, frozenset[str]]:
    """Attributes that the conditions of rules look at, each with the texts that stand beside it.

    Args:
        forms: rules in Cedar's JSON form.

    Returns:
        names as in `LABEL`, `PARTNER` and "context.purpose"; an attribute that is compared with no text has none.
    """
    found: dict[str, set[str]] = {}
    for form in forms:
        for comparison in _comparisons(form.get("conditions")):
            texts = set(_texts(comparison))
            for path in _paths(comparison):
                found.setdefault(path, set()).update(texts)
    return {path: frozenset(texts) for path, texts in sorted(found.items())}


def _comparisons(node: object) -> Iterator[object]:
    """The parts that `&&`, `||`, `!` and `if` join."""
    if isinstance(node, list):
        for one in node:
            yield from _comparisons(one)
    elif isinstance(node, dict):
        if "body" in node:
            yield from _comparisons(node["body"])
        elif JOINING.isdisjoint(node):
            yield node
        else:
            for operand in node.values():
                yield from _comparisons(list(operand.values()) if isinstance(operand, dict) else operand)


def _paths(node: object) -> Iterator[str]:
    """The attributes that an expression names; all of them where it takes the whole."""
    whole = _name(node)
    if whole is not None:
        yield from _ALL.get(whole, (whole,))
    elif isinstance(node, dict):
        for operand in node.values():
            yield from _paths(operand)
    elif isinstance(node, list):
        for one in node:
            yield from _paths(one)


def _name(node: object) -> str | None:
    """`resource.handling` as "handling", `principal.agency` as it stands, None for what names nothing."""
    if not isinstance(node, dict):
        return None
    if "Var" in node:
        return str(node["Var"])
    inner = node.get(".") or node.get("has")
    if not isinstance(inner, dict):
        return None
    left = _name(inner.get("left"))
    if left is None:
        return None
    named = str(inner.get("attr", ""))
    return named if left == "resource" else f"{left}.{named}"


def _texts(node: object) -> Iterator[str]:
    """The texts of an expression; a pattern as a text that fits it."""
    if isinstance(node, list):
        for one in node:
            yield from _texts(one)
    elif isinstance(node, dict):
        if isinstance(node.get("Value"), str):
            yield str(node["Value"])
        elif isinstance(node.get("pattern"), list):
            yield "".join(str(one["Literal"]) if isinstance(one, dict) else "1" for one in node["pattern"])
        else:
            for operand in node.values():
                yield from _texts(operand)
