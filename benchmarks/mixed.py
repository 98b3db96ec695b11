"""The command `python -m benchmarks.mixed`: a mixed collection of the bundled emoji."""

from benchmarks.tasks.mixed import main

if __name__ == "__main__":
    raise SystemExit(main())
