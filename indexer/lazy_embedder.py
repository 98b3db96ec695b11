"""A collection's model, by name or at hand: loaded when it is first needed, and at most once.

What this module does not know: how models are loaded, what they are used for.
"""

from __future__ import annotations

from pathlib import Path

from indexer.embed import load_embedder
from indexer.embed.protocol import Dtype, Embedder
from indexer.errors import MissingExtraError, ModelError, SpaceMismatchError
from indexer.store.catalog import Space


class LazyEmbedder:
    """A model that is loaded when it is first asked for.

    Args:
        model: It, or its name.
        dtype: Arithmetic of one that is loaded.
        device: Where it runs.
    """

    def __init__(self, model: str | Embedder, dtype: Dtype | str, device: str) -> None:
        self._model, self._device = model, device
        # An embedder at hand has its arithmetic, which need not be one that can be asked for by name.
        self._dtype = Dtype(dtype) if isinstance(model, str) else Dtype.FLOAT32

    def get(self) -> Embedder:
        """The model; raises as `load_embedder`."""
        if isinstance(self._model, str):
            self._model = load_embedder(self._model, dtype=self._dtype, device=self._device)
        return self._model

    def comparable(self, space: Space, folder: Path) -> Embedder:
        """The model, to be compared with that of a collection.

        Raises:
            SpaceMismatchError: It has another name and cannot be loaded: then it is the name that is wrong.
            ModelError: It has that name, and cannot be loaded.
            MissingExtraError: The same, for want of a package.
        """
        named = self._model
        try:
            return self.get()
        except (ModelError, MissingExtraError) as error:
            if named == space.model:
                raise
            raise SpaceMismatchError(
                f"{folder} was made with {space.model}; {named} could not be loaded to compare: {error}",
                f"Leave the model out, or open it with {space.model}.",
            ) from error
