"""Synthesis of image-and-text training data from passages, with a language model and retrieval, as in GME."""
