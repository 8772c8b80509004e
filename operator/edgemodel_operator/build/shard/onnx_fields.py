"""The numbers of the fields of ONNX that are read or written here. Source: onnx.proto of ONNX 1.21."""

from __future__ import annotations

MODEL_GRAPH = 7
MODEL_FUNCTION = 25
GRAPH_NODE = 1
GRAPH_INITIALIZER = 5
GRAPH_SPARSE_INITIALIZER = 15
NODE_INPUT = 1
TENSOR_DATA_TYPE = 2
TENSOR_NAME = 8
TENSOR_RAW_DATA = 9
TENSOR_EXTERNAL_DATA = 13
TENSOR_DATA_LOCATION = 14
ENTRY_KEY = 1
ENTRY_VALUE = 2

TYPE_STRING = 8
"""`TensorProto.DataType`: texts, which have no raw bytes."""
LOCATION_EXTERNAL = 1
"""`TensorProto.DataLocation`: the bytes are in another file."""
CONTENT = frozenset({TENSOR_RAW_DATA, TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION})
"""The fields that say what the bytes of a tensor are, or where."""
