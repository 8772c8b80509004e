"""Pictures as requests: what a manifest may declare, reading them, and the labels of the answer.

``schema`` and ``fields`` are plain Python, for the manifest is also read where no numpy is loaded. Everything
that needs Pillow is imported only when a model that takes pictures starts.
"""
