"""The whole policy as a table: partners × labels × what is asked, for reading, for spreadsheets, and as a picture.

A matrix holds decisions and nothing else: each cell is what `PolicySet.decide` says of the same request. Where no set
is at hand, `described` makes its labels: every combination of the words that the rules look at.

The picture is one SVG file without script or outside parts; it follows the reader's light or dark setting.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TextIO

from gateway.model import AGENCY, CATEGORY, ENTRY_GROUPS, HandlingCode, Label, Restriction, VictimStatus
from gateway.policy.deciding import PolicySet
from gateway.policy.words import Action, Decision, Grid, LabelInSet, PartnerRef, Question, strictest

ANY_AGENCY = "ANY"  # stands for the agencies of a country where none is enrolled
THIRD = "ZZ"  # a country that no agreement names
NO_TAG = "no tag"
SHARED = tuple(Question(Action.share(group)) for group in ENTRY_GROUPS)
MARKS = {
    Action.SHARE_EXISTENCE: "E",
    Action.SHARE_CRYPTOGRAPHIC_DIGESTS: "C",
    Action.SHARE_PERCEPTUAL_DIGESTS: "P",
    Action.SHARE_SERIES: "S",
    Action.SHARE_VICTIM_STATUS: "V",
    Action.SHARE_CASE_SUMMARY: "c",
    Action.SHARE_CLUES: "u",
    Action.SHARE_PERSONS: "p",
    Action.SHARE_CONTACT: "t",
    Action.FORWARD: "F",
    Action.LOOK_UP: "L",
    Action.REFER: "R",
    Action.RECEIVE: "T",
}
WITHHELD = "·"
COLUMNS = (
    *("partner", "set", "label", "originator", "jurisdiction", "handling", "category", "victim_status", "evaluation"),
    *("legal_basis", "restrictions", "onward", "surface", "action", "purpose", "effect", "reason", "step", "rules"),
    *("obligations", "policy", "on"),
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet begins a formula


@dataclass(frozen=True, slots=True)
class Cell:
    """All that is asked of one partner and one label; `decisions` in the order of `Grid.asked`."""

    partner: PartnerRef
    name: str
    held: LabelInSet
    decisions: tuple[Decision, ...]

    @property
    def allowed(self) -> int:
        """How much of what was asked is allowed."""
        return sum(decision.allowed for decision in self.decisions)

    @property
    def obligations(self) -> tuple[str, ...]:
        """The duties of all that is allowed together."""
        duties = [duty for decision in self.decisions if decision.allowed for duty in decision.obligations]
        return tuple(str(duty) for duty in strictest(duties))


@dataclass(frozen=True, slots=True)
class Matrix:
    """Decisions of one policy set on one day. `names` are those of the grid's labels; `cells` label by label."""

    policies: PolicySet
    grid: Grid
    names: tuple[str, ...]
    cells: tuple[Cell, ...]

    @classmethod
    def of(cls, policies: PolicySet, grid: Grid, names: Sequence[str], rows: Iterable[Sequence[Decision]]) -> Matrix:
        """The matrix of rows as `decide_all` gives them."""
        pairs = [(who, name, held) for name, held in zip(names, grid.labels, strict=True) for who in grid.partners]
        cells = [Cell(*pair, tuple(row)) for pair, row in zip(pairs, rows, strict=True)]
        return cls(policies, grid, tuple(names), tuple(cells))

    def rows(self) -> Iterator[tuple[str, LabelInSet, tuple[Cell, ...]]]:
        """Label by label, with a cell for each partner."""
        wide = len(self.grid.partners)
        for number, (name, held) in enumerate(zip(self.names, self.grid.labels, strict=True)):
            yield name, held, self.cells[number * wide : (number + 1) * wide]

    def to_json(self) -> dict[str, object]:
        """All of it, each cell with each decision."""
        return {
            "policy": self.policies.digest,
            "jurisdiction": self.policies.jurisdiction,
            "on": str(self.policies.on),
            "surface": str(self.grid.surface),
            "asked": [{"action": str(one.action), "purpose": str(one.purpose or "")} for one in self.grid.asked],
            "partners": [partner.agency for partner in self.grid.partners],
            "labels": [
                {"name": name, "set": held.set_name, "label": held.label.to_json()}
                for name, held in zip(self.names, self.grid.labels, strict=True)
            ],
            "cells": [
                {
                    "partner": cell.partner.agency,
                    "set": cell.held.set_name,
                    "label": cell.name,
                    "obligations": list(cell.obligations),
                    "decisions": [
                        _decision_members(question, decision)
                        for question, decision in zip(self.grid.asked, cell.decisions, strict=True)
                    ],
                }
                for cell in self.cells
            ],
        }

    def dump_csv(self, sink: TextIO) -> None:
        """One line for each decision, under `COLUMNS`. No value begins a formula in a spreadsheet."""
        writer = csv.writer(sink)
        writer.writerow(COLUMNS)
        for cell in self.cells:
            label, words = cell.held.label, cell.held.label.to_json()
            fixed = {
                "partner": cell.partner.agency,
                "set": cell.held.set_name,
                "label": cell.name,
                **words,
                "restrictions": " ".join(label.restrictions),
                "onward": " ".join(label.onward),
                "surface": self.grid.surface,
                "policy": self.policies.digest,
                "on": self.policies.on,
            }
            for question, decision in zip(self.grid.asked, cell.decisions, strict=True):
                told = _decision_members(question, decision)
                told |= {"rules": " ".join(decision.rule_ids), "obligations": " ".join(map(str, decision.obligations))}
                line = {**fixed, **told}
                writer.writerow([_guarded(str(line[name])) for name in COLUMNS])

    def draw_svg(self) -> str:
        """The heat map: a square for each partner and label, darker the more is allowed, told in full on pointing."""
        return "\n".join(_drawn(self))


def marks(decisions: Sequence[Decision], asked: Sequence[Question]) -> str:
    """One letter for each question, `·` where the answer is no; "-" where nothing is allowed."""
    found = [MARKS[one.action] if yes.allowed else WITHHELD for one, yes in zip(asked, decisions, strict=True)]
    return "".join(found) if set(found) != {WITHHELD} else "-"


def described_partners(policies: PolicySet) -> tuple[PartnerRef, ...]:
    """Every party of an agreement, and every agency that a rule names."""
    countries = frozenset().union(*policies.agreements.values())
    words = policies.looks_at(map(Question, Action)).get("principal.agency", ())
    named = {PartnerRef(word, word[:2]) for word in words if AGENCY.fullmatch(word)}
    return tuple(sorted({PartnerRef(f"{code}-{ANY_AGENCY}", code) for code in countries} | named))


@dataclass(frozen=True, slots=True)
class Described:
    """Labels by their words alone: the product of `axes`, in its order. Each axis is the words of one attribute."""

    axes: tuple[tuple[str, ...], ...]
    labels: tuple[LabelInSet, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each label, of its words."""
        return tuple(" ".join(words) for words in itertools.product(*self.axes))

    def folded(self, matrix: Matrix) -> Matrix:
        """The same matrix with one label for all those that are decided alike, for the same reasons, for every partner.

        Every label is in exactly one; the name says which words it may have (an attribute that makes no difference is
        left out), and how many labels there are.
        """
        numbers: dict[tuple[object, ...], int] = {}
        keys = [
            numbers.setdefault(tuple(map(_alike, itertools.chain(*(cell.decisions for cell in cells)))), len(numbers))
            for _, _, cells in matrix.rows()
        ]
        found, wide = list(_folded(self.axes, keys)), len(matrix.grid.partners)
        names = [self._class_name(words) for words, _ in found]
        cells = [
            replace(cell, name=name)
            for name, (_, first) in zip(names, found, strict=True)
            for cell in matrix.cells[first * wide : (first + 1) * wide]
        ]
        grid = replace(matrix.grid, labels=tuple(self.labels[first] for _, first in found))
        return replace(matrix, grid=grid, names=tuple(names), cells=tuple(cells))

    def _class_name(self, words: Sequence[tuple[str, ...]]) -> str:
        parts = []
        for some, every in zip(words, self.axes, strict=True):
            left = [word for word in every if word not in some]
            if left:
                parts.append(f"not {left[0]}" if len(left) == 1 and len(every) > 2 else "/".join(some))
        return f"{', '.join(parts) or 'every label'} ({math.prod(map(len, words)):,})"


def described(
    policies: PolicySet,
    set_name: str,
    partners: Sequence[PartnerRef],
    asked: Sequence[Question],
    *,
    foreign: bool = False,
) -> Described:
    """Labels of entries of one's own, by their words: every combination of what the rules for `asked` look at.

    Words of a closed list are all there. Of texts there are those that a rule names, and one that none names.

    Args:
        foreign: as well entries of each partner's country and of a third one, with and without leave to go on.
    """
    axes, owners, tags = _axes(policies, partners, asked, foreign=foreign)
    own, agency = policies.jurisdiction, set_name.partition("/")[0]
    labels = []
    for owner, tag, handling, status, source, level, category, basis in itertools.product(*axes):
        code, onward = owners[owner]
        originator = agency if code == own else f"{code}-{ANY_AGENCY}"
        label = Label(
            originator=originator,
            jurisdiction=code,
            handling=HandlingCode(handling),
            category=category,
            victim_status=VictimStatus(status),
            evaluation=source + level,
            legal_basis=basis,
            restrictions=tags[tag],
            onward=onward,
        )
        labels.append(LabelInSet(set_name, label))
    return Described(axes, tuple(labels))


def described_size(
    policies: PolicySet, partners: Sequence[PartnerRef], asked: Sequence[Question], *, foreign: bool = False
) -> int:
    """How many labels `described` would make."""
    return math.prod(map(len, _axes(policies, partners, asked, foreign=foreign)[0]))


def _axes(
    policies: PolicySet, partners: Sequence[PartnerRef], asked: Sequence[Question], *, foreign: bool
) -> tuple[tuple[tuple[str, ...], ...], dict[str, tuple[str, tuple[str, ...]]], dict[str, tuple[Restriction, ...]]]:
    """The words of each attribute; whose entries and which tags the first two stand for."""
    seen, own = policies.looks_at(asked), policies.jurisdiction
    countries = tuple(sorted({partner.jurisdiction for partner in partners} - {own}))
    owners: dict[str, tuple[str, tuple[str, ...]]] = {f"of {own}": (own, ())}
    if foreign:
        for code in (*countries, THIRD):
            owners |= {f"of {code}": (code, ()), f"of {code} with leave": (code, countries)}
    tags: dict[str, tuple[Restriction, ...]] = {NO_TAG: ()}
    if "restrictions" in seen:
        tags |= {str(tag): (tag,) for tag in Restriction}
    axes = (
        tuple(owners),
        tuple(tags),
        _words(seen, "handling", HandlingCode, HandlingCode.H2),
        _words(seen, "victim_status", (one for one in VictimStatus if one is not VictimStatus.WITHHELD), "identified"),
        _words(seen, "evaluation.source", "ABCDEF", "A"),
        _words(seen, "evaluation.information", "123456", "1"),
        _texts(seen, "category", "unspecified:0"),
        _texts(seen, "legal_basis", "unspecified"),
    )
    return axes, owners, tags


def _alike(decision: Decision) -> tuple[object, ...]:
    return decision.effect, decision.reason, decision.action, decision.rule_ids, decision.obligations


def _folded(axes: Sequence[tuple[str, ...]], keys: Sequence[int]) -> Iterator[tuple[tuple[tuple[str, ...], ...], int]]:
    """The product of `axes` cut into products in each of which all keys are one; each with the place of its first."""
    if not axes:
        yield (), 0
        return
    width = len(keys) // len(axes[0])
    same: dict[tuple[int, ...], list[int]] = {}
    for number in range(len(axes[0])):
        same.setdefault(tuple(keys[number * width : (number + 1) * width]), []).append(number)
    for part, numbers in same.items():
        for words, first in _folded(axes[1:], part):
            yield (tuple(axes[0][number] for number in numbers), *words), numbers[0] * width + first


def _words(seen: Mapping[str, frozenset[str]], name: str, every: Iterable[str], otherwise: str) -> tuple[str, ...]:
    """All words of a closed list if a rule looks at the attribute, else one."""
    return tuple(every) if name in seen else (otherwise,)


def _texts(seen: Mapping[str, frozenset[str]], name: str, otherwise: str) -> tuple[str, ...]:
    """The texts that rules compare an attribute with, as far as it can have them, and one other."""
    fits = CATEGORY.fullmatch if name == "category" else bool
    return (*(text for text in sorted(seen.get(name, ())) if fits(text) and text != otherwise), otherwise)


def _decision_members(question: Question, decision: Decision) -> dict[str, object]:
    return {
        "action": str(question.action),
        "purpose": str(question.purpose or ""),
        "effect": str(decision.effect),
        "reason": str(decision.reason),
        "step": str(decision.action),
        "rules": list(decision.rule_ids),
        "obligations": [str(duty) for duty in decision.obligations],
    }


def _guarded(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


# The picture

CELL_HEIGHT = 20
LETTER = 6.6  # pixels of one letter at 12 pixels; a little wide, so that nothing is cut
CAPITAL = 8.6
GAP = 8
LIGHT, DARK = ((0xF1, 0xF3, 0xF6), (0x0B, 0x4A, 0x8F)), ((0x2A, 0x2F, 0x37), (0x8F, 0xC2, 0xFF))
PAPER, INK, FAINT = {"light": "#ffffff", "dark": "#15181c"}, {"light": "#1a1d21", "dark": "#e8eaed"}, 0.7

Colour = tuple[int, int, int]


def _drawn(matrix: Matrix) -> Iterator[str]:
    """The lines of the file."""
    partners, steps = [partner.agency for partner in matrix.grid.partners], len(matrix.grid.asked)
    left = GAP + LETTER * max(map(len, (*matrix.names, "label")), default=0) + GAP
    wide = [max(48.0, CAPITAL * len(agency) + GAP) for agency in partners]
    at = [left + sum(wide[:number]) for number in range(len(wide))]
    top = 74
    width = max(left + sum(wide) + GAP, 520.0)
    height = top + CELL_HEIGHT * len(matrix.names) + 64
    title = f"What {matrix.policies.jurisdiction} allows, on {matrix.policies.on}"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" role="img" aria-labelledby="title what" font-family="sans-serif" font-size="12">'
    )
    yield f'<title id="title">{_text(title)}</title>'
    yield f'<desc id="what">{_text(_described(matrix))}</desc>'
    yield f"<style>{_style(steps)}</style>"
    yield '<rect class="paper" width="100%" height="100%"/>'
    yield f'<text class="ink" x="{GAP}" y="22" font-size="15">{_text(title)}</text>'
    under = f"policy {matrix.policies.digest[:16]}…, {matrix.grid.surface}"
    yield f'<text class="ink faint" x="{GAP}" y="40">{under}</text>'
    for agency, x, across in zip(partners, at, wide, strict=True):
        yield f'<text class="ink" x="{x + across / 2:.1f}" y="{top - 8}" text-anchor="middle">{_text(agency)}</text>'
    for line, (name, _, cells) in enumerate(matrix.rows()):
        y = top + CELL_HEIGHT * line
        yield f'<text class="ink" x="{left - GAP:.1f}" y="{y + 14}" text-anchor="end">{_text(name)}</text>'
        for cell, x, across in zip(cells, at, wide, strict=True):
            yield _square(cell, matrix.grid.asked, (x, y, across))
    yield from _legend(matrix, top + CELL_HEIGHT * len(matrix.names) + 20)
    yield "</svg>\n"


def _square(cell: Cell, asked: Sequence[Question], place: tuple[float, float, float]) -> str:
    x, y, across = place
    return (
        f'<g><title>{_text(told(cell, asked))}</title><rect class="s{cell.allowed}" x="{x + 1:.1f}" y="{y + 1}" '
        f'width="{across - 2:.1f}" height="{CELL_HEIGHT - 2}" rx="2"/><text class="t{cell.allowed}" '
        f'x="{x + across / 2:.1f}" y="{y + 14}" text-anchor="middle">{cell.allowed or "–"}</text></g>'
    )


def told(cell: Cell, asked: Sequence[Question]) -> str:
    """A cell in words: what is allowed, what is withheld and by which rule, duties, rules."""
    pairs = list(zip(asked, cell.decisions, strict=True))
    allowed = [asked_words(question) for question, decision in pairs if decision.allowed]
    withheld = [
        f"{asked_words(question)} ({', '.join(decision.rule_ids) or decision.reason.replace('_', ' ')})"
        for question, decision in pairs
        if not decision.allowed
    ]
    rules = sorted({i for decision in cell.decisions if decision.allowed for i in decision.rule_ids})
    parts = [f"{cell.partner.agency}, {cell.held.set_name} {cell.name}. Allowed: {', '.join(allowed) or 'nothing'}"]
    parts += [f"Withheld: {', '.join(withheld)}"] if withheld else []
    parts += [f"Duties: {', '.join(cell.obligations)}"] if cell.obligations else []
    parts += [f"Rules: {', '.join(rules)}"] if rules else []
    return ". ".join(parts) + "."


def asked_words(question: Question) -> str:
    """A question in a word or two: "perceptual digests", "look up for victim identification"."""
    word = question.action.removeprefix("share_").replace("_", " ")
    return f"{word} for {question.purpose.replace('_', ' ')}" if question.purpose else word


def _described(matrix: Matrix) -> str:
    asked = ", ".join(map(asked_words, matrix.grid.asked))
    return f"Partners across, labels down; in each square how much of this is allowed: {asked}."


def _legend(matrix: Matrix, y: float) -> Iterator[str]:
    steps = len(matrix.grid.asked)
    for step in range(steps + 1):
        x = GAP + 28 * step
        yield f'<rect class="s{step}" x="{x}" y="{y}" width="26" height="18" rx="2"/>'
        yield f'<text class="t{step}" x="{x + 13}" y="{y + 13}" text-anchor="middle">{step or "–"}</text>'
    asked = ", ".join(map(asked_words, matrix.grid.asked))
    yield f'<text class="ink faint" x="{GAP + 28 * (steps + 1) + GAP}" y="{y + 13}">of {steps} asked</text>'
    yield f'<text class="ink faint" x="{GAP}" y="{y + 34}" font-size="10">{_text(asked)}</text>'


def _style(steps: int) -> str:
    """Colours for both settings; the figure in a square is black or white, whichever is easier to read."""
    light, dark = _scheme("light", LIGHT, steps), _scheme("dark", DARK, steps)
    return f"{light} .faint{{opacity:{FAINT}}} @media (prefers-color-scheme: dark){{{dark}}}"


def _scheme(name: str, ends: tuple[Colour, Colour], steps: int) -> str:
    rules = [f".paper{{fill:{PAPER[name]}}} .ink{{fill:{INK[name]}}}"]
    for step in range(steps + 1):
        part = step / max(1, steps)
        first, last = ends
        colour = tuple(round(a + (b - a) * part) for a, b in zip(first, last, strict=True))
        bright = sum(weight * _linear(value) for weight, value in zip((0.2126, 0.7152, 0.0722), colour, strict=True))
        # WCAG 2 1.4.3: of black and white, the one with the larger contrast.
        text = "#000000" if (bright + 0.05) / 0.05 >= 1.05 / (bright + 0.05) else "#ffffff"
        rules.append(f".s{step}{{fill:#{''.join(f'{value:02x}' for value in colour)}}} .t{step}{{fill:{text}}}")
    return " ".join(rules)


def _linear(value: int) -> float:
    """One channel of sRGB as light (WCAG 2, relative luminance)."""
    part = value / 255
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)


def _text(text: str) -> str:
    """Text for XML: what it cannot hold, or a reader cannot see, is a question mark."""
    return escape("".join(c if c.isprintable() else "?" for c in text))
