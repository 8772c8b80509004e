"""Runtime images from a user's own Dockerfile: the model is put on top of them as on a published one."""
