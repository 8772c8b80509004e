"""Moving the weights of an ONNX model out of its file, so that each part of them becomes a layer of its own.

`wire` reads Protocol Buffers by offsets, `scan` finds the weights, `plan` decides where they go, `skeleton`
writes the graph without them, and `proof` shows that nothing else has changed. Nothing here holds a model in
memory, and no native parser sees a byte.
"""
