"""Builders of the bundled emoji corpus and EmojiCIR, and measurements of models on the corpus."""
