"""The command `python -m benchmarks.submission`, which checks files for the servers of CIRR and CIRCO."""

from benchmarks.harness.submission import main

if __name__ == "__main__":
    raise SystemExit(main())
