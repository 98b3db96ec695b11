"""Processes that die in the middle of their work. They come from a server that has imported all but a model library."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import tempfile
from collections import Counter
from importlib import import_module

import numpy as np
from answers import found, png

from indexer import Collection, Document, IndexKind, IndexSettings, index_corpus
from indexer.corpus.image_rules import ImageRules
from indexer.errors import LockedError, SnapshotGoneError, StoreError
from indexer.files import atomic as files
from indexer.ingest.adding import way_in
from indexer.ingest.prepare import embed
from indexer.types import Center

DIED = 42
"""Exit code of a process that died where it was told to."""

GRAPH = IndexSettings(kind=IndexKind.HNSW)

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "indexer.ingest.job",
        "indexer.embed.fake",
        "indexer.corpus.images",
        "alembic.command",
        "psycopg",
        "indexer.vectors.faiss_index",
    ]
)


def run(work, *arguments):
    """Do the work in a process of its own; gives its exit code."""
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    return code


def die(*_, **__):
    os._exit(DIED)


class Before:
    """Die when a function is called, for the first time or a later one."""

    def __init__(self, target, call=1):
        self.target, self.call = target, call

    def arm(self):
        path, _, name = self.target.rpartition(":")
        module, _, owner = path.partition("/")
        home = import_module(module)
        home = getattr(home, owner) if owner else home
        setattr(home, name, self._fatal(getattr(home, name)))

    def _fatal(self, function):
        calls = Counter()

        def fatal(*arguments, **options):
            calls["made"] += 1
            if calls["made"] == self.call:
                die()
            return function(*arguments, **options)

        return fatal


class After(Before):
    """Die when it has done its work."""

    def _fatal(self, function):
        def fatal(*arguments, **options):
            function(*arguments, **options)
            die()

        return fatal


class Half:
    """Die with a file in this folder written aside, half of it, and not renamed; the first such file, or a later one."""

    def __init__(self, folder, call=1):
        self.folder, self.call = folder, call

    def arm(self):
        sync, left = files._sync_file, itertools.count(1 - self.call)

        def fatal(path):
            if (path.parent.name == self.folder or path.parent.parent.name == self.folder) and next(left) == 0:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                die()
            sync(path)

        files._sync_file = fatal


FIRST = [Document("a", text="cat", fields={"n": 1}), Document("b", image=png(1, 1, 1)), Document("c", text="bird")]
SECOND = [Document("a", text="dog", fields={"n": 2}), Document("d", text="fish", image=png(2, 2, 2))]


def commit(shop):
    """Replace a, add d, delete c: all that a commit can do."""
    with shop.writer() as writer:
        ingest = way_in(shop, [shop.open_spaces.default], ImageRules())
        ready = [ingest(document) for document in SECOND]
        vectors = embed(shop.embedder, [each.prepared[shop.space.id] for each in ready])
        sums = {key: (1, np.ones(16)) for key in shop.missing_query_mean()}
        return writer.commit([each.document for each in ready], vectors, deleted=["c"], extra_sums=sums)


def compact(shop):
    return shop.compact()


def delete(shop):
    return shop.delete(["a", "c", "nobody"])


def build_index(shop, index=GRAPH):
    """Build a graph, or another index, and search through it."""
    with Collection.open(shop.path, database=shop_url(shop), index=index) as indexed:
        indexed.build_index({})
        return len(indexed.snapshot())


def shop_url(shop):
    """The URL that opens a collection again."""
    return None if shop.layout.backend == "sqlite" else shop.database.url


NAMES = [f"d{number}" for number in range(12)]


def at_random(folder, database, seed, story):
    """Add, replace, delete, compact and index until killed; each deed is told before it and after it.

    A line of the story is `{"do": what, "documents": {id: text}}`, and then `{"done": generation}`. The lines are in
    the kernel's hands when they are written: a kill of the process does not lose them.
    """
    chance = random.Random(seed)
    with story.open("a", encoding="utf-8", buffering=1) as told, Collection.open(folder, database=database) as shop:
        for deed in itertools.count():
            what = chance.choices(["add", "delete", "compact", "index"], [6, 3, 1, 1])[0]
            names = chance.sample(NAMES, chance.randint(1, 5))
            texts = {name: f"{name} {seed} {deed}" for name in names} if what == "add" else dict.fromkeys(names)
            told.write(json.dumps({"do": what, "documents": texts if what in ("add", "delete") else {}}) + "\n")
            if what == "add":
                image = png(seed % 256, deed % 256, 3)
                shop.add([Document(name, text=text, image=image) for name, text in texts.items()])
            elif what == "delete":
                shop.delete(names)
            elif what == "compact":
                shop.compact()
            else:
                build_index(shop, chance.choice(["hnsw", "ivf"]))
            told.write(json.dumps({"done": what}) + "\n")


def read_as_nobody(folder, told):
    """Search, then try to write, as a user who may only read; what happened goes into a file."""
    with tempfile.TemporaryDirectory() as rehearsal, Collection.open(f"{rehearsal}/shop", "fake:16") as shop:
        # Whoever may read nothing of ours cannot import any more, either.
        shop.add(FIRST)
        found(shop, "cat", k=1)
        shop.compact()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    lines = []
    with Collection.open(folder) as shop:
        lines.append(",".join(found(shop, "cat", k=1)))
        for write in (lambda: shop.delete(["a"]), shop.compact):
            try:
                write()
            except (StoreError, LockedError) as error:
                lines.append(f"{type(error).__name__}: {error}")
    told.write_text("\n".join(lines))


KINDS = {"a": "text", "b": "text", "c": "image", "d": "image", "e": "image+text"}
"""Documents of several modalities, which are all replaced at once."""


def replace_all(shop, version):
    """One commit: every document's next version."""
    told, image = f"v{version}", png(version % 256, version // 256, 9)
    shop.add([
        Document(
            name,
            text=None if kind == "image" else told,
            image=None if kind == "text" else image,
            fields={"v": version},
        )
        for name, kind in KINDS.items()
    ])  # fmt: skip


def look(shop):
    """Read a snapshot in several ways: what is wrong with it, or None; and its version, or None if it is gone."""
    try:
        plain = shop.snapshot()
        for snapshot in (plain, plain.centered(Center.ON)):
            found = snapshot.search(np.eye(1, 16, dtype=np.float32), 9)
            documents = snapshot.documents(found.ids[found.ids >= 0])
            versions = {each.fields["v"] for each in documents}
            kinds = {each.id: each.modality.value for each in documents}
            if len(versions) != 1 or kinds != KINDS:
                return f"generation {plain.generation} holds versions {versions} of {sorted(kinds)}", None
            [version] = versions
            texts = snapshot.search(np.eye(1, 16, dtype=np.float32), 9, where={"v": version}, modalities=["text"])
            if (texts.ids >= 0).sum() != 2:
                return f"of version {version} the filter finds {texts.ids}", None
    except SnapshotGoneError:
        return None, None
    return None, version


def look_until(folder, database, stop):
    """Read in a process of its own until told to stop; it fails where something is wrong."""
    newest = 0
    with Collection.open(folder, database=database) as shop:
        while not stop.is_set():
            problem, version = look(shop)
            assert problem is None, problem
            assert version is None or version >= newest
            newest = newest if version is None else version


def rewrite(folder, database, versions):
    """Replace all documents by a new version, and compact now and then."""
    with Collection.open(folder, database=database) as shop:
        for version in range(1, versions + 1):
            shop.add([Document(f"d{number}", text=f"v{version}", fields={"v": version}) for number in range(5)])
            if version % 3 == 0:
                shop.compact()


def doomed_work(work, fate, folder, database):
    """Open a collection, and die while working on it."""
    shop = Collection.open(folder, database=database)
    fate.arm()
    work(shop)
    os._exit(0)


def doomed_start(fate, folder, database):
    """Die while starting a collection."""
    fate.arm()
    Collection.open(folder, "fake:16", database=database)
    os._exit(0)


def index(source, folder, database, workers=0):
    """Index a corpus, until killed."""
    with Collection.open(folder, "fake:16", database=database) as shop:
        index_corpus(source, shop, shard_size=30, workers=workers)
