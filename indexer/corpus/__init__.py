"""Readers of corpora: documents from folders, tables and archives, and the decoding of their images.

`open_corpus` opens a source; iterating over it yields a `Record` or a `Rejected` for each entry. Images are
decoded later, by `indexer.corpus.images`, so that many processes can share that work.

This package does not know embedders, collections or SQL.
"""

from indexer.corpus.readers import Corpus, Record, open_corpus

__all__ = ["Corpus", "Record", "open_corpus"]
