"""Data adapters, data builders and measurements; run from a checkout as `python -m benchmarks.NAME`."""
