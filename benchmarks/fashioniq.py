"""The command `python -m benchmarks.fashioniq`: FashionIQ, read by `benchmarks/tasks/fashioniq.py`."""

from benchmarks.harness.run import main
from benchmarks.tasks.fashioniq import BENCHMARK

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
