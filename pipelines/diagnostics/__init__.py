"""Measures that explain a collection's rankings, and an installation's state."""
