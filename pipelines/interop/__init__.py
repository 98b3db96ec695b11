"""Adapters of our models for other libraries: mteb and sentence-transformers."""
