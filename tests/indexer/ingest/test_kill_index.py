"""The batch job, killed at random moments and run again, ends in the state of an undisturbed run.

The default run kills a few times; for twenty: `pytest tests/indexer/ingest/test_kill_index.py -m slow`.
"""

from __future__ import annotations

import base64
import json
import random
import signal
import time

import doomed
import psutil
import pytest
from answers import contents, png

from indexer import Collection
from indexer.metadata.holdings import holders

pytestmark = pytest.mark.crash

COUNT = 200


def stamps_of(shop, ids, source):
    """By id, the stamps of documents that came from a source."""
    held = holders(shop.database, list(ids))
    return {name: each.stamp for name, each in held.items() if each.source == source and each.stamp is not None}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Images in files and in the lines themselves, texts, and entries that cannot be used."""
    folder = tmp_path_factory.mktemp("source")
    lines = []
    for number in range(COUNT):
        entry = {"id": f"d{number}", "n": number}
        colour = png(number % 256, number // 256, 7)
        match number % 10:
            case 0:
                entry["image_base64"] = base64.b64encode(colour).decode()
            case 1:
                entry["text"] = f"word{number} and word{number % 7}"
            case 2 if number % 4:
                entry["image"] = "missing.png"
            case _:
                (folder / f"{number}.png").write_bytes(colour)
                entry |= {"image": f"{number}.png", "text": f"word{number}"}
        lines.append(json.dumps(entry))
    (folder / "all.jsonl").write_text("\n".join(lines))
    return folder / "all.jsonl"


@pytest.fixture
def kill(tmp_path, database_url, source):
    """Kill jobs, two on each of several collections; gives how many documents each kill had left."""

    def go(kills, seed):
        start = time.monotonic()
        assert doomed.run(doomed.index, source, tmp_path / "whole", database_url) == 0
        takes = time.monotonic() - start
        with Collection.open(tmp_path / "whole", database=database_url) as shop:
            whole, jobs = contents(shop), told_jobs(shop)
            stamps = stamps_of(shop, whole, str(source))
        assert len(stamps) == len(whole)
        assert len(whole) == COUNT - jobs[0]["rejected"]
        left, moments = [], random.Random(seed)
        for kill in range(kills):
            folder = tmp_path / f"killed {kill // 2}"
            process = doomed.context.Process(target=doomed.index, args=(source, folder, database_url))
            process.start()
            time.sleep(moments.uniform(0, takes))
            process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            process.close()
            if kill % 2 == 0 and kill < kills - 1:
                continue
            with_doubt = folder / "collection.json"
            if with_doubt.exists():
                with Collection.open(folder, database=database_url) as shop:
                    partial = contents(shop)
                    left.append(len(partial))
                    assert partial.items() <= whole.items()
                    assert shop.check().clean
            assert doomed.run(doomed.index, source, folder, database_url) == 0
            with Collection.open(folder, database=database_url) as shop:
                assert contents(shop) == whole
                assert told_jobs(shop) == jobs
                assert stamps_of(shop, whole, str(source)) == stamps
                report = shop.check()
                assert (report.clean, report.documents) == (True, len(whole))
                shop.repair()
                assert shop.check().findings == []
        return left, len(whole)

    return go


def told_jobs(shop):
    """What the ledger says, but for times."""
    return [{key: job[key] for key in ("source", "state", "shards", "rejected")} for job in shop.info()["jobs"]]


def test_a_few_kills_lose_nothing(kill):
    kill(4, seed=1)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(kill):
    left, whole = kill(20, seed=2)
    assert any(0 < count < whole for count in left)


def test_workers_of_a_killed_job_do_not_outlive_it(tmp_path, source):
    process = doomed.context.Process(target=doomed.index, args=(source, tmp_path / "shop", None, 2))
    process.start()
    job, workers = psutil.Process(process.pid), []
    while len(workers) < 2:
        time.sleep(0.05)
        workers = [child for child in job.children() if any("spawn_main" in part for part in child.cmdline())]
        assert process.is_alive()
    process.kill()
    process.join()
    process.close()
    try:
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert alive == []
    finally:
        for worker in workers:
            if worker.is_running():
                worker.kill()
