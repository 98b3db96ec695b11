"""The command `python -m benchmarks.patterncom`: PatternCom, read by `benchmarks/tasks/patterncom.py`."""

from benchmarks.harness.run import main
from benchmarks.tasks.patterncom import BENCHMARK

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
