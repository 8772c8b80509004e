"""OCI images and registries: formats as pure functions over bytes, and one asyncio client for all I/O."""
