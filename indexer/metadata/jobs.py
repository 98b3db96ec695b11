"""The ledger of indexing jobs: which shards of which source are done, and what was rejected.

What this module does not know: how a shard is embedded. `publish.py` writes its row together with its documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from indexer.metadata.connections import undisturbed
from indexer.metadata.database import Database
from indexer.metadata.publish import FinishedShard, finish_shard
from indexer.metadata.schema import JobRow, JobShardRow, RejectRow
from indexer.types import HelpfulEnum, Rejected


class JobState(HelpfulEnum):
    """The state of a job."""

    RUNNING = "running"
    DONE = "done"


class Ledger:
    """The rows of one job. Each source with its options has one job; running it again reopens it.

    Args:
        database: The collection's.
        source: The corpus, or another source of documents.
        options: The options that must be equal for a run to continue the same job.
        space: The id of the space that it fills; None for a job that stores documents.
    """

    def __init__(self, database: Database, source: str, options: dict[str, Any], space: int | None = None) -> None:
        self._database = database
        with database.write() as connection:
            same = [JobRow.source == source, JobRow.space.is_(None) if space is None else JobRow.space == space]
            jobs = connection.execute(select(JobRow.id, JobRow.options).where(*same)).all()
            known = next((row.id for row in jobs if row.options == options), None)
            now = datetime.now(UTC)
            if known is None:
                known = connection.execute(
                    insert(JobRow)
                    .values(source=source, options=options, state=JobState.RUNNING.value, started=now, space=space)
                    .returning(JobRow.id)
                ).scalar_one()
            else:
                connection.execute(
                    update(JobRow).where(JobRow.id == known).values(state=JobState.RUNNING.value, finished=None)
                )
        self.job: int = known

    def digests(self) -> dict[int, str]:
        """The content digests of the finished shards, by number."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(JobShardRow.number, JobShardRow.digest).where(JobShardRow.job == self.job)
            ).all()
        return {row.number: row.digest for row in rows}

    def rejected(self, number: int) -> int:
        """How many rejects a finished shard has."""
        query = select(JobShardRow.rejected).where(JobShardRow.job == self.job, JobShardRow.number == number)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def record(self, shard: FinishedShard) -> None:
        """Finish a shard that had nothing to publish."""
        with self._database.write() as connection:
            finish_shard(connection, shard)

    def finish(self, shards: int, outcome: Mapping[str, Any]) -> None:
        """Close the job and drop rows of shards beyond the source's end.

        Args:
            shards: The number of the source's shards.
            outcome: Counts of the run other than its rejects, as plain JSON.
        """
        with self._database.write() as connection:
            connection.execute(delete(RejectRow).where(RejectRow.job == self.job, RejectRow.shard >= shards))
            connection.execute(delete(JobShardRow).where(JobShardRow.job == self.job, JobShardRow.number >= shards))
            connection.execute(
                update(JobRow)
                .where(JobRow.id == self.job)
                .values(state=JobState.DONE.value, finished=datetime.now(UTC), outcome=dict(outcome))
            )

    def rejects(self, limit: int | None = None) -> list[Rejected]:
        """The rejects, in the order of the source."""
        return _rejects(self._database, self.job, limit)

    def reject_counts(self) -> Counter[str]:
        """The number of rejects for each reason."""
        query = select(RejectRow.reason, func.count()).where(RejectRow.job == self.job).group_by(RejectRow.reason)
        with self._database.read() as connection:
            return Counter({row[0]: row[1] for row in connection.execute(query)})


@undisturbed
def rejects_of(database: Database, source: str, options: dict[str, Any]) -> list[Rejected]:
    """The rejects of the job of a source with these options, in the order of the source."""
    with database.read() as connection:
        known = connection.execute(select(JobRow.id, JobRow.options).where(JobRow.source == source)).all()
    return [each for row in known if row.options == options for each in _rejects(database, row.id)]


@undisturbed
def _rejects(database: Database, job: int, limit: int | None = None) -> list[Rejected]:
    query = (
        select(RejectRow.uri, RejectRow.reason, RejectRow.detail)
        .where(RejectRow.job == job)
        .order_by(RejectRow.shard, RejectRow.id)
        .limit(limit)
    )
    with database.read() as connection:
        return [Rejected(*row) for row in connection.execute(query)]


@undisturbed
def jobs(database: Database) -> list[dict[str, Any]]:
    """All jobs with their totals, oldest first, for `info`."""
    totals = (
        select(
            JobShardRow.job,
            func.count().label("shards"),
            func.sum(JobShardRow.rejected).label("rejected"),
        )
        .group_by(JobShardRow.job)
        .subquery()
    )
    columns = (JobRow.source, JobRow.state, JobRow.started, JobRow.finished, JobRow.outcome)
    query = (
        select(*columns, totals.c.shards, totals.c.rejected)
        .outerjoin(totals, totals.c.job == JobRow.id)
        .order_by(JobRow.id)
    )
    with database.read() as connection:
        return [
            {
                "source": row.source,
                "state": row.state,
                "started": row.started.isoformat(timespec="seconds"),
                "finished": row.finished.isoformat(timespec="seconds") if row.finished else None,
                "shards": int(row.shards or 0),
                "rejected": int(row.rejected or 0),
                **({"passed_over": {}, "replaced": 0, "replaced_from": {}} | (row.outcome or {})),
            }
            for row in connection.execute(query)
        ]
