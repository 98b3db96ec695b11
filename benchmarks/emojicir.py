"""The command `python -m benchmarks.emojicir`: EmojiCIR."""

from benchmarks.tasks.emojicir import main

if __name__ == "__main__":
    raise SystemExit(main())
