"""Training of an open_clip model on a captioned corpus."""
