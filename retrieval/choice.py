"""Choice of the method that answers a request, and of the request's fields that it reads.

What this module does not know: collections, models.
"""

from __future__ import annotations

from collections.abc import Callable

from indexer.errors import RequestError, UnknownNameError
from retrieval.fields import REFINE, FieldInfo
from retrieval.methods import Refining, SearchMethod, load_method
from retrieval.methods.weights import preferred
from retrieval.request import SearchOptions, SearchRequest, fields_of

QUICK = ("sum", "slerp", "product", "shift", "inversion")
"""The methods to choose from by default for a composed query: those that cost no more than an embedding."""


def implied_method(request: SearchRequest) -> str | None:
    """The method that the request's fields belong to, if any: `cig` if `steps` is set."""
    fields = fields_of(SearchOptions)
    given = set(request.given()) - ({"deadline_ms"} if request.rerank is not None else set())
    read_by = [info.read_by for name, info in fields.items() if name in given and info.read_by]
    if not read_by:
        return None
    return next((method for method in read_by[0] if all(method in own for own in read_by)), read_by[0][0])


def default_method(request: SearchRequest, model: Callable[[], str]) -> str:
    """`text` or `image` for a query with one part; for a composed query the best method with this model, or `sum`.

    Weights given in a request are those of `sum`.

    Args:
        request: A request without a method.
        model: Returns the name of the collection's embedder.
    """
    if request.text is None:
        return "image"
    if request.image is None and request.like is None:
        return "text"
    if request.weights is not None and request.weights.given():
        return "sum"
    return preferred(model(), QUICK) or "sum"


def method_of(name: str, merge: str | None) -> SearchMethod:
    """The method of a request.

    Raises:
        RequestError: There is no method or no merge of that name.
        PluginError: The package that offers it cannot be used.
    """
    try:
        return load_method(name, merge)
    except UnknownNameError as error:
        raise RequestError("method" if merge is None else "merge", error.message, error.remedy) from None


def reads(method: SearchMethod, info: FieldInfo, asked: str) -> bool:
    """Whether a method reads a field: every method does, or the field names it, or names a trait that it has.

    Args:
        method: The method.
        info: What is known of the field.
        asked: The name in the request: `cig` if the merge makes it `cig-product`.
    """
    traits = {str(helper) for helper in method.needs} | ({REFINE} if isinstance(method, Refining) else set())
    return not info.read_by or not {method.name, asked}.isdisjoint(info.read_by) or info.trait in traits


def require_read(request: SearchRequest, method: SearchMethod) -> None:
    """Refuse a field that nothing reads.

    Raises:
        RequestError: There is one.
    """
    known, given = fields_of(SearchRequest), set(request.given())
    if "rerank_depth" in given and "rerank" not in given:
        raise RequestError("rerank_depth", "`rerank_depth` is read only with `rerank`.", "Add `rerank`.")
    for name, info in known.items():
        if (
            name in given
            and not reads(method, info, request.method or method.name)
            and not (name == "deadline_ms" and "rerank" in given)
        ):
            others = " or ".join(f"`method={each}`" for each in info.read_by)
            raise RequestError(
                name, f"The method {method.name} does not read `{name}`.", f"Leave it out, or choose {others}."
            )


def require_both(request: SearchRequest, method: SearchMethod) -> None:
    """Refuse a query that lacks a part which the method's helper models need.

    Raises:
        RequestError: The text or the reference is missing.
    """
    if not method.needs:
        return
    needs = f"The method {method.name} needs a text and a reference; this query has no"
    if request.image is None and request.like is None:
        raise RequestError("image", f"{needs} reference.", "Add `image` or `like`, or choose `method=text`.")
    if request.text is None:
        raise RequestError(
            "text", f"{needs} text.", "Say how the answer differs from the reference, or choose `method=image`."
        )
