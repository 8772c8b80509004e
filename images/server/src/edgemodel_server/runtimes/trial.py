"""A trial in a process of its own, for runtimes that some damaged files crash instead of being refused.

The child loads the model and computes it once, on zeros. Where that ends it, the parent is told why its model
cannot be served, and goes on with its other models. LiteRT needs this: of 10 000 damaged files a few end the
process with SIGSEGV or SIGABRT. ONNX Runtime and OpenVINO refused or served all of as many.

A trial costs the start of an interpreter and of the runtime: one is enough for a file that stays the same.
"""

import ctypes
import json
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import numpy as np

from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import Reason, StartError
from edgemodel_server.log import log_warning
from edgemodel_server.runtimes import LoadOptions, Model

_SECONDS = 300.0
"""A slow machine, or an emulated one, may need minutes; what needs more hangs."""

_PR_SET_PDEATHSIG = 1

_passed: set[tuple[object, ...]] = set()


def try_loading(module: str, path: Path, options: LoadOptions) -> None:
    """Load the file by ``module.load_untried`` in a child; raises StartError with what the child met."""
    status = path.stat()
    key = (module, str(path), status.st_ino, status.st_size, status.st_mtime_ns, repr(options))
    if key in _passed:
        return
    child = _run_child(module, path, options)
    if child is None:
        return
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        sentence = (
            f"{path} cannot be loaded: it ended a trial of the runtime with {name}; is the file damaged?"
        )
        raise StartError(Reason.LOAD_FAILED, sentence)
    if child.returncode:
        raise _read_failure(path, child.stdout, child.stderr)
    _passed.add(key)


def _run_child(module: str, path: Path, options: LoadOptions) -> subprocess.CompletedProcess[bytes] | None:
    """Return the ended child; None where this process may not start one."""
    told = {**asdict(options), "delegate": options.delegate and str(options.delegate)}
    # -P: the current folder may be where somebody downloads models; nothing in it is a module of ours.
    command = [sys.executable, "-P", "-m", __name__, module, str(path), json.dumps(told)]
    try:
        return subprocess.run(command, check=False, input=b"", capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        sentence = f"{path} cannot be loaded: a trial did not end in {_SECONDS:.0f} s"
        raise StartError(Reason.LOAD_FAILED, sentence) from None
    except OSError as error:
        log_warning("model loaded without a trial", model=str(path), error=str(error))
        return None


def _read_failure(path: Path, stdout: bytes, stderr: bytes) -> StartError:
    try:
        told = json.loads(stdout)
        return StartError(Reason(told["reason"]), told["message"])
    except (ValueError, KeyError, TypeError):
        last = stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return StartError(Reason.LOAD_FAILED, f"{path} cannot be loaded: a trial failed: {last}")


def main(module: str, path: str, told: str) -> int:
    """Be the child: load the model, compute it once, and say on standard output what keeps it from that."""
    _be_expendable()
    given = json.loads(told)
    options = LoadOptions(**{**given, "delegate": given["delegate"] and Path(given["delegate"])})
    try:
        model: Model = import_module(module).load_untried(Path(path), options)
    except StartError as error:
        sys.stdout.write(json.dumps({"reason": error.reason, "message": error.message}))
        return 1
    # What the model answers, or that it refuses zeros, is none of a trial's business.
    with suppress(Exception):
        inputs = {name: _zeros(spec) for name, spec in model.signature.inputs.items()}
        model.run(inputs, list(model.signature.outputs))
    return 0


def _be_expendable() -> None:
    """End with the parent; end before it where memory is short; leave no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _zeros(spec: TensorSpec) -> Tensor:
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    return (
        np.full(shape, b"", np.object_)
        if spec.datatype == BYTES
        else np.zeros(shape, NUMPY_DTYPE[spec.datatype])
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
