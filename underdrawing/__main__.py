"""`python -m underdrawing`: the command line, for environments whose scripts are not on the path."""

from __future__ import annotations

from pipelines.cli.app import main

main()
