"""The command `python -m benchmarks.speed_index`: how fast indexing is."""

from benchmarks.speed.index import main

if __name__ == "__main__":
    raise SystemExit(main())
