"""A process that adds, replaces, deletes, compacts and indexes is killed at random moments, again and again.

After each kill the collection holds what was acknowledged, with its vectors, and of the deed in flight all or nothing;
no deleted document is back, `check` is clean, and the next process goes on.

The default run kills a few times; `pytest tests/indexer/ingest/test_random_kills.py -m slow` kills `MANY` times.
"""

from __future__ import annotations

import json
import random
import signal
import time

import doomed
import numpy as np
import pytest
from answers import contents, found, png

from indexer import Collection
from indexer.embed.fake import FakeEmbedder
from indexer.types import Item

pytestmark = pytest.mark.crash

FEW, MANY = 4, 500
DEEDS = 6
"""After so many deeds, at most, and some way into the next, a process is killed."""


def killed(folder, database, seed, story, chance):
    """Let a process do some deeds, then kill it within about the time that one of them took."""
    wanted, read = 1 + 2 * chance.randint(0, DEEDS), len(lines_of(story))
    process = doomed.context.Process(target=doomed.at_random, args=(folder, database, seed, story))
    process.start()
    moments = []
    while len(moments) < wanted:
        assert process.is_alive()
        moments += [time.monotonic()] * (len(lines_of(story)) - read - len(moments))
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 2 * (moments[-1] - moments[0]) / DEEDS + 0.02))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()


def lines_of(story):
    """What was told, but for a line that a kill cut short: it was never followed by its deed."""
    return story.read_text().split("\n")[:-1] if story.exists() else []


def outcomes(state, lines):
    """What the collection may hold now: the state after all that is done, and that with the deed in flight too."""
    pending = None
    for line in lines:
        if "done" in line:
            state, pending = applied(state, pending), None
        else:
            assert pending is None
            pending = line
    return [state] if pending is None else [state, applied(state, pending)]


def applied(state, deed):
    changed = {**state, **deed["documents"]}
    return {name: text for name, text in changed.items() if text is not None}


def vector_is_right(name, text, fields, modality, vector):
    """The vector is that of the text and the picture that were written with it."""
    _, life, deed = text.split()
    item = Item(text, png(int(life) % 256, int(deed) % 256, 3))
    return text.startswith(name) and np.allclose(FakeEmbedder(16).encode_document([item])[0], vector, atol=1e-6)


def kill_again_and_again(shop, database, times, seed):
    chance, story = random.Random(seed), shop.path.parent / "story"
    state, done, in_flight = {}, 0, 0
    for life in range(times):
        read = len(lines_of(story))
        killed(shop.path, database, life, story, chance)
        lines = [json.loads(line) for line in lines_of(story)[read:]]
        told = contents(shop)
        held = {name: text for name, (text, *_) in told.items()}
        possible = outcomes(state, lines)
        assert held in possible, f"life {life}: {lines[-3:]}"
        assert all(vector_is_right(name, *own) for name, own in told.items())
        assert shop.check().clean
        if held:
            for index in "hnsw", "ivf":  # what a kill left of an index is used, or not, and never wrong
                with Collection.open(shop.path, database=database, index=index) as indexed:
                    for name in held:
                        assert found(indexed, name) == found(shop, name), (life, index)
        with shop.writer():
            assert not list(shop.path.rglob(".tmp-*"))
        if life % 5 == 4:
            shop.repair()
            assert shop.check().findings == []
        state = held
        done, in_flight = done + sum("done" in line for line in lines), in_flight + (len(possible) == 2)
    return done, in_flight


def test_a_few_kills_lose_nothing_and_leave_nothing_half(shop, database_url):
    done, _ = kill_again_and_again(shop, database_url, FEW, seed=1)
    assert done > FEW


@pytest.mark.slow
def test_many_kills_lose_nothing_and_leave_nothing_half(shop, database_url):
    done, in_flight = kill_again_and_again(shop, database_url, MANY, seed=2)
    assert done > MANY
    assert in_flight > MANY / 4


def test_the_outcomes_of_a_story():
    add, drop = ({"do": "add", "documents": {"a": "x"}}, {"do": "delete", "documents": {"a": None, "b": None}})
    assert outcomes({}, [add]) == [{}, {"a": "x"}]
    assert outcomes({"b": "y"}, [add, {"done": "add"}, drop]) == [{"a": "x", "b": "y"}, {}]
