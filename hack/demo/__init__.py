"""The demo: the main job of the product, shown on a real cluster with real models, every claim checked."""
