"""No octet of what policy withholds leaves by TAXII, whatever policy permits; and what it permits does."""

from __future__ import annotations

import hashlib
import itertools
from base64 import b64encode
from pathlib import Path

import pytest

from factory import FakeClock, befriend, make_node, make_set, sha256
from gateway.doors.taxii import render_envelope
from gateway.exchange import Exchange
from gateway.exchange.collections import Query, collection_id
from gateway.model import ENTRY_GROUPS, EntryDraft, FieldGroup, VictimStatus

RULE = """
@id("xa-xb-only")
@law("Agreement for tests, article 1")
@says("Permitted for tests.")
@reviewed_by("Office of invented laws")
@valid_until("2036-12-31")
permit (principal in Agreement::"xa-xb", action in [{actions}], resource);
"""
PHOTODNA = sha256("photodna") * 4 + b"\x01" * 16
MARKERS = {
    FieldGroup.CRYPTOGRAPHIC_DIGESTS: [sha256("file").hex()],
    FieldGroup.PERCEPTUAL_DIGESTS: [sha256("pdq").hex(), b64encode(PHOTODNA).decode()],
    FieldGroup.SERIES: ["Series of markers"],
    FieldGroup.VICTIM_STATUS: ["victim-marker", "safeguarded"],
}
OTHERS = tuple(group for group in ENTRY_GROUPS if group is not FieldGroup.EXISTENCE)
SUBSETS = [frozenset(some) for n in range(5) for some in itertools.combinations(OTHERS, n)]


@pytest.fixture
def xa(tmp_path: Path) -> Exchange:
    clock = FakeClock()
    node = make_node(tmp_path, "XA-NCVI", clock=clock)
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock))
    draft = EntryDraft(
        {"sha256": sha256("file"), "pdq": sha256("pdq"), "photodna": PHOTODNA},
        source_ref="our own reference",
        series="Series of markers",
        victim_ref="victim-marker",
        victim_status=VictimStatus.SAFEGUARDED,
        pdq_quality=90,
    )
    exchange = Exchange(node)
    make_set(exchange, "found", [draft])
    clock.advance(2)
    return exchange


def permit(xa: Exchange, groups: frozenset[FieldGroup]) -> None:
    """Let XB have existence and these groups over any surface, and nothing else."""
    kept = {
        path: text
        for path, text in xa.node.policies.texts.items()
        if path != "00-federation/surfaces.cedar" and not path.startswith("XA/agreement-")
    }
    actions = ", ".join(f'Action::"share_{group}"' for group in sorted({FieldGroup.EXISTENCE, *groups}))
    agreement = {path: RULE.format(actions=actions) for path in ["XA/agreement-xb.cedar"]}
    xa.node.policies.texts, xa.node.policies._loaded = {**kept, **agreement}, None
    assert isinstance(xa.node.clock, FakeClock)
    xa.collections.listing("XB-NCVI")
    xa.node.clock.advance(2)


def test_exactly_the_groups_that_policy_permits_leave(xa: Exchange) -> None:
    for groups in [*SUBSETS, *reversed(SUBSETS)]:
        permit(xa, groups)
        body = xa.collections.page("XB-NCVI", collection_id("XA-NCVI/found"), Query(), render_envelope)
        told = b"".join(body.pieces).decode()
        assert hashlib.sha256(told.encode()).hexdigest() == body.digest
        assert "0001-000000000001" in told
        assert "our own reference" not in told
        for group, markers in MARKERS.items():
            assert [marker in told for marker in markers] == [group in groups] * len(markers), (group, groups)
