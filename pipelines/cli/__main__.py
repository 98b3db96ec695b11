"""`python -m pipelines.cli`: the command `underdrawing` without its script."""

from __future__ import annotations

from pipelines.cli.app import main

main()
