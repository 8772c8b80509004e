"""What counting one request costs: the statements of the server's hot path, on its own objects.

Run as `python -m bench.metrics_cost` in the server's environment; prints microseconds.
"""

import time
import timeit

from edgemodel_server.metrics import ModelMetrics, Result

_ROUNDS, _TIMES = 20, 50_000


def _measure() -> float:
    metrics = ModelMetrics()

    def count() -> None:  # a request that is computed alone: the dearest case
        metrics.inputs_bytes += 2717
        metrics.queue.observe(1e-5)
        metrics.results[Result.OK] += 1
        metrics.requests.observe(1.2e-4)
        metrics.batch.observe(1)
        metrics.compute.observe(1e-4)
        metrics.outputs_bytes += 2717

    return min(timeit.repeat(count, timer=time.process_time, repeat=_ROUNDS, number=_TIMES)) / _TIMES * 1e6


if __name__ == "__main__":
    print(_measure())
