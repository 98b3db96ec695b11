"""Items of several images: each is prepared separately, and most models average their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from indexer.embed.base import Prepared
from indexer.errors import ItemError
from indexer.types import ImageSource, Item, Vectors
from indexer.vectors.unit import unit_rows

Array = npt.NDArray[Any]
Given = TypeVar("Given")
Made = TypeVar("Made")


def image_arrays(item: Item, prepare: Callable[[ImageSource], Array]) -> dict[str, Array]:
    """The prepared images of an item: `image` is the first, `image_2` and so on are the others.

    Raises:
        ItemError: One of them cannot be used; the error names which of several.
    """
    made = for_each(item.images, prepare)
    return {"image" if number == 1 else f"image_{number}": each for number, each in enumerate(made, 1)}


def for_each(images: Sequence[Given], make: Callable[[Given], Made]) -> list[Made]:
    """The results of a function for each image, in order.

    Raises:
        ItemError: One of them cannot be used; the error names which of several.
    """
    made = []
    for number, image in enumerate(images, 1):
        try:
            made.append(make(image))
        except ItemError as error:
            if len(images) == 1:
                raise
            raise ItemError(error.reason, f"Image {number} of {len(images)}: {error.detail}") from error
    return made


def images_of(prepared: Prepared) -> list[Array]:
    """The prepared images of an item, in order."""
    return [value for name, value in prepared.arrays.items() if name == "image" or name.startswith("image_")]


def mean_of_several(prepared: Sequence[Prepared], encode: Callable[[Sequence[Array]], Array], most: int) -> Vectors:
    """One unit row for each item: the vector of its image, or the normalized mean of the unit vectors of its images.

    Args:
        prepared: n items, each with an image.
        encode: Maps images to rows of any length.
        most: Images passed to `encode` at once.

    Returns:
        (n, dim) float32.
    """
    owned = [images_of(each) for each in prepared]
    flat = [image for own in owned for image in own]
    rows = np.concatenate([unit_rows(encode(flat[start : start + most])) for start in range(0, len(flat), most)])
    if len(flat) == len(owned):
        return rows
    starts = np.cumsum([0, *map(len, owned)])[:-1]
    sums = np.add.reduceat(rows.astype(np.float64), starts, axis=0)
    alone = np.array([len(own) == 1 for own in owned])
    means = unit_rows(sums)
    means[alone] = rows[starts[alone]]
    return means
