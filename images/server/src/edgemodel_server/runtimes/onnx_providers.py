"""ONNX Runtime's execution providers: which one is asked for, and the proof that it computes the graph.

``InferenceSession.get_providers`` lists what a session may use, not what it uses: it names a provider that
took no operation at all. The session is therefore told to record which provider each operation of the
optimized graph was assigned to (``session.record_ep_graph_assignment_info``).

Source: ONNX Runtime, ``onnxruntime_session_options_config_keys.h``.
"""

import onnxruntime as ort  # type: ignore[import-untyped, unused-ignore]

from edgemodel_server.errors import Reason, StartError
from edgemodel_server.runtimes import LoadOptions
from edgemodel_server.runtimes.placement import refuse_fallback

CPU = "CPUExecutionProvider"


def choose_provider(options: LoadOptions) -> str:
    """Return the provider to ask for; raises StartError if this ONNX Runtime lacks it."""
    provider = options.provider or CPU
    available: list[str] = ort.get_available_providers()
    if provider not in available:
        sentence = f"{provider} is required, but this ONNX Runtime was built with {', '.join(available)} only"
        raise StartError(Reason.PROVIDER_MISMATCH, sentence)
    if provider == CPU and options.provider_options:
        given = ", ".join(options.provider_options)
        sentence = f"{CPU} has no options, and {given} was given: name the provider with --require-provider"
        raise StartError(Reason.LOAD_FAILED, sentence)
    return provider


def record_placement(settings: ort.SessionOptions, provider: str) -> None:
    """Have the session remember where it puts each operation; the CPU's provider takes them all anyway."""
    if provider != CPU:
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")


def check_placement(session: ort.InferenceSession, provider: str, options: LoadOptions) -> None:
    """Raise StartError(ProviderMismatch) if the provider does not compute the graph, or not all of it."""
    if provider == CPU:
        return
    placed: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        placed.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
    if provider not in placed:
        sentence = f"{provider} takes no operation of the model: the CPU would compute all of it"
        raise StartError(Reason.PROVIDER_MISMATCH, sentence)
    if not options.cpu_fallback:
        refuse_fallback(provider, sum(map(len, placed.values())), placed.get(CPU, ()))
