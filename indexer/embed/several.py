"""Items of several images: each is prepared on its own, and what cannot be read at once becomes a mean.

What this module does not know: any model, how an image is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.embed.protocol import Prepared
from indexer.errors import ItemError
from indexer.types import ImageSource, Item, Vectors
from indexer.vectors import unit_rows

Array = npt.NDArray[Any]


def image_arrays(item: Item, prepare: Callable[[ImageSource], Array]) -> dict[str, Array]:
    """The images of an item, prepared: `image` is the first, `image_2` and so on are the others.

    Raises:
        ItemError: One of them cannot be used; of several, it names which.
    """
    arrays: dict[str, Array] = {}
    for number, image in enumerate(item.images, 1):
        try:
            arrays["image" if number == 1 else f"image_{number}"] = prepare(image)
        except ItemError as error:
            raise of_several(error, number, len(item.images)) from error
    return arrays


def of_several(error: ItemError, number: int, total: int) -> ItemError:
    """The error of one image, which says of several which one it is."""
    if total == 1:
        return error
    return ItemError(error.reason, f"Image {number} of {total}: {error.detail}")


def images_of(prepared: Prepared) -> list[Array]:
    """The prepared images of an item, in order."""
    return [value for name, value in prepared.arrays.items() if name == "image" or name.startswith("image_")]


def mean_of_several(prepared: Sequence[Prepared], encode: Callable[[Sequence[Array]], Array], most: int) -> Vectors:
    """One unit row for each item: the vector of its image, or the mean of the unit vectors of its images, made unit.

    Args:
        prepared: n items, each with an image.
        encode: Images to rows of any length.
        most: Images handed to `encode` at once.

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
