"""The options of commands that read tables: which columns are a document's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from indexer.corpus.columns import Columns

Image: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--image-column",
        metavar="NAME",
        help="The column of a table, or the key of JSON, that has the images; '' for none. By default it is "
        "found by its name or type.",
    ),
]
Text: TypeAlias = Annotated[
    str | None, typer.Option("--text-column", metavar="NAME", help="The same for texts; text or caption by default.")
]
Id: TypeAlias = Annotated[
    str | None, typer.Option("--id-column", metavar="NAME", help="The same for ids; id by default.")
]


def columns(image: str | None, text: str | None, id: str | None) -> Columns:
    """The columns that the options name."""
    from indexer.corpus.columns import Columns

    return Columns(id=id, text=text, image=image)
