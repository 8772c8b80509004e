"""How every contender opens a model: the same options for all, or the comparison would be of options."""

from __future__ import annotations

import onnxruntime


def open_session(path: str) -> onnxruntime.InferenceSession:
    """Open an ONNX model on the CPU: one thread per call, none that spins while it waits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
