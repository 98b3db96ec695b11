"""Helper models that methods use besides the collection's embedder: pseudo-targets, captions, rewritten captions."""
