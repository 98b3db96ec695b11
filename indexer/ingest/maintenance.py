"""Check a collection against what SQL says of it, mend it, and compact it.

What this module does not know: models, search.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from indexer.errors import CorruptionError, ItemError, SnapshotGoneError, StoreError
from indexer.files.atomic import TEMPORARY_PREFIX, file_digest
from indexer.files.layout import IMAGE_NAME, SEGMENT_NAME, Layout
from indexer.files.media import MEDIA, image_path
from indexer.ingest.writer import Writer
from indexer.metadata.catalog import MAX_PARAMETERS, Catalog, Space
from indexer.metadata.document_images import image_uris
from indexer.metadata.publish import copy_generation
from indexer.metadata.schema import DocumentRow, GenerationRow, MeanRow, SegmentRow, VectorRow
from indexer.types import Ids, Vectors
from indexer.vectors.cache import index_lock, problems, remove_index
from indexer.vectors.segments import SegmentFile, open_segment, segment_name, segment_path, write_segment

ROWS_PER_SEGMENT = 1 << 18
"""Rows of a compacted segment; at 512 dimensions half a gigabyte."""


CHECKS = 10
"""How often a check is begun, beside writers that remove what it looks at."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as SQL says.

    Attributes:
        what: The file or row.
        problem: What is wrong.
        harmful: Whether answers are affected; an orphan file only takes space.
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


def check(catalog: Catalog, layout: Layout, space: Space, on_file: Callable[[Path], None] | None = None) -> Report:
    """Compare every file with its checksum, every count with the rows, and look for orphans. Changes nothing.

    No transaction stays open meanwhile. Where a writer removes what is being looked at, the check begins again.
    """
    for _ in range(CHECKS - 1):
        try:
            report = _check_once(catalog, layout, space, on_file)
        except SnapshotGoneError:
            continue
        if report.clean or catalog.generation().number == report.generation:
            return report
    return _check_once(catalog, layout, space, on_file)


def _check_once(catalog: Catalog, layout: Layout, space: Space, on_file: Callable[[Path], None] | None) -> Report:
    generation = catalog.generation()
    segments = catalog.segments(generation.number, space.id)
    findings = [Finding("the database", problem) for problem in catalog.database.problems()]
    for segment in segments:
        if on_file is not None:
            on_file(layout.segments / Path(segment.file).name)
        findings += _check_segment(layout, segment, space)
    findings += _check_rows(catalog, generation.number, generation.documents)
    findings += _check_orphans(catalog, layout)
    findings += _check_indexes(catalog, layout, on_file)
    findings += _check_images(catalog, layout, generation.number, on_file)
    return Report(generation.number, generation.documents, len(segments), findings)


def repair(catalog: Catalog, layout: Layout, space: Space) -> list[str]:
    """Make whole what can be, so that indexing the sources again brings the rest back; sweep orphans.

    The documents of a damaged segment are buried. A document whose stored image is damaged stays, and is embedded
    and stored anew when its source is indexed again.

    Returns:
        What was done, a sentence each.
    """
    done: list[str] = []
    with Writer(catalog, layout, space) as writer:
        done += [f"removed the orphan {path}" for path in writer.swept]
        generation = catalog.generation().number
        for segment in catalog.segments(generation, space.id):
            if not _check_segment(layout, segment, space):
                continue
            buried = _bury_segment(catalog, segment)
            if SEGMENT_NAME.fullmatch(segment.file):
                (layout.segments / segment.file).unlink(missing_ok=True)
            done.append(f"dropped the damaged segment {segment.file} with {buried} documents; index their source again")
        done += [f"removed the orphan {path}" for path in _sweep_media(catalog, layout)]
        done += _drop_damaged_indexes(catalog, layout)
        for path, documents in _drop_damaged_media(catalog, layout).items():
            done.append(f"dropped the damaged image {path} of {documents} documents; index their source again")
    return done


def compact(catalog: Catalog, layout: Layout, space: Space) -> tuple[int, int]:
    """Merge the segments and drop the dead, as one new generation.

    The new files are whole and durable before the one transaction that swaps them in, and the old are deleted after
    it: a crash at any point leaves the old state or the new, and orphans that the next writer sweeps.

    Returns:
        Segments before and after.

    Raises:
        CorruptionError: A segment is damaged; nothing is changed.
    """
    with Writer(catalog, layout, space) as writer:
        generation = catalog.generation()
        old = catalog.segments(generation.number, space.id)
        for segment in old:
            problems = _check_segment(layout, segment, space)
            if problems:
                raise CorruptionError(
                    f"{problems[0].what} is damaged: {problems[0].problem}.",
                    "Run `underdrawing check --repair` first; nothing was changed.",
                )
        dead = catalog.tombstones(generation.number, space.id)
        _require_room(layout, sum(each.size for each in old))
        new = list(_rewrite(layout, old, space, dead))
        with catalog.database.write() as connection:
            number = copy_generation(connection, "compacted")
            _swap(connection, space, old, new, number)
        writer.sweep()
        _sweep_media(catalog, layout)
    catalog.database.tidy()
    return len(old), len(new)


def _require_room(layout: Layout, needed: int) -> None:
    """Refuse a compaction that the disk cannot hold: the old segments are removed after the new ones are whole."""
    free = shutil.disk_usage(layout.folder).free
    if needed > free:
        raise StoreError(
            f"{layout.folder} needs up to {needed:,} bytes to compact, and {free:,} are free on its disk. Nothing was "
            "changed.",
            "Free some space, or move the collection to a larger disk.",
        )


def _check_segment(layout: Layout, segment: SegmentFile, space: Space) -> list[Finding]:
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


def _check_rows(catalog: Catalog, generation: int, documents: int) -> Iterator[Finding]:
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
            .outerjoin(VectorRow, VectorRow.document == DocumentRow.key)
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


def _check_orphans(catalog: Catalog, layout: Layout) -> Iterator[Finding]:
    known = {each.file for each in catalog.segments(catalog.generation().number)}
    unknown = [path for path in layout.segments.glob("*") if path.name not in known]
    orphans = [path for path in unknown if SEGMENT_NAME.fullmatch(path.name)]
    orphans += list(_orphan_media(catalog, layout))
    orphans += [*layout.segments.glob(".tmp*"), *layout.media.rglob(f"{TEMPORARY_PREFIX}*")]
    for path in orphans:
        yield Finding(str(path), "no document needs it (the next writer, or --repair, removes it)", harmful=False)
    for path in sorted(set(unknown).difference(orphans)):
        yield Finding(str(path), "it has no name of a segment, and is left alone", harmful=False)


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


def _drop_damaged_indexes(catalog: Catalog, layout: Layout) -> list[str]:
    """Remove what is wrong in the folder of index files; call it only while holding the writer's lock."""
    if not layout.indexes.is_dir():
        return []
    living = [each.sha256 for each in catalog.segments(catalog.generation().number)]
    done = []
    with index_lock(layout.indexes):
        for problem in problems(layout.indexes, living):
            if problem.index:
                remove_index(problem.path)
                done.append(f"removed the index file {problem.path}: {problem.what}; build the index again")
    return done


def _sweep_media(catalog: Catalog, layout: Layout) -> list[Path]:
    """Remove stored images that no document names; call it only while holding the writer's lock."""
    orphans = list(_orphan_media(catalog, layout))
    catalog.database.standing()
    for path in orphans:
        path.unlink(missing_ok=True)
    return orphans


def _drop_damaged_media(catalog: Catalog, layout: Layout) -> dict[Path, int]:
    """Remove damaged stored images, and the stamps of their documents, which then count as changed."""
    from indexer.corpus.images import image_digest

    dropped: dict[Path, int] = {}
    stored: dict[tuple[str, str | None], list[str]] = {}
    for name, uri, digest in catalog.living_images(catalog.generation().number):
        if uri.startswith(MEDIA):
            stored.setdefault((uri, digest), []).append(name)
    for (uri, digest), names in stored.items():
        try:
            path = image_path(layout.media, uri)
            if path.exists() and image_digest(path) == digest:
                continue
            path.unlink(missing_ok=True)
        except StoreError:
            path = Path(uri)  # no file of ours: it is not touched
        with catalog.database.write() as connection:
            for start in range(0, len(names), MAX_PARAMETERS):
                named = [DocumentRow.id.in_(names[start : start + MAX_PARAMETERS]), DocumentRow.died.is_(None)]
                dropped[path] = (
                    dropped.get(path, 0)
                    + connection.execute(update(DocumentRow).where(*named).values(stamp=None)).rowcount
                )
    return dropped


def _orphan_media(catalog: Catalog, layout: Layout) -> Iterator[Path]:
    if not layout.media.exists():
        return
    uris = image_uris(catalog.database, MEDIA)
    for path in sorted(layout.media.glob("*/*")):
        name = path.relative_to(layout.media).as_posix()
        if IMAGE_NAME.fullmatch(name) and f"{MEDIA}{name}" not in uris:
            yield path


def _bury_segment(catalog: Catalog, segment: SegmentFile) -> int:
    with catalog.database.write() as connection:
        inside = (
            select(VectorRow.document)
            .join(SegmentRow, VectorRow.segment == SegmentRow.id)
            .where(SegmentRow.file == segment.file)
        )
        living = [DocumentRow.key.in_(inside), DocumentRow.died.is_(None)]
        lost = connection.execute(select(func.count()).select_from(DocumentRow).where(*living)).scalar_one()
        number = copy_generation(connection, f"repaired: dropped {segment.file}", documents=-lost)
        connection.execute(update(DocumentRow).where(*living).values(died=number))
        connection.execute(update(SegmentRow).where(SegmentRow.file == segment.file).values(died=number))
    return lost


def _rewrite(layout: Layout, old: list[SegmentFile], space: Space, dead: Ids) -> Iterator[tuple[SegmentFile, Ids]]:
    """New segments with the living rows, in order of id, without holding more than one in memory."""
    held: list[tuple[Vectors, Ids]] = []

    def flush() -> tuple[SegmentFile, Ids]:
        vectors = np.concatenate([each[0] for each in held])
        ids = np.concatenate([each[1] for each in held])
        held.clear()
        return write_segment(layout.segments, segment_name(int(ids[0])), vectors, ids, space.digest), ids

    for segment in sorted(old, key=lambda each: each.file):
        vectors, ids = open_segment(layout.segments, segment, space.digest, space.dim)
        kept = ~np.isin(ids, dead)
        if kept.any():
            held.append((vectors[kept], ids[kept]))
        if sum(len(ids) for _, ids in held) >= ROWS_PER_SEGMENT:
            yield flush()
    if held:
        yield flush()


def _swap(
    connection: Connection,
    space: Space,
    old: list[SegmentFile],
    new: list[tuple[SegmentFile, Ids]],
    generation: int,
) -> None:
    """Point the living vectors at the new segments; drop all dead rows, and the generations that had them."""
    dead = select(DocumentRow.key).where(DocumentRow.died.is_not(None))
    connection.execute(delete(VectorRow).where(VectorRow.document.in_(dead)))
    connection.execute(delete(DocumentRow).where(DocumentRow.died.is_not(None)))
    for segment, ids in new:
        number = connection.execute(
            insert(SegmentRow)
            .values(
                space=space.id, file=segment.file, sha256=segment.sha256, size=segment.size, rows=segment.rows,
                born=generation,
            )
            .returning(SegmentRow.id)
        ).scalar_one()  # fmt: skip
        connection.execute(
            update(VectorRow)
            .where(VectorRow.id == bindparam("vector"))
            .values(segment=number, row=bindparam("position")),
            [{"vector": int(each), "position": position} for position, each in enumerate(ids)],
        )
    for segment in old:
        connection.execute(delete(SegmentRow).where(SegmentRow.file == segment.file))
    connection.execute(delete(SegmentRow).where(SegmentRow.died.is_not(None)))
    connection.execute(delete(GenerationRow).where(GenerationRow.number < generation))
    newest = (
        select(MeanRow.role, MeanRow.modality, func.max(MeanRow.generation).label("generation"))
        .where(MeanRow.space == space.id)
        .group_by(MeanRow.role, MeanRow.modality)
        .subquery()
    )
    connection.execute(
        delete(MeanRow).where(
            MeanRow.space == space.id,
            MeanRow.generation
            < select(newest.c.generation)
            .where(newest.c.role == MeanRow.role, newest.c.modality == MeanRow.modality)
            .scalar_subquery(),
        )
    )
