"""What computes a LiteRT model: its graph is asked after the delegates have taken their parts of it.

Source: TensorFlow Lite's guide "Implementing a custom delegate": a delegate replaces the operations that it
takes by nodes of its own. The replaced ones stay in the list, but nothing that runs reads their results.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Delegate  # type: ignore[import-untyped, unused-ignore]

from edgemodel_server.errors import Reason, StartError
from edgemodel_server.runtimes import LoadOptions
from edgemodel_server.runtimes.placement import refuse_fallback

CPU = "CPU"
XNNPACK = "XNNPACK"
_DELEGATED = "DELEGATE"
_VARIABLE = "VAR_HANDLE"


class _SafeDelegate(Delegate):  # type: ignore[misc, unused-ignore]
    """LiteRT's delegate, which is not destroyed when it could not be created: some libraries crash then."""

    _library: Any = None
    _delegate_ptr: int | None = None

    def __del__(self) -> None:
        if self._delegate_ptr is None:
            self._library = None
        super().__del__()


def make_delegates(options: LoadOptions) -> list[Any]:
    """Load the delegate's library, if one is wanted; raises StartError(ProviderMismatch) if that fails."""
    if options.delegate is None:
        return []
    try:
        return [_SafeDelegate(str(options.delegate), dict(options.provider_options))]
    except (OSError, AttributeError, ValueError) as error:  # no such library, no delegate, no device
        reason = str(error) or "it gives no reason"
        sentence = f"the delegate {options.delegate} cannot be used: {reason}"
        raise StartError(Reason.PROVIDER_MISMATCH, sentence) from error


def name_delegate(library: Path) -> str:
    """Return the provider name of a delegate's library: ``/usr/lib/libedgetpu.so.1`` -> ``edgetpu``."""
    return library.name.partition(".so")[0].removeprefix("lib")


def has_variables(interpreter: Any) -> bool:
    """Say whether the graph keeps variables that ``reset_all_variables`` does not set back."""
    return any(node["op_name"] == _VARIABLE for node in _nodes(interpreter))


def check_delegate(interpreter: Any, library: Path, options: LoadOptions) -> str:
    """Return the delegate's name if it computes the model; raises StartError(ProviderMismatch) otherwise.

    Must be asked before the tensors are allocated: then XNNPACK, which is for the CPU, takes what is left.
    """
    name = name_delegate(library)
    if not _is_delegated(interpreter):
        raise StartError(Reason.PROVIDER_MISMATCH, f"the delegate {name} takes no operation of the model")
    if not options.cpu_fallback:
        operations, on_cpu = _divide(interpreter)
        refuse_fallback(name, operations, on_cpu)
    return name


def find_provider(interpreter: Any, options: LoadOptions) -> str:
    """Return what computes a model without a delegate of its own, once its tensors are allocated.

    XNNPACK is a library for the CPU, and what it lacks is computed by other kernels for the CPU: that is no
    fallback. Raises StartError(ProviderMismatch) for a provider that needs a library.
    """
    if options.provider not in (None, CPU, XNNPACK):
        sentence = f"{options.provider} is required: LiteRT needs the library for that, as --delegate FILE"
        raise StartError(Reason.PROVIDER_MISMATCH, sentence)
    return XNNPACK if options.provider != CPU and _is_delegated(interpreter) else CPU


def _is_delegated(interpreter: Any) -> bool:
    return any(node["op_name"] == _DELEGATED for node in _nodes(interpreter))


def _divide(interpreter: Any) -> tuple[int, list[str]]:
    """Return the number of the graph's operations, and the types of those that no delegate computes.

    Goes from the outputs to whatever computes what they need. An operation without a result counts, too.
    """
    nodes = _nodes(interpreter)
    computes = {int(tensor): node for node in nodes for tensor in node["outputs"]}  # delegates come last
    wanted = [int(detail["index"]) for detail in interpreter.get_output_details()]
    running: dict[int, Mapping[str, Any]] = {}
    for node in nodes:
        if not len(node["outputs"]):
            running[node["index"]] = node
            wanted.extend(map(int, node["inputs"]))
    while wanted:
        producer = computes.get(wanted.pop())
        if producer is not None and producer["index"] not in running:
            running[producer["index"]] = producer
            wanted.extend(map(int, producer["inputs"]))
    names = [str(node["op_name"]) for node in running.values()]
    own = sum(node["op_name"] != _DELEGATED for node in nodes)
    return own, [name for name in names if name != _DELEGATED]


def _nodes(interpreter: Any) -> list[Mapping[str, Any]]:
    nodes: list[Mapping[str, Any]] = interpreter._get_ops_details()  # noqa: SLF001 - the only view of the graph
    return nodes
