"""Telling what is in model files that nobody vouches for: one reader for each format, run by `__main__`.

Only the inspecting process imports the readers (`inspection.py` starts it): one of them needs onnx.
"""
