"""Reading what is to be indexed: documents from folders, tables and archives, and decoding their images.

`open_corpus` opens a source; iterating over it yields a `Record` or a `Rejected` for each entry. Images are
decoded later, by `indexer.corpus.images`, so that many processes can share that work.

What this package does not know: embedders, collections, SQL.
"""

from indexer.corpus.readers import Corpus, Record, open_corpus

__all__ = ["Corpus", "Record", "open_corpus"]
