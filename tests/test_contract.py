"""Schemathesis finds no fault of the gateway and no answer that the contract does not name, as `contract_run` asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract_run import ContractRun, load_contract

HEAD = "/v1/sets/{agency}/{name}/head"
# A question is sealed for the moment: test_comparing and test_answering ask them.
SEALED = {"POST /v1/sets/{agency}/{name}/compare", "POST /v1/look-up"}

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> ContractRun:
    return ContractRun(tmp_path, seed=1)


def test_every_answer_of_a_gateway_is_one_that_its_contract_names(run: ContractRun) -> None:
    with run:
        report = run.run(examples=20)
    assert report.failures == {}
    assert report.answers.total() > 1_000
    operations = {
        f"{method.upper()} {path}"
        for path, item in load_contract()["paths"].items()
        for method, one in item.items()
        if "operationId" in one
    }
    assert {label for label, _ in report.answers} == operations
    assert operations - report.succeeded == SEALED


@pytest.mark.parametrize(
    ("left_out", "found"),
    [
        ("status", "status_code_conformance"),
        ("media type", "content_type_conformance"),
        ("header", "response_headers_conformance"),
    ],
)
def test_what_a_contract_leaves_out_is_found(run: ContractRun, left_out: str, found: str) -> None:
    contract = load_contract()
    contract["paths"] = {HEAD: contract["paths"][HEAD]}
    head = contract["paths"][HEAD]["get"]
    match left_out:
        case "status":
            del head["responses"]["404"]
        case "media type":
            head["responses"]["200"]["content"] = {"application/json": {}}
        case "header":
            head["responses"]["200"]["headers"]["X-Missing"] = {"required": True, "schema": {"type": "string"}}
    with run:
        report = run.run(examples=5, contract=contract)
    assert f"GET {HEAD}: {found}" in report.failures
