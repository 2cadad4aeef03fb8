"""Policy to look at: what is in force, the matrix as a heat map, one square of it in sentences, and what was in force.

The matrix is a table: partners across, labels down, and in each square the number of what is allowed. Its colour says
the same again. A square leads to a page of its own, which has an address that can be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from itertools import islice
from typing import TypeVar
from urllib.parse import urlencode

from gateway.console.pages import EVERY_ROLE, Answer, Desk, Page, Redirect, Route, Visit, get
from gateway.errors import MalformedError, NotFoundError, TooLargeError
from gateway.model import ENTRY_GROUPS, Label, Purpose, Surface
from gateway.policy import (
    Action,
    Explanation,
    Grid,
    LabelInSet,
    PartnerRef,
    PolicySet,
    Question,
    ShareRequest,
    duty_words,
)
from gateway.policy.matrix import SHARED, Matrix, asked_words
from gateway.policyhistory import reigns, signers_by_key, since_when
from gateway.policymatrix import chosen_label, own_labels, parties
from gateway.standing import PolicyWord, policy_in_force, policy_waiting

MAX_PARTNERS, MAX_LABELS = 40, 60  # of one page; the rest is a page further, or behind a choice
LAPSES_DAYS = 180  # how far ahead a lapse is told
HEAT_STEPS = 5
WITH_PURPOSE = (Action.LOOK_UP, Action.REFER)
WORDS = ("originator", "jurisdiction", "handling", "category", "victim_status", "evaluation", "legal_basis")
LISTS = ("restrictions", "onward")
QUERY = ("set", "partner", "asked", "purpose", "surface", "describe")
ENTRY_ACTIONS = frozenset(Action.share(group) for group in ENTRY_GROUPS)
MOST = 10**9

W = TypeVar("W", bound=StrEnum)


# What is in force, and the matrix


def policy(desk: Desk, visit: Visit) -> Answer:
    """What is in force, and what it allows whom."""
    policies = desk.node.policy
    chosen = _Chosen(desk, visit, policies)
    squares, problem = None, None
    try:
        squares = chosen.squares(chosen.matrix(desk))
    except TooLargeError as error:
        problem = error
    values = {
        **_in_force(desk, policies),
        "chosen": chosen,
        "squares": squares,
        "problem": problem,
        "asked_words": [asked_words(one) for one in chosen.asked],
        "actions": [(str(one), asked_words(Question(one))) for one in Action],
        "purposes": [(str(one), one.replace("_", " ")) for one in Purpose],
        "surfaces": [(str(one), one.replace("_", " ")) for one in Surface],
    }
    return Page("policy.html", values)


class _Chosen:
    """What somebody wants to see of the matrix, and what had to be left out of one page.

    Raises:
        NotFoundError: a set or a partner that this gateway does not have.
        MalformedError: a word outside its list.
    """

    def __init__(self, desk: Desk, visit: Visit, policies: PolicySet) -> None:
        self._visit = visit
        self._policies = policies
        self.query = {name: visit.query.get(name, "") for name in QUERY}
        self.describe = self.query["describe"] == "1"
        self._surface = _word(Surface, self.query["surface"] or Surface.SEALED, "surface")
        self.asked = _questions(self.query["asked"], self.query["purpose"])
        with desk.node.store.reading() as tx:
            every, partners = own_labels(tx), parties(tx, policies)
        self.sets = sorted({one.held.set_name for one in every})
        self.every_partner = [one.agency for one in partners]
        self._labels = [one for one in every if self.query["set"] in ("", one.held.set_name)]
        named = [one for one in partners if self.query["partner"] in ("", one.agency)]
        if (self.query["partner"] and not named) or (self.query["set"] and not self._labels):
            raise NotFoundError("this gateway has no such partner, or no label in such a set")
        self._set_name = self.query["set"] or (self.sets[0] if self.sets else f"{desk.node.agency}/list")
        self._at = visit.number("from", 0, most=MOST)
        across = visit.number("across", 0, most=MOST)
        self._partners = tuple(named[across : across + MAX_PARTNERS])
        self.partners_turns = self._turns("across", across, MAX_PARTNERS, len(named))
        self.partner_count = len(named)

    def matrix(self, desk: Desk) -> Matrix:
        """What is decided of it.

        Raises:
            TooLargeError: more than one page takes.
        """
        if self.describe:
            return desk.matrices.described(self._policies, self._set_name, self._partners, self._surface, self.asked)
        labels = self._labels[self._at : self._at + MAX_LABELS]
        grid = Grid(self._partners, self._surface, tuple(one.held for one in labels), self.asked)
        return desk.matrices.of(self._policies, grid, [one.name for one in labels])

    def squares(self, matrix: Matrix) -> dict[str, object]:
        """The matrix for its template: each row with its name, and for each partner number, shade and address."""
        skipped = self._at if self.describe else 0  # labels that were described are decided all at once
        steps = len(self.asked)
        rows = []
        for number, (name, held, cells) in enumerate(islice(matrix.rows(), skipped, skipped + MAX_LABELS)):
            address = self._address(number, held)
            squares = [
                (cell.allowed, -(-cell.allowed * HEAT_STEPS // steps), f"{address}&partner={cell.partner.agency}")
                for cell in cells
            ]
            rows.append((name, squares))
        count = len(matrix.names) if self.describe else len(self._labels)
        return {
            "rows": rows,
            "partners": [partner.agency for partner in self._partners],
            "turns": self._turns("from", self._at, MAX_LABELS, count),
            "first": self._at + 1,
            "last": self._at + len(rows),
            "count": count,
        }

    def _address(self, row: int, held: LabelInSet) -> str:
        """The beginning of the addresses of a row's squares; the partner comes behind it."""
        if self.describe:
            words = {name: str(getattr(held.label, name)) for name in WORDS}
            words |= {name: " ".join(getattr(held.label, name)) for name in LISTS}
        else:
            words = {"label": str(self._labels[self._at + row].number)}
        return f"/policy/cell?{urlencode({'set': held.set_name, **words, 'surface': str(self._surface)})}"

    def _turns(self, name: str, at: int, size: int, count: int) -> dict[str, str]:
        """Where the pages before and behind this one are."""
        kept = {one: self._visit.query[one] for one in (*QUERY, "from", "across") if one in self._visit.query}
        before, behind = (f"/policy?{urlencode({**kept, name: place})}" for place in (max(0, at - size), at + size))
        return {"before": before if at else "", "behind": behind if at + size < count else ""}


def _questions(asked: str, purpose: str) -> tuple[Question, ...]:
    """One thing, or the field groups of entries."""
    if not asked:
        return SHARED
    action = _word(Action, asked, "asked")
    if action not in WITH_PURPOSE:
        return (Question(action),)
    return (Question(action, _word(Purpose, purpose or Purpose.VICTIM_IDENTIFICATION, "purpose")),)


def _word(words: type[W], text: str, name: str) -> W:
    try:
        return words(text)
    except ValueError as error:
        raise MalformedError(f"'{name}' is none of its words") from error


def _in_force(desk: Desk, policies: PolicySet) -> dict[str, object]:
    """Which policy decides, since when, by whose word, and what will change by itself."""
    with desk.node.store.reading() as tx:
        word, waiting = policy_in_force(tx, desk.node), policy_waiting(tx, desk.node)
        names = signers_by_key(tx)
    soon = desk.node.today + timedelta(days=LAPSES_DAYS)
    lapsed = {rule.id for rule in policies.lapsed}
    coming = [rule for rule in policies.rules.values() if rule.valid_until <= soon and rule.id not in lapsed]
    return {
        "policy": policies,
        "since": since_when(desk.node, word.policy),
        "signers": _signers(word, names),
        "proposal": word.proposal,
        "waiting": waiting,
        "waiting_signers": _signers(waiting, names) if waiting else [],
        "lapses": sorted(coming, key=lambda rule: (rule.valid_until, rule.id)),
    }


def _signers(word: PolicyWord, names: Mapping[str, str]) -> list[str]:
    return sorted(names.get(key, key[:16]) for key in word.key_ids)


# One square


def cell(desk: Desk, visit: Visit) -> Answer:
    """What is decided for one partner and one label, question by question, in sentences with rule and law."""
    query = visit.query
    if not {"partner", "set"} <= query.keys():
        return Redirect("/policy")
    partner = PartnerRef(query["partner"], query["partner"][:2])
    held = LabelInSet(query["set"], _label(desk, visit))
    surface = _word(Surface, query.get("surface", "") or Surface.SEALED, "surface")
    policies = desk.node.policy
    asked = [Question(one) for one in Action if one not in WITH_PURPOSE]
    asked += [Question(one, purpose) for one in WITH_PURPOSE for purpose in Purpose]
    told = [policies.explain(ShareRequest(partner, one.action, surface, held, one.purpose)) for one in asked]
    values = {
        "partner": partner.agency,
        "held": held,
        "number": query.get("label", ""),
        "label": held.label.to_json(),
        "surface": surface,
        "entries": [_explained(one) for one in told if one.request.action in ENTRY_ACTIONS],
        "others": [_explained(one) for one in told if one.request.action not in ENTRY_ACTIONS],
        "policy": policies,
    }
    return Page("policy_cell.html", values)


def _label(desk: Desk, visit: Visit) -> Label:
    """The label of a set by its number, or one that the address describes word by word."""
    if "label" in visit.query:
        with desk.node.store.reading() as tx:
            label = chosen_label(tx, visit.query["set"], visit.number("label", 0, most=MOST))
        if label is None:
            raise NotFoundError("the set has no such label")
        return label
    if not set(WORDS) <= visit.query.keys():
        raise MalformedError("the address names no label", remedy="choose a square of the matrix")
    lists: dict[str, object] = {name: visit.query.get(name, "").split() for name in LISTS}
    return Label.from_json({**{name: visit.query[name] for name in WORDS}, **lists})


def _explained(one: Explanation) -> dict[str, object]:
    decision = one.decision
    return {
        "asked": asked_words(Question(one.request.action, one.request.purpose)),
        "allowed": decision.allowed,
        "approval": decision.needs_approval,
        "sentence": one.sentence,
        "rules": decision.rules,
        "duties": [duty_words(duty) for duty in decision.obligations],
    }


# What was in force


def history(desk: Desk, visit: Visit) -> Answer:
    """Every policy that was in force, newest first, with what it changed."""
    return Page("policy_history.html", {"found": reigns(desk.node, before=visit.number("before", 0, most=10**15))})


ROUTES: tuple[Route, ...] = (
    get("/policy", policy, EVERY_ROLE),
    get("/policy/cell", cell, EVERY_ROLE),
    get("/policy/history", history, EVERY_ROLE),
)
