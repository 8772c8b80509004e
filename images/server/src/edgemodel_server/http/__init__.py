"""HTTP/1.1 on ``asyncio.Protocol``: knows messages, limits and time-outs, and nothing of models."""
