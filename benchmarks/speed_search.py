"""The command `python -m benchmarks.speed_search`: how fast searching is."""

from benchmarks.speed.search import main

if __name__ == "__main__":
    raise SystemExit(main())
