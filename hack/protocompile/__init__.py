"""The Python code of the inference server's protobuf messages, made from its .proto files."""
