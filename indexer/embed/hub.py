"""Quick detection of an unreachable model hub, so that fetching fails at once.

The hub libraries retry five times and report each attempt. Here the hub is probed once, briefly; if it does not answer,
they use their caches only, silently. With `HF_HUB_OFFLINE` set, nothing is probed.
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
"""Seconds to wait for a hub to accept a connection."""
_answered: dict[tuple[str, int], bool] = {}
"""Probe results of this process; a hub that did not answer is probed again for the next fetch."""


@contextmanager
def fetching(address: str | None = None) -> Iterator[bool]:
    """Within this block the hub library does not wait for an unreachable hub, and shows no retries.

    Args:
        address: The URL to reach; None for the hub.

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
    """Whether a URL, or the proxy for it, accepts a connection."""
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
    """Probe in a thread: name resolution has no time-out of its own."""
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
    """The error for something that is neither local nor fetchable: the sentence, and what to do.

    Args:
        name: The name asked for.
        local: How such a folder is named.
    """
    why = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached"
    return (
        f"{name} is not on this machine and cannot be fetched: {why}.",
        "Connect once so that it is cached, or copy its folder from a machine that has it, and name that: "
        f"{local}. Without a network, bundled:emoji-clip always works.",
    )
