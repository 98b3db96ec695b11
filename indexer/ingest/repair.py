"""Repair a collection: drop what is damaged, so that indexing again restores it.

What this module does not know: models, search, how damage is found (`check.py`).
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import delete, func, select, update

from indexer.errors import StoreError
from indexer.files.layout import MEDIA, SEGMENT_NAME, Layout, image_path
from indexer.ingest.check import check_segment, orphan_media
from indexer.ingest.writer import Writer
from indexer.metadata.catalog import MAX_PARAMETERS, Catalog
from indexer.metadata.publish import copy_generation
from indexer.metadata.schema import DocumentRow, SegmentRow, SpaceRow, VectorRow
from indexer.vectors.cache import index_lock, problems, remove_index
from indexer.vectors.segments import SegmentFile


def repair(catalog: Catalog, layout: Layout) -> list[str]:
    """Repair what can be repaired, so that indexing the sources again restores the rest; sweep orphans.

    Documents of a damaged segment lose their vector in its space if they have one in another space, and are deleted
    otherwise. A document whose stored image is damaged stays; indexing its source again embeds and stores it anew.

    Returns:
        A sentence for each repair.
    """
    done: list[str] = []
    generation = catalog.generation().number
    spaces = catalog.spaces(generation)
    with Writer(catalog, layout, spaces[0]) as writer:
        done += [f"removed the orphan {path}" for path in writer.swept]
        generation = catalog.generation().number
        for space in catalog.spaces(generation):
            for segment in catalog.segments(generation, space.id):
                if not check_segment(layout, segment, space):
                    continue
                buried, spared = _drop_segment(catalog, segment)
                if SEGMENT_NAME.fullmatch(segment.file):
                    (layout.segments / segment.file).unlink(missing_ok=True)
                line = f"dropped the damaged segment {segment.file} with {buried} documents; index their source again"
                if spared:
                    line += f" ({spared} more have no vector in the space {space.name} now; fill the space again)"
                done.append(line)
        done += [f"removed the orphan {path}" for path in sweep_media(catalog, layout)]
        done += _drop_damaged_indexes(catalog, layout)
        for path, documents in _drop_damaged_media(catalog, layout).items():
            done.append(f"dropped the damaged image {path} of {documents} documents; index their source again")
    return done


def _drop_damaged_indexes(catalog: Catalog, layout: Layout) -> list[str]:
    """Remove damaged and unused index files; call it only while holding the writer's lock."""
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


def sweep_media(catalog: Catalog, layout: Layout) -> list[Path]:
    """Remove stored images that no document uses; call it only while holding the writer's lock."""
    orphans = list(orphan_media(catalog, layout))
    catalog.database.standing()
    for path in orphans:
        path.unlink(missing_ok=True)
    return orphans


def _drop_damaged_media(catalog: Catalog, layout: Layout) -> dict[Path, int]:
    """Remove damaged stored images and the stamps of their documents, so that these count as changed."""
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
            path = Path(uri)  # not our file: it is left alone
        with catalog.database.write() as connection:
            for start in range(0, len(names), MAX_PARAMETERS):
                named = [DocumentRow.id.in_(names[start : start + MAX_PARAMETERS]), DocumentRow.died.is_(None)]
                dropped[path] = (
                    dropped.get(path, 0)
                    + connection.execute(update(DocumentRow).where(*named).values(stamp=None)).rowcount
                )
    return dropped


def _drop_segment(catalog: Catalog, segment: SegmentFile) -> tuple[int, int]:
    """Drop a segment; returns how many documents were deleted with it, and how many remain in other spaces."""
    with catalog.database.write() as connection:
        own = select(SegmentRow.id).where(SegmentRow.file == segment.file).scalar_subquery()
        inside = select(VectorRow.document).where(VectorRow.segment == own)
        elsewhere = (
            select(VectorRow.document)
            .join(SegmentRow, VectorRow.segment == SegmentRow.id)
            .join(SpaceRow, SegmentRow.space == SpaceRow.id)
            .where(SegmentRow.died.is_(None), SegmentRow.file != segment.file, SpaceRow.died.is_(None))
        )
        living = [DocumentRow.key.in_(inside), DocumentRow.died.is_(None)]
        spared = list(
            connection.execute(select(DocumentRow.key).where(*living, DocumentRow.key.in_(elsewhere))).scalars()
        )
        living.append(DocumentRow.key.not_in(elsewhere))
        lost = connection.execute(select(func.count()).select_from(DocumentRow).where(*living)).scalar_one()
        number = copy_generation(connection, f"repaired: dropped {segment.file}", documents=-lost)
        connection.execute(update(DocumentRow).where(*living).values(died=number))
        connection.execute(update(SegmentRow).where(SegmentRow.file == segment.file).values(died=number))
        if spared:  # they have none in this space now, and can be embedded again
            connection.execute(delete(VectorRow).where(VectorRow.segment == own, VectorRow.document.in_(elsewhere)))
    return lost, len(spared)
