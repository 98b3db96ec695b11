"""Readers beside a writer in another process: each snapshot is one complete generation, or asks to be reopened."""

from __future__ import annotations

import doomed
import pytest
from answers import asked, contents

from indexer import Document
from indexer.errors import SnapshotGoneError

pytestmark = pytest.mark.crash

VERSIONS = 20


def test_every_snapshot_is_of_one_version(shop, database_url):
    shop.add([Document(f"d{number}", text="v0", fields={"v": 0}) for number in range(5)])
    writer = doomed.context.Process(target=doomed.rewrite, args=(shop.path, database_url, VERSIONS))
    writer.start()
    seen = []
    while writer.is_alive() or not seen or seen[-1] != VERSIONS:
        snapshot = shop.snapshot()
        assert len(snapshot) == 5
        try:
            told = contents(snapshot)
            matching = snapshot.search(asked("v1"), 9, where={"v": told["d0"][1]["v"]})
        except SnapshotGoneError:
            continue
        versions = {(text, fields["v"]) for text, fields, _, _ in told.values()}
        assert len(versions) == 1
        assert (matching.ids[0] >= 0).sum() == 5
        seen.append(told["d0"][1]["v"])
    writer.join()
    assert writer.exitcode == 0
    writer.close()
    assert seen == sorted(seen)
    assert len(set(seen)) > 1  # a busy machine may let the writer finish early
    assert shop.check().findings == []
