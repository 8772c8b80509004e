"""The operators of ONNX Runtime on the CPU: from its own registry of kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as registry
from onnx import TensorProto, helper

from .ranges import Operators, join_versions

INTERNAL = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc"})
"""Domains of what ONNX Runtime turns graphs into; models cannot use them."""

_WITNESSES = {"": ("Abs", {}), "ai.onnx.ml": ("Scaler", {"scale": [1.0], "offset": [0.0]})}
"""An operator of each domain with versions, of all times."""
_BEYOND = 64
"""No set of operators has this version yet."""


def ask() -> Operators:
    """Give for each operator the versions of its operator set (opset) in which a model may use it.

    An operator of set V is the newest of its definitions up to V. It can run where the CPU provider has a
    kernel for that definition, or the definition says how it is made of others; a Constant needs none.
    """
    kernels = defaultdict(set)
    for kernel in registry.get_all_opkernel_def():
        kernels[kernel.domain, kernel.op_name].add(kernel.version_range)
    definitions = defaultdict(set)
    for schema in registry.get_all_operator_schema():
        if schema.domain not in INTERNAL:
            definitions[schema.domain, schema.name].add(schema.since_version)
    newest = {domain: _newest(domain) for domain, _ in definitions}
    operators: Operators = defaultdict(dict)
    for (domain, name), since in sorted(definitions.items()):
        known = [
            version
            for first, last in _spans(sorted(since), newest[domain])
            if _runs(domain, name, first, kernels[domain, name])
            for version in range(first, last + 1)
        ]
        if known:
            operators[domain or "ai.onnx"][name] = join_versions(known)
    return dict(operators)


def _spans(since: list[int], newest: int) -> Iterator[tuple[int, int]]:
    """Give the versions of the operator set in which each definition is the newest."""
    for first, next_one in zip(since, [*since[1:], newest + 1], strict=True):
        yield first, min(next_one - 1, newest)


def _runs(domain: str, name: str, since: int, kernels: set[tuple[int, int]]) -> bool:
    if (domain, name) == ("", "Constant") or any(first <= since <= last for first, last in kernels):
        return True
    if not onnx.defs.has(name, since, domain):
        return False
    schema = onnx.defs.get_schema(name, since, domain)
    made_of_others = schema.has_function or schema.has_context_dependent_function
    return bool(schema.since_version == since and made_of_others)


def _newest(domain: str) -> int:
    """Give the newest version that models may name; ONNX Runtime refuses those that are not released."""
    if domain not in _WITNESSES:
        return 1
    return next(version for version in range(_BEYOND, 0, -1) if _loads(domain, version))


def _loads(domain: str, version: int) -> bool:
    operator, attributes = _WITNESSES[domain]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy"]
    node = helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes)
    sets = {domain: version} | ({"": 17} if domain else {})
    model = helper.make_model(
        helper.make_graph([node], "witness", value[:1], value[1:]),
        opset_imports=[helper.make_opsetid(name, number) for name, number in sets.items()],
        ir_version=8,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except registry.Fail:
        return False
    return True
