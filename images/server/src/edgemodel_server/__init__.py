"""An Open Inference Protocol server for small edge machines."""
