"""Turning models that no runtime loads into ones that some do, by the exporters of the formats' makers.

`__main__` runs in an image that carries an exporter (PyTorch or TensorFlow), in a limited process of its
own; only it imports the modules here. `build/conversion.py` starts it.
"""
