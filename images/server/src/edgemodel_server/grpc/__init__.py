"""gRPC on an HTTP/2 of its own: prior knowledge, cleartext, unary and streaming calls.

The layers, each unaware of those above it: ``frames``, ``frame_reader`` and ``header_block`` (HPACK),
``stream`` and ``outbox`` (flow control), ``http2`` (the state machine of a connection), ``rpc`` (messages,
deadlines, status), and the services. ``connection`` and ``endpoint`` bind them to sockets.
"""
