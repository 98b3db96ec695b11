"""The options of `search` that are about sentences: the method `caption`.

What is asked in vain is refused: an option that the method does not read, a model that is missing or cannot be loaded.
What fails later, while something is written, is a note of the answer.

What this module does not know: how sentences are written, how answers are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.errors import QueryError
from pipelines.terminal.console import err

if TYPE_CHECKING:
    from retrieval.methods import Method
    from retrieval.providers.caption_rewrite import Scribe
    from retrieval.query import Query

PANEL = "Writing"

CaptionerName = Annotated[
    str | None,
    typer.Option(
        "--captioner", metavar="NAME|DIR|table:FILE",
        help="Says what the reference shows, for caption: an image-to-text model of transformers, or a JSON object of "
        "captions by file name.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
RewriterName = Annotated[
    str | None,
    typer.Option(
        "--rewriter", metavar="NAME|DIR|api:MODEL@URL|join",
        help="Changes the caption as the text says: a chat model of transformers; an endpoint that speaks OpenAI's "
        "protocol (its key from OPENAI_API_KEY; without @URL, at OPENAI_BASE_URL); or join: both side by side.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
CaptionText = Annotated[
    str | None,
    typer.Option(
        "--caption", metavar="TEXT", help="What the reference shows, for caption (then without a captioner) and shift.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
Rewrite = Annotated[
    bool, typer.Option("--rewrite", help="Write anew what was written and kept before.", rich_help_panel=PANEL)
]


@dataclass(frozen=True)
class WritingCall:
    """What a call said about sentences; None, or False, where it said nothing."""

    captioner: str | None = None
    rewriter: str | None = None
    caption: str | None = None
    rewrite: bool = False

    def implied_method(self) -> str | None:
        """`caption` where an option is for it alone."""
        return "caption" if self._given() else None

    def check(self, method: Method, query: Query) -> None:
        """See that nothing is asked in vain.

        Raises:
            QueryError: The method does not read an option, or the query lacks a part of which a sentence is made.
        """
        if method.value != "caption":
            for option in self._given():
                raise QueryError(
                    f"The method {method} does not read {option}.", "Leave it out, or choose --method caption."
                )
            if self.caption is not None and method.value != "shift":
                raise QueryError(
                    f"The method {method} does not read --caption.",
                    "Leave it out, or choose --method caption or shift.",
                )
            return
        parts = query.parts()
        for name, remedy in (("image", "Add --image FILE or --like ID"), ("text", "Say how the answer differs")):
            other = "text" if name == "image" else "image"
            if name not in parts:
                missing = "reference" if name == "image" else "text"
                raise QueryError(
                    f"The method caption needs a text and a reference; this query has no {missing}.",
                    f"{remedy}, or choose --method {other}.",
                )

    def scribe(self, method: Method, device: str) -> Scribe:
        """The scribe, with the models loaded that the method needs.

        Raises:
            UnderdrawingError: A model is missing or cannot be loaded.
        """
        from retrieval.providers.caption_rewrite import Scribe

        scribe = Scribe(self.captioner, self.rewriter, anew=self.rewrite, device=device)
        # A person waits who has asked for a sentence: what cannot be loaded is said before anything is searched.
        if method.value == "caption":
            with err.status("Loading"):
                if self.caption is None:
                    scribe.captioner()
                scribe.rewriter()
        return scribe

    def _given(self) -> list[str]:
        told = {"--captioner": self.captioner, "--rewriter": self.rewriter, "--rewrite": self.rewrite}
        return [option for option, value in told.items() if value]
