"""The command `python -m benchmarks.circo`: CIRCO, read by `benchmarks/tasks/circo.py`."""

from benchmarks.harness.run import main
from benchmarks.tasks.circo import BENCHMARK

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
