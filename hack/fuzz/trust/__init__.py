"""What decides about trust and is written by strangers: signed documents, manifests, key files, reviews."""
