"""Training data of image and text together, made from passages: GME's way, by a language model and retrieval."""
