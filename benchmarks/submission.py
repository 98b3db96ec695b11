"""The command `python -m benchmarks.submission`: files for the servers of CIRR and CIRCO are checked."""

from benchmarks.harness.submission import main

if __name__ == "__main__":
    raise SystemExit(main())
