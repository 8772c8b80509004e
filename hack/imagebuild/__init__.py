"""Builds the project's own images for several architectures without a container engine, chroot or emulation.

Debian packages are unpacked, wheels are installed for a foreign platform by uv, and both become layers:
bytes and JSON only. Same inputs, same digests. Run `python -m imagebuild --help`.
"""
