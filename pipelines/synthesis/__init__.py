"""Training data of picture and text together, made from passages: GME's way, by a language model and retrieval."""
