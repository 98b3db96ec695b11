"""The command `python -m benchmarks.emojicir`: EmojiCIR, read by `benchmarks/tasks/emojicir.py`."""

from benchmarks.harness.run import main
from benchmarks.tasks.emojicir import BENCHMARK

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
