"""Fetching from a hub, or finding out at once that there is none.

The libraries try five times and tell of each. Here the hub is looked for once, briefly; where it does not answer, they
look into their caches alone and say nothing. `HF_HUB_OFFLINE` is heeded, and then nothing is looked for.

What this module does not know: what is fetched.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

PATIENCE = 3.0
"""Seconds that a hub may take to take a call."""
_answered: dict[tuple[str, int], bool] = {}
"""Of this process; one that did not answer is asked again when something else is to be fetched."""


@contextmanager
def fetching(address: str | None = None) -> Iterator[bool]:
    """Within this block the hub's library does not wait for a hub that is not there, and shows no attempts.

    Args:
        address: What is to be reached; None for the hub.

    Yields:
        Whether it can be reached.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    reached = not before and reachable(address or constants.ENDPOINT)
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "open_clip", "root")]
    levels = [each.level for each in loggers]
    constants.HF_HUB_OFFLINE = not reached
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield reached
    finally:
        constants.HF_HUB_OFFLINE = before
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def reachable(address: str) -> bool:
    """Whether somebody takes a call at a URL, or at the proxy that is to be used for it."""
    scheme = urlsplit(address).scheme or "https"
    proxy = next((os.environ[name] for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
                  if os.environ.get(name)), None)  # fmt: skip
    parts = urlsplit(proxy if proxy and "://" in proxy else f"http://{proxy}" if proxy else address)
    try:
        place = (parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    except ValueError:
        return False
    if not _answered.get(place):
        _answered[place] = _answers(place)
    return _answered[place]


def _answers(place: tuple[str, int]) -> bool:
    """In a thread: looking a name up has no time-out of its own."""
    found: list[bool] = []

    def call() -> None:
        try:
            socket.create_connection(place, PATIENCE).close()
            found.append(True)
        except OSError:
            found.append(False)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(PATIENCE)
    return bool(found and found[0])


def absent(name: str, local: str) -> tuple[str, str]:
    """What is said of something that is neither here nor to be had: the sentence, and what to do.

    Args:
        name: What was asked for.
        local: How a folder of such is named.
    """
    why = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached"
    return (
        f"{name} is not on this machine, and could not be fetched: {why}.",
        "Connect once so that it is cached, or copy its folder from a machine that has it, and name that: "
        f"{local}. Without a network, bundled:emoji-clip always works.",
    )
