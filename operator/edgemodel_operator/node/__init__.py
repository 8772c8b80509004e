"""The second line on a node: containerd asks before it pulls an image, and only trusted ones are pulled."""
