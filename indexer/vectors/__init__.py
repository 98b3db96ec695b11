"""Vectors in segments and how the nearest are found: exactly, through SQ8 codes, FAISS or GPUs."""
