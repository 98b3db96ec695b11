"""Our models in the hands of other libraries: mteb, sentence-transformers."""
