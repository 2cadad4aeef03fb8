"""The case report `vidx 1.0`: a case record as XML, whole or as far as policy lets it go.

    raw = dump_case(record, groups)          # canonical bytes: equal records and groups, equal bytes
    report = parse_case(raw)                 # report.record == redact(record, groups), report.groups == groups
    dump_case(report.record, report.groups)  # raw again

Rules (the contract is `contracts/vidx-1.0.md`, the schema `contracts/vidx-1.0.xsd`):
- A field leaves only where its field group is named. What is withheld is not there, and the report names the groups
  that it holds, so that nobody reads an absence as "none".
- A report is complete: without what law and policy need it is a draft, which has another root element, holds every
  group and never goes to a partner.
- Parsing is strict: an unknown element, a value outside its list, anything of a group that is not named is refused.
  Only the space between elements and the prefix of the namespace are free.
"""

from gateway.vidx.dumping import MAX_CASE_BYTES, NAMESPACE, dump_case
from gateway.vidx.parsing import CaseReport, parse_case
from gateway.vidx.redacting import lacking, redact

__all__ = ["MAX_CASE_BYTES", "NAMESPACE", "CaseReport", "dump_case", "lacking", "parse_case", "redact"]
