"""Check a collection: compare its files with its tables. Nothing is changed.

What this module does not know: models, search, repairs (`repair.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select

from indexer.errors import ItemError, SnapshotGoneError, StoreError
from indexer.files.atomic import TEMPORARY_PREFIX, file_digest
from indexer.files.layout import IMAGE_NAME, MEDIA, SEGMENT_NAME, Layout, image_path
from indexer.metadata.catalog import Catalog, Space
from indexer.metadata.document_images import image_uris
from indexer.metadata.schema import DocumentRow, SegmentRow, VectorRow
from indexer.metadata.space_changes import vectors_of
from indexer.vectors.cache import problems
from indexer.vectors.segments import SegmentFile, open_segment, segment_path

CHECKS = 10
"""Attempts of a check while writers remove files that it reads."""


@dataclass(frozen=True)
class Finding:
    """One difference between a file or row and what SQL records.

    Attributes:
        what: The file or row.
        problem: What is wrong.
        harmful: Whether answers are affected; an orphan file only takes up space.
    """

    what: str
    problem: str
    harmful: bool = True


@dataclass(frozen=True)
class Report:
    """The outcome of a check."""

    generation: int
    documents: int
    segments: int
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing harmful was found."""
        return not any(finding.harmful for finding in self.findings)


def check(catalog: Catalog, layout: Layout, on_file: Callable[[Path], None] | None = None) -> Report:
    """Compare all files with their checksums and all counts with the rows, and look for orphans. Changes nothing.

    No transaction stays open meanwhile. If a writer removes what is being read, the check starts again.
    """
    for _ in range(CHECKS - 1):
        try:
            report = _check_once(catalog, layout, on_file)
        except SnapshotGoneError:
            continue
        if report.clean or catalog.generation().number == report.generation:
            return report
    return _check_once(catalog, layout, on_file)


def _check_once(catalog: Catalog, layout: Layout, on_file: Callable[[Path], None] | None) -> Report:
    generation = catalog.generation()
    spaces = catalog.spaces(generation.number)
    segments = [(space, each) for space in spaces for each in catalog.segments(generation.number, space.id)]
    findings = [Finding("the database", problem) for problem in catalog.database.problems()]
    for space, segment in segments:
        if on_file is not None:
            on_file(layout.segments / Path(segment.file).name)
        findings += check_segment(layout, segment, space)
    findings += _check_rows(catalog, spaces, generation.number, generation.documents)
    findings += _check_orphans(catalog, layout)
    findings += _check_indexes(catalog, layout, on_file)
    findings += _check_images(catalog, layout, generation.number, on_file)
    return Report(generation.number, generation.documents, len(segments), findings)


def check_segment(layout: Layout, segment: SegmentFile, space: Space) -> list[Finding]:
    """Compare a segment with its record in SQL."""
    try:
        path = segment_path(layout.segments, segment.file)
        found = file_digest(path)
    except StoreError as error:
        return [Finding(f"segment {segment.file[:200]!r}", error.message)]
    except OSError as error:
        return [Finding(str(layout.segments / segment.file), f"it cannot be read: {error.strerror}")]
    if found != segment.sha256:
        return [Finding(str(path), f"its sha256 is {found[:12]}…, recorded was {segment.sha256[:12]}…")]
    try:
        open_segment(layout.segments, segment, space.digest, space.dim)
    except StoreError as error:
        return [Finding(str(path), error.message)]
    return []


def _check_rows(catalog: Catalog, spaces: Sequence[Space], generation: int, documents: int) -> Iterator[Finding]:
    living = sum(catalog.counts(generation).values())
    if living != documents:
        yield Finding(
            "table documents",
            f"{living} documents live in generation {generation}, recorded were {documents}",
        )
    with catalog.database.read() as connection:
        without = connection.execute(
            select(func.count())
            .select_from(DocumentRow)
            .outerjoin(
                VectorRow,
                (VectorRow.document == DocumentRow.key) & VectorRow.space.in_([each.id for each in spaces]),
            )
            .where(VectorRow.id.is_(None), DocumentRow.died.is_(None))
        ).scalar_one()
        counted = connection.execute(
            select(SegmentRow.file, SegmentRow.rows, func.count(VectorRow.id))
            .outerjoin(VectorRow, VectorRow.segment == SegmentRow.id)
            .where(SegmentRow.died.is_(None))
            .group_by(SegmentRow.id, SegmentRow.file, SegmentRow.rows)
        ).all()
    if without:
        yield Finding("table vectors", f"{without} living documents have no vector")
    for file, rows, vectors in counted:
        if rows != vectors:
            yield Finding(f"segment {file}", f"it has {rows} rows and {vectors} vectors in SQL")
    having = vectors_of(catalog.database, generation) if len(spaces) > 1 else {}
    for space in spaces:
        missing = living - having.get(space.id, living if len(spaces) == 1 else 0)
        if missing:
            fault = f"{missing:,} of {living:,} documents have no vector in it; fill_space embeds them if it can"
            yield Finding(f"space {space.name}", fault, harmful=False)


def _check_orphans(catalog: Catalog, layout: Layout) -> Iterator[Finding]:
    known = {each.file for each in catalog.segments(catalog.generation().number)}
    unknown = [path for path in layout.segments.glob("*") if path.name not in known]
    orphans = [path for path in unknown if SEGMENT_NAME.fullmatch(path.name)]
    orphans += list(orphan_media(catalog, layout))
    orphans += [*layout.segments.glob(".tmp*"), *layout.media.rglob(f"{TEMPORARY_PREFIX}*")]
    for path in orphans:
        yield Finding(str(path), "no document needs it (the next writer, or --repair, removes it)", harmful=False)
    for path in sorted(set(unknown).difference(orphans)):
        yield Finding(str(path), "it is not named like a segment, and is left alone", harmful=False)


def _check_images(
    catalog: Catalog, layout: Layout, generation: int, on_file: Callable[[Path], None] | None
) -> Iterator[Finding]:
    from indexer.corpus.images import image_digest

    for identifier, uri, digest in catalog.living_images(generation):
        stored = uri.startswith(MEDIA)
        try:
            path = image_path(layout.media, uri)
        except StoreError as error:
            yield Finding(f"document {identifier!r}", error.message)
            continue
        if on_file is not None:
            on_file(path)
        try:
            changed = image_digest(path) != digest
        except ItemError as error:
            yield Finding(str(path), f"the image of document {identifier!r} is gone: {error.detail}", harmful=stored)
            continue
        if changed:
            hint = "it is damaged" if stored else "it changed since it was indexed; index its source again"
            yield Finding(str(path), f"the image of document {identifier!r}: {hint}", harmful=stored)


def _check_indexes(catalog: Catalog, layout: Layout, on_file: Callable[[Path], None] | None) -> Iterator[Finding]:
    living = [each.sha256 for each in catalog.segments(catalog.generation().number)]
    for problem in problems(layout.indexes, living):
        if on_file is not None:
            on_file(problem.path)
        yield Finding(str(problem.path), problem.what, harmful=problem.damaged)


def orphan_media(catalog: Catalog, layout: Layout) -> Iterator[Path]:
    """Stored images that no document uses."""
    if not layout.media.exists():
        return
    uris = image_uris(catalog.database, MEDIA)
    for path in sorted(layout.media.glob("*/*")):
        name = path.relative_to(layout.media).as_posix()
        if IMAGE_NAME.fullmatch(name) and f"{MEDIA}{name}" not in uris:
            yield path
