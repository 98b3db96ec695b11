"""The parts of the batch job, which `indexer/build.py` puts together.

What this package does not know: any corpus format, any model, how commits work.
"""
