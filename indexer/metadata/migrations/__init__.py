"""Numbered migrations of the schema, never edited. Opening and creating a collection call `upgrade`.

A step is a module `mNNN_what.py` in `versions/` with `revision`, `down_revision` and `upgrade()`. It runs on SQLite and
PostgreSQL, in one transaction with all other pending steps: a kill leaves either the old schema or the new one.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from sqlalchemy import Connection

FOLDERS = [Path(__file__).with_name("versions")]
_ONE_AT_A_TIME = threading.Lock()
"""Alembic stores the running migration in module-level names, which threads would share."""


def known() -> list[str]:
    """The schemas this release knows, oldest first: the numbers in `versions/`."""
    return sorted(path.name.partition("_")[0] for folder in FOLDERS for path in folder.glob("m[0-9]*_*.py"))


def newest() -> str:
    """The schema that this release needs."""
    return known()[-1]


def upgrade(connection: Connection, to: str = "head") -> None:
    """Bring the schema to this release's version, or to an older one, inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", _escaped(Path(__file__).parent))
    config.set_main_option("version_locations", os.pathsep.join(map(_escaped, FOLDERS)))
    config.attributes["connection"] = connection
    with _ONE_AT_A_TIME:
        command.upgrade(config, to)


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")
