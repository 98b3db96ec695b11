"""Damaged rows, found by fuzzing the database file, each raise an error of ours."""

from __future__ import annotations

import sqlite3

import pytest

from indexer import Collection, Document
from indexer.errors import CorruptionError

pytestmark = pytest.mark.crash

DAMAGE = {
    "a mean of no space": "UPDATE means SET space = 99",
    "a mean cut short": "UPDATE means SET total = x'00'",
    "a mean that is beyond all bounds": "UPDATE means SET total = CAST(zeroblob(120) || x'000000000000f07f' AS BLOB)",
    "a mean that is a text": "UPDATE means SET total = 'abc'",
    "a fingerprint that is no JSON": "UPDATE spaces SET fingerprint = '{\"a'",
    "a fingerprint with a damaged name": "UPDATE spaces SET fingerprint = replace(fingerprint, 'dtype', 'dtypd')",
    "a fingerprint that is a list": "UPDATE spaces SET fingerprint = '[1]'",
    "fields that are no JSON": "UPDATE documents SET fields = '{'",
    "a modality that there is not": "UPDATE documents SET modality = 'tdxt'",
    "a time that is none": "UPDATE generations SET created = 'yesterday'",
    "a text that is no UTF-8": "UPDATE documents SET text = CAST(x'c3' AS TEXT)",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_named(tmp_path, damage):
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        shop.add([Document("a", text="cat", fields={"n": 1})])
        shop.database.tidy()
    with sqlite3.connect(shop.layout.database) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute(DAMAGE[damage])
    connection.close()
    with pytest.raises(CorruptionError, match=r"metadata\.db is damaged"):
        read(tmp_path / "shop")


def read(folder):
    with Collection.open(folder) as shop:
        snapshot = shop.snapshot()
        assert snapshot.living
        snapshot.documents(snapshot.vector_ids(["a"]))
