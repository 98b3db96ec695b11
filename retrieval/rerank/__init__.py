"""Re-rankers: models that judge a query and a document together, slower and better than a vector search can."""

from retrieval.rerank.base import RERANKERS, Reranker, RerankerFamily, load_reranker, reranked

__all__ = ["RERANKERS", "Reranker", "RerankerFamily", "load_reranker", "reranked"]
