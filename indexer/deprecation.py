"""Support for renamed names: old ones work until release 0.3 and raise a `DeprecationWarning`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from indexer.errors import CallError

REMOVED = "0.3"
"""The release that drops the old names."""


def warn_renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Warn the caller of a function about an old name.

    Args:
        old: As the caller wrote it.
        new: The new name.
        stacklevel: The `stacklevel` of `warnings.warn`, counted from here: 3 is the caller of this function's caller.
    """
    warnings.warn(f"{old} is now {new}; the old name goes in {REMOVED}.", DeprecationWarning, stacklevel=stacklevel)


def renamed_arguments(
    function: str, given: Mapping[str, Any], renamed: Mapping[str, str], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call, including those given by an old name.

    Args:
        function: The name of the function that was called.
        given: Keyword arguments that are not its own.
        renamed: The old names with the new ones.
        arguments: The values given by new names; None for nothing.

    Raises:
        TypeError: A name is not an old one either.
        CallError: A value was given by its old name and by its new one.
    """
    answer = dict(arguments)
    for old, value in given.items():
        if old not in renamed:
            raise TypeError(f"{function}() got an unexpected keyword argument {old!r}")
        new = renamed[old]
        if answer.get(new) is not None:
            raise CallError(f"{function}() takes {new} or {old}, which is its old name, not both.")
        warn_renamed(f"{function}({old}=)", f"{function}({new}=)", stacklevel=4)
        answer[new] = value
    return answer
