"""The model of a space, given as an object or by name. A named model is loaded once, when first needed.

What this module does not know: how models are loaded or used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from indexer.embed import load_embedder
from indexer.embed.base import Dtype, Embedder
from indexer.embed.devices import settled_device
from indexer.embed.loading import loading
from indexer.errors import MissingExtraError, ModelError, SpaceMismatchError, UntrustedModelError
from indexer.metadata.catalog import Space


class LazyEmbedder:
    """A model that is loaded on first use.

    Args:
        model: The model or its name.
        dtype: The arithmetic of a model that is loaded by name.
        device: Where the model runs.
        chosen_by: The folder of the collection, if only it named the model and the caller does not trust it.
    """

    def __init__(self, model: str | Embedder, dtype: Dtype | str, device: str, chosen_by: Path | None = None) -> None:
        self._model, self._device, self._chosen_by = model, device, chosen_by
        # A model given as an object has its own arithmetic, which need not be a `Dtype`.
        self._dtype = Dtype(dtype) if isinstance(model, str) else Dtype.FLOAT32

    def get(self) -> Embedder:
        """The model. Raises the errors of `load_embedder`, too.

        Raises:
            UntrustedModelError: It is a local folder that only the collection names.
        """
        if not isinstance(self._model, str):
            return self._model
        with loading():  # concurrent threads get one model; a failed load is retried next time
            if not isinstance(self._model, str):
                return self._model
            if self._chosen_by is not None and names_a_folder(self._model):
                raise UntrustedModelError(
                    f"{self._chosen_by} names the model {self._model!r}, a local folder. Whoever made the "
                    "collection chose that name.",
                    f"If you know the folder, name it yourself: `model={self._model}`, or give `trust=True`.",
                )
            self._model = load_embedder(self._model, dtype=self._dtype, device=self._device)
            return self._model

    @property
    def device(self) -> str:
        """Where it runs or will run; loads nothing. Raises the errors of `settled_device`."""
        return settled_device(self._device) if isinstance(self._model, str) else self._model.device or "cpu"

    def comparable(self, space: Space, folder: Path) -> Embedder:
        """The model, to compare it with a collection's.

        Raises:
            SpaceMismatchError: It cannot be loaded and has another name, so the name is probably wrong.
            ModelError: It has the same name and cannot be loaded.
            MissingExtraError: It has the same name and needs a package.
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


def require_same_space(folder: Path, embedder: Embedder, space: Space) -> None:
    """Verify that a model is the one that made a collection's vectors.

    Raises:
        SpaceMismatchError: It is not; the message names what differs.
    """
    found = embedder.fingerprint()
    if found.digest == space.digest:
        return
    now, then = asdict(found), space.fingerprint
    if embedder.name != space.model and found.weights != then.get("weights"):
        cause = f"{folder} was made with {space.model}, and {embedder.name} gives other vectors."
    else:
        cause = f"{folder} was made with {space.model} ({_details(now, then)}); {embedder.name} gives other vectors."
    raise SpaceMismatchError(
        cause,
        f"Open it with {space.model}, or give it a second space: collection.add_space({embedder.name!r}, 'a-name').",
    )


def _details(now: Mapping[str, object], then: Mapping[str, object]) -> str:
    """The differences between two fingerprints, each value cut to 60 characters."""
    differing = [key for key in now if key not in ("model", "decoding") and now[key] != then.get(key)]
    return "; ".join(f"{key} {str(then.get(key))[:60]!r}, now {str(now[key])[:60]!r}" for key in differing)


def names_a_folder(model: str) -> bool:
    """Whether loading a model by this name would read a local folder or file.

    A name such as `org/model` counts as a folder if the working directory has one of that name.
    """
    family, _, rest = model.partition(":")
    if family in ("bundled", "fake"):
        return False
    if family == "bridge":
        return True
    rest = rest.removeprefix("hf-hub:")
    places = {rest, rest.partition("?")[0], rest.partition("?")[0].rpartition("@")[0], rest.rpartition("/")[0]}
    return (
        rest.startswith((".", "/", "~"))
        or any(sign in rest for sign in ("\\", ":", "\0"))
        or ".." in rest.split("/")
        or any(os.path.lexists(place) for place in places if place)
    )
