"""An Open Inference Protocol v2 server for small edge machines.

It runs alone (``edgemodel-server --model FILE``) and in model pods, where its arguments and endpoints follow
``images/CONTRACT.md``. It makes no outbound connection and writes no file.
"""

__version__ = "0.1.0"
