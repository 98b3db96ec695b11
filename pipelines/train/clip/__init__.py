"""Train an open_clip model on a captioned corpus."""
