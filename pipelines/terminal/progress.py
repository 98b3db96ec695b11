"""Progress of an indexing job: a bar in a terminal, or a line every half minute in a log.

How much there is to do is counted beside the job, where a source can be counted without reading it: files of a folder,
lines of a JSONL file, rows that Parquet files declare. Archives cannot, and then no remaining time is shown.

What this module does not know: the job.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from pipelines.terminal.console import duration, err, shortened

if TYPE_CHECKING:
    from indexer.corpus.records import Corpus
    from indexer.ingest.job import Progress as Job

LINE_EVERY = 30.0
STUCK_AFTER = 5.0
"""Seconds without a document done, after which it is said where the reader is."""
"""Seconds between the lines of a log."""


class IndexProgress:
    """`with IndexProgress(corpus, path) as progress: index_corpus(..., on_progress=progress)`."""

    def __init__(self, corpus: Corpus, path: Path) -> None:
        self._total: int | None = None
        self._started = self._told = self._advanced = time.monotonic()
        self._done = 0
        columns = (SpinnerColumn(), BarColumn(bar_width=28), TextColumn("{task.fields[state]}"))
        self._bar = Progress(*columns, console=err, transient=True, refresh_per_second=4)
        self._task = self._bar.add_task("index", total=None, state="starting")
        # A daemon: a source of a hundred million files must neither delay the job's start nor its end.
        self._counter = threading.Thread(target=self._count, args=(corpus, path), daemon=True)

    def _count(self, corpus: Corpus, path: Path) -> None:
        self._total = count_entries(corpus, path)

    def __enter__(self) -> IndexProgress:
        self._counter.start()
        if err.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if err.is_terminal:
            self._bar.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While something is asked: the bar would write over it."""
        if err.is_terminal:
            self._bar.stop()
        yield
        if err.is_terminal:
            self._bar.start()

    def __call__(self, job: Job) -> None:
        """Show it."""
        # Of what is prepared some is committed already, as added or as rejected, and the reader's own rejects were
        # never prepared: the larger of the two sums is never too large.
        done = max(job.prepared + job.unchanged, job.added + job.unchanged + job.rejected)
        now = time.monotonic()
        state = progress_line(done, self._total, job.rejected, now - self._started)
        if done != self._done:
            self._done, self._advanced = done, now
        elif now - self._advanced >= STUCK_AFTER and job.place is not None:
            state += f" · {job.read:,} read, at {_place(job.place)}"
        if err.is_terminal:
            total = None if self._total is None else max(self._total, done)
            self._bar.update(self._task, completed=done, total=total, state=state)
        elif now - self._told >= LINE_EVERY:
            self._told = now
            err.print(state, soft_wrap=True)

    def building(self, what: str, done: int, total: int) -> None:
        """Show that an index is built; `index_corpus` calls it."""
        state = f"building the index: {what}, {done:,} of {total:,}"
        now = time.monotonic()
        if err.is_terminal:
            self._bar.update(self._task, completed=done, total=max(total, 1), state=state)
        elif now - self._told >= LINE_EVERY:
            self._told = now
            err.print(state, soft_wrap=True)


def progress_line(done: int, total: int | None, rejected: int, seconds: float) -> str:
    """Such as `2,048 of 10,944 · 56/s · 2 min 39 s left · 3 rejected`."""
    rate = done / seconds if seconds > 0 else 0.0
    parts = [f"{done:,}" if total is None else f"{done:,} of {max(total, done):,}"]
    parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
    if total is not None and rate > 0:
        parts.append(f"{duration(max(total - done, 0) / rate)} left")
    if rejected:
        parts.append(f"{rejected:,} rejected")
    return " · ".join(parts)


def _place(uri: str) -> str:
    """The file of an entry and where it is in it, such as `a.jsonl#line=7`."""
    file, mark, place = uri.partition("#")
    return shortened(unquote(f"{file.rpartition('/')[2]}{mark}{place}"), 60)


def count_entries(corpus: Corpus, path: Path) -> int | None:
    """About how many entries a source has; None where counting would mean reading it all, or is not possible."""
    from indexer.corpus.folder import FolderCorpus
    from indexer.corpus.jsonl import JsonlCorpus
    from indexer.corpus.parquet import ParquetCorpus

    match corpus:
        case FolderCorpus() if path.is_dir():
            return _count_folder(path)
        case JsonlCorpus() if path.suffix.lower() in (".jsonl", ".ndjson"):
            return _count_lines(path)
        case ParquetCorpus():
            return _count_rows([path])
        case _:
            return None


def _count_folder(path: Path) -> int | None:
    entries = 0
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [name for name in names if not name.startswith(".")]
        rows = [_count_table(Path(folder, name)) for name in names]
        if None in rows:
            return None
        entries += _count_names(names) + sum(each or 0 for each in rows)
    return entries


def _count_table(file: Path) -> int | None:
    """The rows of a table in a folder, none of another file, and of tables that tell of images beside them."""
    from indexer.corpus.tables import PARQUET, is_table, suffix_of

    if not is_table(file.name) or file.name.startswith("metadata."):
        return 0
    if suffix_of(file.name) == PARQUET:
        return _count_rows([file])
    return _count_lines(file) if suffix_of(file.name) in {".jsonl", ".ndjson"} else None


def _count_names(names: Iterable[str]) -> int:
    """Images, and texts that do not belong to one."""
    from indexer.corpus.records import IMAGE_SUFFIXES

    split = [(stem, f".{suffix.lower()}") for stem, _, suffix in (name.rpartition(".") for name in names) if stem]
    images = {stem for stem, suffix in split if suffix in IMAGE_SUFFIXES}
    drawn = sum(suffix in IMAGE_SUFFIXES or suffix == ".svg" for _, suffix in split)
    return drawn + sum(suffix in (".txt", ".md") and stem not in images for stem, suffix in split)


# A file that cannot be counted is no concern here: the job meets it too, and says what is wrong with it.


def _count_lines(path: Path) -> int | None:
    lines, last = 0, b"\n"
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                lines, last = lines + block.count(b"\n"), block[-1:]
    except OSError:
        return None
    return lines + (last != b"\n")


def _count_rows(files: Iterable[Path]) -> int | None:
    import pyarrow as pa
    from pyarrow.parquet import read_metadata

    try:
        return sum(int(read_metadata(file).num_rows) for file in files)
    except (OSError, pa.ArrowException):
        return None
