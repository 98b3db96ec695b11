"""The demo: the bundled corpus, searched and measured, as a page."""
