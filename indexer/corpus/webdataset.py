"""A reader of WebDataset shards: tar archives, also compressed, in which the files of one document share a name.

* `0001.jpg`, `0001.txt`, `0001.json` are one document: its image, its text, and, as in a folder, its `id`, `text`,
  `caption` and fields. `indexer/corpus/sample_names.py` decides which names belong together, including names with dots.
* The id is that name. For shards in a folder or pattern, even a single one, the shard's name and a slash come first,
  since many datasets restart counting in each.
* The stamp is a digest of the content.

Members of one name need not be adjacent if they are in one window: 65,536 members of a plain archive, of which only
headers are held, or 64 MiB of a compressed one. Members further apart are rejected, and the reason says so.

Everything else in an archive is passed over and counted by suffix. Nothing is extracted, so a member's name is never
used as a path. A truncated shard gives the documents before the cut, then a reject that says where; the document at the
cut may be incomplete and is omitted.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from indexer.corpus.columns import own_id
from indexer.corpus.empty import or_empty
from indexer.corpus.paths import MAX_BYTES, portable_name, printable
from indexer.corpus.records import (
    Entry,
    Record,
    decode_text,
    make_sample,
    of_document,
    parse_object,
    record_or_rejected,
)
from indexer.corpus.sample_names import Sample, group, part_of
from indexer.corpus.streams import open_stream
from indexer.corpus.suffixes import UNREAD_IMAGES, split_name
from indexer.corpus.tar import Kind, Member, TarReader
from indexer.errors import ItemError
from indexer.reasons import Reason, refusal
from indexer.types import PassedOver, Rejected
from indexer.validate import MAX_IMAGES, MAX_TEXT

# The webdataset package is not used: it imports torch, passes `pipe:` names to a shell, and gives the document
# at a cut as if it were complete.

WINDOW_MEMBERS = 65_536
WINDOW_BYTES = 64 * 1024 * 1024
"""Bytes of contents that are held of a compressed archive, plus one sample."""
MAX_SAMPLE_BYTES = 512 * 1024 * 1024
"""Bytes of one sample of a compressed archive; later members of it count as not adjacent."""
_MAX_TEXT_BYTES = 4 * MAX_TEXT


class WebDatasetCorpus:
    """The documents of WebDataset shards, shard after shard.

    Args:
        shards: The archives, by their absolute paths.
        source: The absolute path of the shard, of the folder that holds the shards, or of their pattern.
        folder: The folder that the shards' names in ids are relative to; None leaves the names out.

    Attributes:
        source: As given.
    """

    def __init__(self, shards: Sequence[Path], source: str, folder: Path | None = None) -> None:
        self._shards = shards
        self._folder = folder
        self.source = source

    def __iter__(self) -> Iterator[Entry]:
        for shard in self._shards:
            prefix = self._prefix(shard)
            yield from or_empty(self._read(shard, prefix), shard, prefix)

    def _read(self, shard: Path, prefix: str) -> Iterator[Entry]:
        derived, own = False, False
        try:
            with open_stream(shard) as stream:
                for entry in _Shard(stream, shard.as_uri(), prefix).entries():
                    derived = derived or (isinstance(entry, Record) and entry.derived)
                    own = own or (isinstance(entry, Record) and not entry.derived)
                    own = own or (isinstance(entry, Rejected) and not (entry.hides or "").startswith(prefix or "\0"))
                    yield entry
        except ItemError as error:
            # Unseen documents are named like those seen; if those have ids of their own, the unseen may have any.
            hides = prefix if derived and not own else ""
            yield Rejected(shard.as_uri(), error.reason, f"{printable(shard.name)}: {error.detail}", hides=hides)

    def _prefix(self, shard: Path) -> str:
        if self._folder is None:
            return ""
        name = shard.relative_to(self._folder).as_posix()
        return portable_name(re.sub(r"\.(tar(\.(gz|bz2|xz|zst))?|t[gbx]z|tbz2|tzst)$", "/", name, flags=re.IGNORECASE))


class _Held(NamedTuple):
    """A member that waits for the others of its name; in a compressed archive, with its content."""

    member: Member
    content: bytes | None


class _Shard:
    """One archive, read window by window."""

    def __init__(self, stream: BufferedIOBase, uri: str, prefix: str) -> None:
        self._seekable = stream.seekable()
        size = os.fstat(stream.fileno()).st_size if self._seekable else None
        self._archive = TarReader(stream, size)
        self._uri, self._prefix = uri, prefix
        self._held: list[_Held] = []
        self._bytes = 0
        self._given: set[int] = set()  # 64-bit digests of the keys that were given

    def entries(self) -> Iterator[Entry]:
        """The archive's entries.

        Raises:
            ItemError: Reading cannot continue; what comes before has been given.
        """
        try:
            while (member := self._archive.next()) is not None:
                if member.kind is Kind.FOLDER:
                    continue
                if member.kind is not Kind.FILE:
                    yield PassedOver(self._uri_of(member.name), member.kind.value)
                    continue
                self._take(member)
                if len(self._held) >= WINDOW_MEMBERS or self._bytes >= WINDOW_BYTES:
                    yield from self._give(last=False)
        except ItemError as error:
            at = self._archive.current
            names = [each.member.name for each in self._held]
            lost = _key_of_last([*names, at.name] if at is not None and at.kind is Kind.FILE else names)
            lost = None if self._archive.ended else lost
            incomplete = yield from self._give(last=True, lost=lost)
            note = f"; {printable(lost)} is incomplete" if lost is not None and incomplete else ""
            detail = f"cannot be read beyond byte {self._archive.position:,} of the archive ({error.detail}){note}."
            raise ItemError(error.reason, detail) from error
        yield from self._give(last=True)

    def _take(self, member: Member) -> None:
        content = None
        if not self._seekable and part_of(member.name) is not None and member.size <= MAX_BYTES:
            content = self._archive.read(member)
            self._bytes += len(content)
        self._held.append(_Held(member, content))

    def _give(self, *, last: bool, lost: str | None = None) -> Generator[Entry, None, bool]:
        """Give the held samples, except that of `lost`, and except the open one if more may follow.

        Returns:
            Whether any part of `lost` was there.
        """
        held, self._held, self._bytes = self._held, [], 0
        samples, outside = group([each.member.name for each in held])
        for place, kind in outside:
            yield PassedOver(self._uri_of(held[place].member.name), kind)
        open_key = None if last else _key_of_last([each.member.name for each in held])
        incomplete, given = False, set()
        for sample in samples:
            if sample.key == open_key and len(sample.places) <= WINDOW_MEMBERS // 2:
                self._held += [held[place] for place in sample.places]
            elif sample.key == lost:
                incomplete = True
            else:
                yield from self._sample(sample, held)
                given.add(_digest(sample.key))
        self._given |= given
        self._bytes = sum(len(each.content or b"") for each in self._held)
        if self._bytes > MAX_SAMPLE_BYTES:
            yield from self._give(last=True)
        return incomplete

    def _sample(self, sample: Sample, held: list[_Held]) -> Iterator[Entry]:
        uri = self._uri_of(sample.key)
        for place, suffix in sample.extras:
            yield PassedOver(self._uri_of(held[place].member.name), suffix)
        if not sample.parts:
            return
        if _digest(sample.key) in self._given:
            yield self._apart(sample, uri)
            return
        build = partial(self._record, sample, held, uri)
        yield record_or_rejected(uri, build, hides="")

    def _record(self, sample: Sample, held: list[_Held], uri: str) -> Record:
        id = self._prefix + portable_name(sample.key)
        details = {}
        if sample.details:
            details = parse_object(self._content(held[sample.details[0]], MAX_BYTES))
        own = own_id(details)
        with of_document(id if own is None else own):
            texts = [decode_text(self._content(held[place], _MAX_TEXT_BYTES)).strip() for place in sample.texts]
            if (count := len(sample.images)) > MAX_IMAGES:
                raise refusal(Reason.TOO_MANY_IMAGES, f"It has {count:,} images; the limit is {MAX_IMAGES}.")
            size = sum(held[place].member.size for place in sample.images)
            if size > MAX_BYTES:
                raise refusal(
                    Reason.TOO_MANY_BYTES,
                    f"Its {len(sample.images):,} images have {size:,} bytes; the limit is {MAX_BYTES:,}.",
                )
            images = [self._image(held[place]) for place in sample.images]
        return make_sample(id=id, text="\n".join(filter(None, texts)), images=images, details=details, uri=uri)

    def _image(self, held: _Held) -> bytes:
        suffix = split_name(held.member.name)[1]
        if suffix in UNREAD_IMAGES:
            name = printable(held.member.name)
            raise refusal(Reason.UNSUPPORTED_FORMAT, f"{name} is an image in a format that is not read; convert it.")
        return self._content(held, MAX_BYTES)

    def _content(self, held: _Held, limit: int) -> bytes:
        if held.member.size > limit:
            name, size = printable(held.member.name), held.member.size
            raise refusal(Reason.TOO_MANY_BYTES, f"{name} has {size:,} bytes; the limit is {limit:,}.")
        return self._archive.read(held.member) if held.content is None else held.content

    def _apart(self, sample: Sample, uri: str) -> Rejected:
        window = f"{WINDOW_MEMBERS:,} members" if self._seekable else f"{WINDOW_BYTES >> 20:,} MiB"
        detail = (
            f"The members of {printable(sample.key)} are not adjacent: others came more than {window} before. "
            "Sort the archive by name (tar --sort=name), so that the files of one document lie next to each other."
        )
        hides = self._prefix + portable_name(sample.key)
        return Rejected(uri, Reason.MEMBERS_APART.value, detail, hides=hides if sample.details == [] else "")

    def _uri_of(self, name: str) -> str:
        return f"{self._uri}#key={quote(name, errors='surrogateescape')}"


def _key_of_last(names: Sequence[str]) -> str | None:
    """The key of the sample that the last name belongs to."""
    samples, _ = group(names)
    last = len(names) - 1
    return next((sample.key for sample in samples if last in sample.places), None)


def _digest(key: str) -> int:
    content = key.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
