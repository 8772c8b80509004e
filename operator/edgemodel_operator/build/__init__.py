"""Building images: fetch a model, inspect it, graft it onto a runtime image, push the result."""
