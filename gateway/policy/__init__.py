"""May this go to them? Will we take it? Cedar's only door.

Policy is text that lawyers read: one folder for each jurisdiction, one file for each agreement, Cedar rules with
`@id`, `@law`, `@says`, `@reviewed_by`, `@valid_until` and duties in `@obligation` (`contracts/policy-1.md`).

Rules of this package:

- It is pure. Texts and the day come in, values go out; `config.read_policies` reads the files.
- It judges labels, never entries: `PolicySet.table` says once, for a partner and a surface, which field groups leave
  under each label, and the data paths use that table.
- It fails closed. No rule, a rule that errs, a word outside a closed list, an engine that breaks: the answer is no.
  Any forbid wins. An allow counts only if every rule behind it is a permit with an id and a law.
- Entries without `existence` are not shared at all; entries of a third country need leave to go onward as well.

    texts = {"schema.cedarschema": …, "00-federation/restrictions.cedar": …, "XA/agreement-xb.cedar": …}
    policies = load(texts, on=date(2027, 1, 15))
    decision = policies.decide(ShareRequest(PartnerRef("XB-NCVI", "XB"), Action.SHARE_SERIES, Surface.SEALED, held))
    decision.effect, decision.rule_ids, decision.obligations

Standard: the Cedar language 4 (docs.cedarpolicy.com), through `cedarpy`.
"""

from gateway.model import Purpose
from gateway.policy.checking import Checked, Fault, check
from gateway.policy.deciding import PolicySet, load
from gateway.policy.describing import SHEET, describe, duty_words, plain
from gateway.policy.differing import IntakeChange, ShareChange, intake_changes, share_changes
from gateway.policy.examples import Example, parse_examples, try_example
from gateway.policy.loading import FEDERATION, PLACE, SCHEMA, digest_texts
from gateway.policy.quality import DEFAULT_USE, QUALITY_FILE, UseRule
from gateway.policy.rulechanges import ChangedRule, RuleChanges, rule_changes
from gateway.policy.words import (
    Action,
    Decision,
    Duty,
    Effect,
    Explanation,
    Grid,
    LabelInSet,
    LabelRights,
    Obligation,
    PartnerRef,
    Question,
    Reason,
    Rule,
    RuleKind,
    ShareRequest,
)

__all__ = [
    "DEFAULT_USE",
    "FEDERATION",
    "PLACE",
    "QUALITY_FILE",
    "SCHEMA",
    "SHEET",
    "Action",
    "ChangedRule",
    "Checked",
    "Decision",
    "Duty",
    "Effect",
    "Example",
    "Explanation",
    "Fault",
    "Grid",
    "IntakeChange",
    "LabelInSet",
    "LabelRights",
    "Obligation",
    "PartnerRef",
    "PolicySet",
    "Purpose",
    "Question",
    "Reason",
    "Rule",
    "RuleChanges",
    "RuleKind",
    "ShareChange",
    "ShareRequest",
    "UseRule",
    "check",
    "describe",
    "digest_texts",
    "duty_words",
    "intake_changes",
    "load",
    "parse_examples",
    "plain",
    "rule_changes",
    "share_changes",
    "try_example",
]
