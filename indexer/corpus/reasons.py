"""The codes of rejects, under the name that readers know; they are in `indexer/reasons.py`."""

from indexer.reasons import Reason, refusal

__all__ = ["Reason", "refusal"]
