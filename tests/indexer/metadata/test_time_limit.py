"""PostgreSQL cancels a filter that takes too long, even after the client has gone."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from indexer import Collection, Document
from indexer.errors import CallError, StoreError
from indexer.metadata.time_limit import VARIABLE, limit, limited


@pytest.fixture
def server(tmp_path, postgres):
    with Collection.open(tmp_path / "shop", "fake:16", database=postgres) as shop:
        shop.add([Document("a", text="x", fields={"n": 1})])
        yield shop


def test_a_statement_that_takes_too_long_is_given_up(server, monkeypatch):
    monkeypatch.setenv(VARIABLE, "0.05")
    with pytest.raises(StoreError, match=r"canceled a filter after 0\.05 seconds.*UNDERDRAWING_STATEMENT_SECONDS=600"):
        with server.database.read() as connection, limited(connection):
            connection.execute(select(func.pg_sleep(600)))
    assert server.snapshot().matching({"n": {"$gte": 1}}).size == 1
    with server.database.read() as connection:  # the limit went with the transaction
        assert connection.execute(select(func.current_setting("statement_timeout"))).scalar() == "0"


@pytest.mark.parametrize("told", ["soon", "-1", "nan", "1e9"])
def test_every_filter_is_under_the_limit(server, monkeypatch, told):
    monkeypatch.setenv(VARIABLE, told)
    with pytest.raises(CallError, match=f"{VARIABLE} is '{told}'; it takes seconds"):
        server.snapshot().matching({"n": {"$gte": 0}})


@pytest.mark.parametrize(("told", "seconds"), [("", 60), ("0", 0), (" 2.5 ", 2.5)])
def test_the_limit_is_the_callers(monkeypatch, told, seconds):
    monkeypatch.setenv(VARIABLE, told)
    assert limit() == seconds
