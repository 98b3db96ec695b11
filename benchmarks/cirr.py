"""The command `python -m benchmarks.cirr`: CIRR, read by `benchmarks/tasks/cirr.py`."""

from benchmarks.harness.run import main
from benchmarks.tasks.cirr import BENCHMARK

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
