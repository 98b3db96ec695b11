"""The command `python -m benchmarks.mixed`: a mixed collection, read by `benchmarks/tasks/mixed.py`."""

from benchmarks.harness.run import main
from benchmarks.tasks.mixed import BENCHMARK

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
