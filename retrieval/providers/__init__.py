"""What methods ask for besides the collection's embedder: pseudo-targets, captions, rewritten sentences."""
