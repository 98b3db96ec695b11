"""The command `python -m benchmarks.genecis`: GeneCIS, read by `benchmarks/tasks/genecis.py`."""

from benchmarks.harness.run import main
from benchmarks.tasks.genecis import BENCHMARK

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
