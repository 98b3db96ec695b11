"""Multimodal language models as embedders: GME, Qwen3-VL-Embedding."""
