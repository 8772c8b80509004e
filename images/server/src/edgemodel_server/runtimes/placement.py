"""Where the operations of a graph are computed: no runtime may leave some to the CPU without a word."""

from collections import Counter
from collections.abc import Iterable

from edgemodel_server.errors import Reason, StartError

_MAX_NAMED = 8


def refuse_fallback(provider: str, total: int, on_cpu: Iterable[str]) -> None:
    """Raise StartError(ProviderMismatch) if the CPU would compute any operation in place of the provider.

    ``on_cpu`` are the types of the operations that the provider did not take, once for each of them.
    """
    kinds = Counter(on_cpu)
    if not kinds:
        return
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_MAX_NAMED))
    more = "" if len(kinds) <= _MAX_NAMED else ", …"
    sentence = (
        f"{provider} computes only {total - kinds.total()} of the model's {total} operations, the CPU would"
        f" compute {named}{more}: accept that with --allow-cpu-fallback, or convert the model"
    )
    raise StartError(Reason.PROVIDER_MISMATCH, sentence)
