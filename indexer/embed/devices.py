"""Device names: one rule for every interface that takes a device.

    auto      a CUDA GPU if there is one, else Apple's MPS, else the CPU
    cpu, cuda, cuda:1, mps

The device changes vectors only in their last digits, and fingerprints not at all.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from indexer.arguments import described
from indexer.errors import CallError, DeviceError

AUTO = "auto"
NAMES = "auto, cpu, cuda, cuda:N or mps"
_NAME = re.compile(r"auto|cpu(:0)?|mps|cuda(:\d{1,3})?")
_DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg", "/proc/driver/nvidia/version")
"""Files of which one exists if there may be a GPU: NVIDIA's, AMD's, or through Windows."""


def checked_device(device: str) -> str:
    """Check the name of a device.

    Raises:
        CallError: It is not the name of a device.
        DeviceError: This machine has no such device.
    """
    if not isinstance(device, str) or not _NAME.fullmatch(device):
        shown = (
            repr(device[:80]) if isinstance(device, str) else device if isinstance(device, int) else described(device)
        )
        raise CallError(f"There is no device {shown}.", f"Write one of {NAMES}. {_there()}")
    if device.startswith("cuda"):
        count = cuda_cards()
        number = int(device.partition(":")[2] or 0)
        if number >= count:
            raise DeviceError(f"The device {device} does not exist: torch sees {_counted(count)}.", _there())
    elif device == "mps" and not has_mps():
        raise DeviceError("The device mps does not exist: it needs an Apple processor.", _there())
    return device


def settled_device(device: str) -> str:
    """The device that a name stands for on this machine; `auto` chooses.

    Raises:
        CallError: It is not the name of a device.
        DeviceError: This machine has no such device.
    """
    if checked_device(device) != AUTO:
        return device
    if cuda_cards():
        return "cuda"
    return "mps" if has_mps() else "cpu"


def cuda_cards() -> int:
    """How many GPUs torch can use. If there can be none, torch is not imported to find out."""
    if sys.platform == "linux" and "torch" not in sys.modules and not any(Path(each).exists() for each in _DRIVERS):
        return 0
    if os.environ.get("CUDA_VISIBLE_DEVICES", None) in ("", "-1"):
        return 0
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def has_mps() -> bool:
    """Whether torch can use Apple's MPS."""
    if sys.platform != "darwin":
        return False
    import torch

    return bool(torch.backends.mps.is_available())


def _there() -> str:
    count = cuda_cards()
    found = [f"cuda:{number}" for number in range(count)] + (["mps"] if has_mps() else [])
    return (
        f"Available: cpu{''.join(f', {each}' for each in found)}; auto takes the best of them."
        if found
        else "Available: cpu."
    )


def _counted(count: int) -> str:
    return {0: "no CUDA card", 1: "one CUDA card"}.get(count, f"{count} CUDA cards")
