"""Finding the nearest vectors: the protocol, exact search, FAISS, and the rule that chooses between them."""
