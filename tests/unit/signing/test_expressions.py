"""Which CEL expressions can be used, and what they say of documents, in the process that evaluates them."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import pytest

from edgemodel_operator.signing.demand import PredicateCheck
from edgemodel_operator.signing.errors import BadExpression, CannotCheck
from edgemodel_operator.signing.expressions import check_expression
from edgemodel_operator.signing.predicates import PredicateChecks


@pytest.mark.parametrize(
    "expression",
    [
        "predicate.buildDefinition.buildType == 'https://ci.plant-a.local/build'",
        "predicate.results.all(x, x.passed && x.score > 0.9)",
        "!predicate.vulnerabilities.exists(v, v.severity in ['critical', 'high'])",
        "has(predicate.run) && predicate.run.id.matches('^[0-9]+$')",
        "type(predicate.count) == int && size(predicate.components) < 2000",
        "timestamp(predicate.at) > timestamp('2026-01-01T00:00:00Z')",
        "predicate.layers.map(x, x.size).filter(size, size > 5).size() == 0",
        "duration(predicate.took).getSeconds() < 60",
    ],
)
def test_expressions_over_the_document_can_be_used(expression: str) -> None:
    check_expression(expression)


@pytest.mark.parametrize(
    ("expression", "want"),
    [
        ("predicate.a ==", "not CEL"),
        ("", "not CEL"),
        ("prediction.a == 1", "'prediction', which is no variable"),
        ("predicate.l.all(x, x > limit)", "'limit', which is no variable"),
        ("now() < predicate.end", "'now', which is no function"),
        ("predicate.name.lower() == 'a'", "'lower', which is no function"),
        ("predicate.name.matches('(')", "not a valid regex"),
        ("predicate.a == 1 " + " " * 5000, "more than 4096 characters"),
        ("(" * 2000 + "true" + ")" * 2000, "not CEL"),
    ],
)
def test_case_40_expressions_that_could_never_answer_are_refused(expression: str, want: str) -> None:
    with pytest.raises(BadExpression, match=want.replace("(", r"\(")):
        check_expression(expression)


def test_the_evaluator_comes_without_its_shell_program() -> None:
    check_expression("true")
    assert "prompt_toolkit" not in sys.modules


def statement(predicate: Any) -> bytes:
    return json.dumps({"predicateType": "https://example.com/test", "predicate": predicate}).encode()


async def failure_of(expression: str, predicate: Any) -> str | None:
    async with PredicateChecks() as checks:
        return await checks.first_failure([PredicateCheck(expression, "It is bad.")], statement(predicate))


@pytest.mark.parametrize(
    ("expression", "predicate", "want"),
    [
        ("predicate.a == 1", {"a": 1}, None),
        ("predicate.a == 1", {"a": 2}, "It is bad (it gives False)"),
        ("predicate.a", {"a": "true"}, "It is bad (it gives 'true')"),
        ("predicate.a", {"a": 1}, "It is bad (it gives 1)"),
        ("predicate.a", {}, "It is bad (KeyError: 'a')"),
        ("predicate.a", None, "It is bad ("),
        ("predicate.a > 1", {"a": "x"}, "It is bad ("),
        ("predicate.l[5] == 1", {"l": []}, "It is bad ("),
        ("1 / predicate.a == 1", {"a": 0}, "It is bad ("),
        ("nosuch(predicate)", {}, "It is bad ("),
        ("predicate.a ==", {}, "It is bad ("),
    ],
)
async def test_only_true_is_a_yes_and_an_error_is_a_no(
    expression: str, predicate: Any, want: str | None
) -> None:
    got = await failure_of(expression, predicate)
    assert (got is None) if want is None else (got or "").startswith(want)


async def test_all_checks_must_pass_and_the_first_that_does_not_is_named() -> None:
    checks = [PredicateCheck(f"predicate.{name}", f"no {name}") for name in "abc"]
    async with PredicateChecks() as process:
        assert await process.first_failure(checks, statement({"a": True, "b": True, "c": True})) is None
        failed = await process.first_failure(checks, statement({"a": True, "b": False, "c": False}))
        assert failed == "no b (it gives False)"
        assert await process.first_failure([], b"") is None


async def test_a_document_that_needs_too_much_memory_is_a_no() -> None:
    doubling = "[predicate.text]" + ".map(text, text + text)" * 12 + " == []"
    async with PredicateChecks(cpu_seconds=60) as process:
        failed = await process.first_failure(
            [PredicateCheck(doubling, "It is bad.")], statement({"text": "x" * 1024 * 1024})
        )
    assert failed is not None
    assert "ended the evaluator" in failed or "Memory" in failed


async def test_a_check_that_never_ends_is_ended_and_is_a_no() -> None:
    # The limit counts the processor's time, so that a busy machine changes nothing.
    cube = "predicate.all(x, predicate.all(y, predicate.all(z, x + y + z >= 0)))"
    async with PredicateChecks(cpu_seconds=1) as process:
        slow = [PredicateCheck(cube, "It is bad.")]
        assert await process.first_failure(slow, statement(list(range(3000)))) == (
            "It is bad (it took too long)"
        )
        # The next one gets a process that works.
        quick = [PredicateCheck("predicate.a", "")]
        assert await process.first_failure(quick, statement({"a": True})) is None


async def test_a_process_that_cannot_be_asked_is_an_error_and_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = [PredicateCheck("predicate.a", "")]
    async with PredicateChecks(wait_seconds=0.0) as late:
        with pytest.raises(CannotCheck):
            await late.first_failure(checks, statement({"a": True}))
    async with PredicateChecks() as killed:
        await killed.first_failure(checks, statement({"a": True}))
        process = killed._process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        with pytest.raises(CannotCheck, match="status -9"):
            await killed.first_failure(checks, statement({"a": True}))
    for program in ("/nowhere/python", "/bin/false"):
        monkeypatch.setattr(sys, "executable", program)
        async with PredicateChecks() as absent:
            with pytest.raises(CannotCheck):
                await absent.first_failure(checks, statement({"a": True}))
