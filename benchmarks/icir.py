"""The command `python -m benchmarks.icir`: i-CIR, read by `benchmarks/tasks/icir.py`."""

from benchmarks.harness.run import main
from benchmarks.tasks.icir import BENCHMARK

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
