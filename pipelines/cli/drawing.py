"""The options of `search` that are about words and drawings: the methods `inversion` and `cig`.

What is asked in vain is refused: an option that the method does not read, a method for which a part is missing, models
that cannot be loaded. What fails later, while something is drawn, is a note of the answer.

What this module does not know: how words and drawings are made, how answers are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.errors import QueryError
from pipelines.terminal.console import err, hushed_models, show_remark

if TYPE_CHECKING:
    from indexer.collection import Collection
    from retrieval.methods import Method
    from retrieval.providers.caption_rewrite import Scribe
    from retrieval.query import Query
    from retrieval.results import Results
    from retrieval.retriever import Retriever

PANEL = "Drawing"
SLUG = 40
"""Characters of the sentence in the name of a saved drawing."""

InversionName = Annotated[
    str | None,
    typer.Option(
        "--inversion", metavar="NAME|DIR|FILE",
        help="Makes the reference's word, for inversion and cig: bundled, trained, or a published Phi. "
        "If not told: the one of the collection's model.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
GeneratorName = Annotated[
    str | None,
    typer.Option(
        "--generator", metavar="NAME|DIR",
        help="Draws the pseudo-target of cig. If not told: the one of the collection's model.", rich_help_panel=PANEL,
    ),
]  # fmt: skip
MergeName = Annotated[
    str | None,
    typer.Option(
        "--merge", metavar="NAME", help="What cig makes of a drawing: embed (if not told), reinvert or product.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", help="Denoising steps. If not told, as the generator has it.", rich_help_panel=PANEL
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance", metavar="X", help="How closely the sentence is followed; up to 1, a step costs half.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
Images = Annotated[
    int | None,
    typer.Option("--images", metavar="N", help="Drawings; the mean of their vectors counts.", rich_help_panel=PANEL),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="Of the noise; 0 if not told.", rich_help_panel=PANEL),
]
Regenerate = Annotated[
    bool, typer.Option("--regenerate", help="Draw anew what was drawn and kept before.", rich_help_panel=PANEL)
]
DeadlineMs = Annotated[
    float | None,
    typer.Option(
        "--deadline-ms", metavar="X", help="Answer without what is not drawn by then; it is still drawn and kept.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
Gate = Annotated[
    float | None,
    typer.Option(
        "--gate", metavar="X", help="Draw only if the first two scores without a drawing are closer than this.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
DrawingsFolder = Annotated[
    Path | None,
    typer.Option("--drawings", metavar="DIR", help="Save the drawings there, as PNG.", rich_help_panel=PANEL),
]


@dataclass(frozen=True)
class DrawingCall:
    """What a call said about words and drawings; None, or False, where it said nothing."""

    inversion: str | None = None
    generator: str | None = None
    merge: str | None = None
    steps: int | None = None
    guidance: float | None = None
    images: int | None = None
    seed: int | None = None
    regenerate: bool = False
    deadline_ms: float | None = None
    gate: float | None = None
    drawings: Path | None = None

    def implied_method(self) -> str | None:
        """The method that the options are for, where there are any."""
        given = set(self._given())
        if not given:
            return None
        return "inversion" if given == {"--inversion"} else "cig"

    def check(self, method: Method, query: Query) -> None:
        """See that nothing is asked in vain.

        Raises:
            QueryError: The method does not read an option, or the query lacks a part of which it makes words.
        """
        reads = {"inversion": {"--inversion"}, "cig": set(self._given())}.get(method.value, set())
        for option in self._given():
            if option not in reads:
                belongs = "inversion or cig" if option == "--inversion" else "cig"
                raise QueryError(
                    f"The method {method} does not read {option}.", f"Leave it out, or choose --method {belongs}."
                )
        if method.value not in ("inversion", "cig"):
            return
        parts = query.parts()
        if "image" not in parts:
            raise QueryError(
                f"The method {method} needs a text and a reference; this query has no reference.",
                "Add --image FILE or --like ID, or choose --method text.",
            )
        if "text" not in parts:
            raise QueryError(
                f"The method {method} needs a text and a reference; this query has no text.",
                "Say how the answer differs from the reference, or choose --method image.",
            )

    def retriever(self, collection: Collection, method: Method, device: str, scribe: Scribe, centre: str) -> Retriever:
        """The retriever, with the models loaded that the method needs.

        Raises:
            UnderdrawingError: A model is missing, cannot be loaded or does not fit; or an option is out of range.
        """
        from retrieval.methods import Merge
        from retrieval.providers.generation.protocol import DrawOptions
        from retrieval.providers.pseudo_target import Studio
        from retrieval.retriever import Retriever

        options = DrawOptions(
            steps=self.steps,
            guidance=self.guidance,
            images=1 if self.images is None else self.images,
            seed=self.seed or 0,
        )
        studio = Studio(
            self.inversion,
            self.generator,
            options,
            regenerate=self.regenerate,
            deadline_ms=self.deadline_ms,
            device=device,
        )
        made = Retriever(
            collection,
            method,
            merge=self.merge or Merge.EMBED,
            studio=studio,
            scribe=scribe,
            gate=self.gate,
            centre=centre,
        )
        # A person waits who has asked for a drawing: what cannot be loaded is said before anything is searched.
        if method.value in ("inversion", "cig"):
            with err.status("Loading"):
                studio.inversion(collection.embedder)
                if method.value == "cig":
                    with hushed_models():
                        studio.generator(collection.embedder)
        return made

    def save(self, query: Query, results: Results) -> None:
        """Copy the drawings to the folder that the call named, and say so.

        Raises:
            OSError: The folder cannot be written.
        """
        from indexer.files.atomic import atomic_write
        from pipelines.pages.report import drawings

        if self.drawings is None:
            return
        name = re.sub(r"\W+", "-", query.text or "").strip("-")[:SLUG].lower()
        for number, picture in enumerate(drawings(results)):
            # Eight digits of the drawing's key: the same sentence has other drawings with another reference or seed.
            file = self.drawings / f"{name}-{picture.name[:8]}-{number}.png".removeprefix("-")
            atomic_write(file, picture.read_bytes())
            show_remark(f"Wrote {file}")

    def _given(self) -> Iterator[str]:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if value is not None and value is not False:
                yield f"--{field.name.replace('_', '-')}"
