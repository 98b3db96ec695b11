"""Evaluation of retrieval: measures with confidence intervals, and tables that compare results."""
