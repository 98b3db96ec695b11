"""The command `python -m benchmarks.photos`: product photos, read by `benchmarks/tasks/photos.py`."""

from benchmarks.harness.run import main
from benchmarks.tasks.photos import BENCHMARK

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
