"""The public names in one import: `import underdrawing as ud`, then `ud.Collection`, `ud.Query`, `ud.Retriever`.

The names are the public ones of `indexer` and `retrieval`, which keep working, too. Each is imported when it is
first used, so that `import underdrawing` costs next to nothing and loads no model library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import indexer
import retrieval

if TYPE_CHECKING:
    from indexer import *  # noqa: F403
    from retrieval import *  # noqa: F403
else:  # out of a type checker's sight, or it would take any name for one of ours

    def __getattr__(name: str) -> object:
        """The public name, from the package that has it (PEP 562)."""
        for package in (indexer, retrieval):
            if name in package.__all__:
                value: object = getattr(package, name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.2.0.dev0"

__all__ = ["__version__"]
__all__ += indexer.__all__
__all__ += retrieval.__all__


def __dir__() -> list[str]:
    return sorted(__all__)
