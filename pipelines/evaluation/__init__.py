"""Retrieval measured: queries with known answers in, measures with intervals out, results side by side."""
