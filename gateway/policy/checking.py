"""Is a policy sound, and does it decide every worked example as written? All that is not, before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from gateway.errors import ConfigError
from gateway.policy.deciding import PolicySet, load
from gateway.policy.examples import parse_examples, try_example
from gateway.policy.loading import FEDERATION


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it must be. `place` is for people: a file, and the rule or the example in it."""

    place: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at. `policies` is None where a rule is not sound: then no example was tried."""

    policies: PolicySet | None
    examples: int
    faults: tuple[Fault, ...]

    def sound(self) -> PolicySet:
        """The policy, if nothing is wrong with it.

        Raises:
            ConfigError: names the first fault.
        """
        if self.policies is None or self.faults:
            first = self.faults[0]
            raise ConfigError(first.message, place=first.place, remedy=first.remedy)
        return self.policies


def check(rules: Mapping[str, str], examples: Mapping[str, str], *, on: date) -> Checked:
    """Every rule is looked at, and where all are sound, every worked example is decided.

    Args:
        rules: as `load` takes them.
        examples: the content of `examples.toml` by its folder.
        on: the day to decide for.
    """
    try:
        policies = load(rules, on=on)
    except ConfigError as error:
        return Checked(None, 0, (_fault(error),))
    tried, faults = 0, []
    for part in (FEDERATION, policies.jurisdiction):
        try:
            found = list(_tried(policies, part, examples[part])) if part in examples else []
        except ConfigError as error:
            faults.append(_fault(error))
            continue
        tried += len(found)
        faults += [one for one in found if one is not None]
    return Checked(policies, tried, tuple(faults))


def _tried(policies: PolicySet, part: str, text: str) -> Iterator[Fault | None]:
    """For each example that speaks of this jurisdiction, what is decided otherwise than written."""
    for example in parse_examples(text, part):
        if example.us != policies.jurisdiction:
            continue  # the federation's examples speak of several countries, each of which checks its own
        faults = try_example(example, policies)
        yield Fault(example.place, f"decided otherwise than written: {'; '.join(faults)}") if faults else None


def _fault(error: ConfigError) -> Fault:
    return Fault(error.place, error.message, error.remedy)
