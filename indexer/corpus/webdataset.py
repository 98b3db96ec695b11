"""WebDataset shards: tar archives, also gzipped, in which the files of one document share a name.

* `0001.jpg`, `0001.txt`, `0001.json`, one after the other, are one document: its image, its text, and as in a
  folder its `id`, `text`, `caption` and fields. The name ends at the first dot behind the last slash.
* The id is that name. In a folder or pattern of shards, be it of one, the shard's name and a slash go before it,
  for many datasets begin to count anew in each.
* The stamp is a digest of the content.

Other members are counted in `ignored`. Nothing is extracted, so a member's name is a name and no path. A cut
shard gives the documents before the cut, then a reject that says where; the document at the cut may lack a
part, and is not given.

What this module does not know: whether an image is one.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import Self
from urllib.parse import quote

from indexer.corpus.paths import MAX_BYTES, open_stream, portable_name, printable
from indexer.corpus.reasons import Reason, refusal
from indexer.corpus.records import (
    IMAGE_SUFFIXES,
    Record,
    decode_text,
    make_sample,
    of_document,
    parse_object,
    record_or_rejected,
)
from indexer.errors import ItemError
from indexer.types import Rejected

# The webdataset package is not used: it imports torch, hands `pipe:` names to a shell, and gives the document
# at a cut without its missing parts, as if it were whole. Python's tarfile reads a stream in one pass, too.

_MEMBER = re.compile(r"(?:\./)*((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_PARTS = {"txt": "text", "json": "details"} | {
    suffix.removeprefix("."): "image"
    for suffix in (*IMAGE_SUFFIXES, ".svg")  # the decoder refuses SVG, by name
}


class WebDatasetCorpus:
    """The documents of WebDataset shards, shard after shard.

    Args:
        shards: The archives, by their absolute paths.
        source: The absolute path of the shard, of the folder that holds the shards, or of their pattern.
        folder: What the shards' names in ids are relative to; None leaves them out.

    Attributes:
        source: As given.
        ignored: How many members the last iteration passed over, being no part of a document.
    """

    def __init__(self, shards: Sequence[Path], source: str, folder: Path | None = None) -> None:
        self._shards = shards
        self._folder = folder
        self.source = source
        self.ignored = 0

    def __iter__(self) -> Iterator[Record | Rejected]:
        self.ignored = 0
        for shard in self._shards:
            prefix, seen, named = self._prefix(shard), False, False
            try:
                with open_stream(shard) as stream:
                    for sample in self._samples(stream):
                        uri = f"{shard.as_uri()}#key={quote(sample.key, errors='surrogateescape')}"
                        entry = record_or_rejected(uri, partial(sample.record, prefix, uri), hides="")
                        seen, named = True, named or not (isinstance(entry, Record) and entry.derived)
                        yield entry
            except ItemError as error:
                # What is not seen begins like what was seen; where that has ids of its own, it may be any.
                hides = prefix if seen and not named else ""
                yield Rejected(shard.as_uri(), error.reason, f"{printable(shard.name)}: {error.detail}", hides=hides)

    def _prefix(self, shard: Path) -> str:
        if self._folder is None:
            return ""
        name = shard.relative_to(self._folder).as_posix()
        return portable_name(re.sub(r"\.(tar|tar\.gz|tgz)$", "/", name))

    def _samples(self, stream: BufferedIOBase) -> Iterator[_Sample]:
        position = 0
        sample = _Sample("")
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo) as archive:
                while member := archive.next():
                    archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all that it met
                    position = member.offset
                    key, suffix = _split(member.name)
                    if key != sample.key:
                        if sample.parts:
                            yield sample
                        sample = _Sample(key)
                    if member.isfile() and not sample.take(suffix, member, archive):
                        self.ignored += 1
                    position = archive.offset
        except (tarfile.TarError, EOFError, zlib.error) as error:
            cut = isinstance(error, EOFError) or re.search("end of data|truncated|empty", str(error))
            reason = Reason.TRUNCATED if cut else Reason.DAMAGED
            lost = f"; {printable(sample.key)} is not complete" if sample.parts else ""
            detail = f"cannot be read beyond byte {position:,} of the archive ({error}){lost}."
            raise refusal(reason, detail) from error
        if sample.parts:
            yield sample


@dataclass
class _Sample:
    """The members of one key: at most one each of image, text and details."""

    key: str
    parts: dict[str, bytes] = field(default_factory=dict)
    too_long: tarfile.TarInfo | None = None

    def take(self, suffix: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> bool:
        """Read a member that is a part of the document; of two of a kind, the first."""
        part = _PARTS.get(suffix)
        if part is None or part in self.parts:
            return False
        if member.size > MAX_BYTES:
            self.too_long, content = member, None
        else:
            content = archive.extractfile(member)
        self.parts[part] = b"" if content is None else content.read()
        return True

    def record(self, prefix: str, uri: str) -> Record:
        """Make the document.

        Raises:
            ItemError: As `make_sample`, `decode_text` and `parse_object`; and `too-many-bytes`.
        """
        if self.too_long is not None:
            name, size = printable(self.too_long.name), self.too_long.size
            raise refusal(Reason.TOO_MANY_BYTES, f"{name} has {size:,} bytes; allowed are {MAX_BYTES:,}.")
        details = parse_object(self.parts["details"]) if "details" in self.parts else {}
        with of_document(details.get("id") or prefix + portable_name(self.key)):
            text = decode_text(self.parts.get("text", b"")).strip()
        return make_sample(
            id=prefix + portable_name(self.key),
            text=text,
            image=self.parts.get("image"),
            details=details,
            uri=uri,
        )


class _StrictTarInfo(tarfile.TarInfo):
    """A header that must be there: tarfile takes a bad one behind the first for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]  # the true end
                raise
            raise tarfile.ReadError(str(error)) from error


def _split(name: str) -> tuple[str, str]:
    """The key, and the suffix in lower case. Dots in folders are no part of either."""
    match = _MEMBER.fullmatch(name)
    return (match[1], match[2].lower()) if match else (name, "")
