"""Vectors on disk and nearest-neighbor search over them: exact, through SQ8 codes, FAISS or GPUs."""
