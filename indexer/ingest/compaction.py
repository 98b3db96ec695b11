"""Compaction: merge the segments of each space and drop dead rows.

What this module does not know: models, search.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from indexer.errors import CorruptionError, StoreError
from indexer.files.layout import Layout
from indexer.ingest.check import check_segment
from indexer.ingest.repair import sweep_media
from indexer.ingest.writer import Writer
from indexer.metadata.catalog import Catalog, Space
from indexer.metadata.publish import copy_generation
from indexer.metadata.schema import DocumentRow, GenerationRow, MeanRow, SegmentRow, SpaceRow, VectorRow
from indexer.types import Ids, Vectors
from indexer.vectors.segments import SegmentFile, open_segment, segment_name, write_segment

ROWS_PER_SEGMENT = 1 << 18
"""Rows of a compacted segment; at 512 dimensions half a gigabyte."""


def compact(catalog: Catalog, layout: Layout) -> tuple[int, int]:
    """Merge the segments of each space and drop dead rows, as one new generation.

    The new files are complete and durable before one transaction swaps them in, and the old files are deleted after it:
    a crash at any point leaves the old state or the new one, and orphans that the next writer sweeps.

    Returns:
        The numbers of segments before and after.

    Raises:
        CorruptionError: A segment is damaged; nothing is changed.
        StoreError: The disk has no room for the new segments beside the old ones; nothing is changed.
    """
    with Writer(catalog, layout, catalog.spaces(catalog.generation().number)[0]) as writer:
        generation = catalog.generation()
        spaces = catalog.spaces(generation.number)
        old = {space.id: catalog.segments(generation.number, space.id) for space in spaces}
        for space in spaces:
            _require_whole(layout, old[space.id], space)
        files = [each for own in old.values() for each in own]
        _require_room(layout, sum(each.size for each in files))
        new = [
            (space, file, ids)
            for space in spaces
            for file, ids in _rewrite(layout, old[space.id], space, catalog.tombstones(generation.number, space.id))
        ]
        with catalog.database.write() as connection:
            _swap(connection, files, new, copy_generation(connection, "compacted"))
        writer.sweep()
        sweep_media(catalog, layout)
    catalog.database.tidy()
    return len(files), len(new)


def _require_whole(layout: Layout, segments: list[SegmentFile], space: Space) -> None:
    for segment in segments:
        if found := check_segment(layout, segment, space):
            raise CorruptionError(
                f"{found[0].what} is damaged: {found[0].problem}.",
                "Run `underdrawing check --repair` first; nothing was changed.",
            )


def _require_room(layout: Layout, needed: int) -> None:
    """Refuse a compaction for which the disk has no room: old segments are removed only after new ones are complete."""
    free = shutil.disk_usage(layout.folder).free
    if needed > free:
        raise StoreError(
            f"{layout.folder} needs up to {needed:,} bytes to compact, and {free:,} are free on its disk. Nothing was "
            "changed.",
            "Free some space, or move the collection to a larger disk.",
        )


def _rewrite(layout: Layout, old: list[SegmentFile], space: Space, dead: Ids) -> Iterator[tuple[SegmentFile, Ids]]:
    """Write new segments with the living rows, in order of id, holding at most one in memory."""
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
    old: list[SegmentFile],
    new: list[tuple[Space, SegmentFile, Ids]],
    generation: int,
) -> None:
    """Point the living vectors at the new segments; drop dead rows and the generations that had them."""
    dead = select(DocumentRow.key).where(DocumentRow.died.is_not(None))
    dropped = select(SpaceRow.id).where(SpaceRow.died.is_not(None))
    connection.execute(delete(VectorRow).where(VectorRow.document.in_(dead) | VectorRow.space.in_(dropped)))
    connection.execute(delete(DocumentRow).where(DocumentRow.died.is_not(None)))
    for space, segment, ids in new:
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
    connection.execute(delete(MeanRow).where(MeanRow.space.in_(dropped)))
    connection.execute(delete(SpaceRow).where(SpaceRow.died.is_not(None)))
    key = (MeanRow.space, MeanRow.role, MeanRow.modality)
    newest = select(*key, func.max(MeanRow.generation).label("generation")).group_by(*key).subquery()
    same = [column == newest.c[column.key] for column in key]
    connection.execute(
        delete(MeanRow).where(MeanRow.generation < select(newest.c.generation).where(*same).scalar_subquery())
    )
