"""Choice of the method that answers a request, and of the request's fields that it reads.

What this module does not know: collections, models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

from indexer.errors import RequestError, UnknownNameError
from retrieval.fields import REFINE, FieldInfo
from retrieval.methods import (
    METHODS,
    Helper,
    ReadsFields,
    Refining,
    SearchMethod,
    Selective,
    load_method,
    usable_methods,
    variant_of,
)
from retrieval.methods.weights import preferred
from retrieval.request import SearchOptions, SearchRequest, fields_of


def implied_method(request: SearchRequest) -> str | None:
    """The method that a request's fields are for, where they are for one: `cig` where `steps` is set.

    Of several that read them all it is the one that needs the fewest helper models.
    """
    fields = fields_of(SearchOptions)
    passed_over = {"deadline_ms"} if request.rerank is not None else set()
    given = [name for name in request.given() if name in fields and fields[name].trait and name not in passed_over]
    if not given:
        return None
    readers = [_readers(name, fields[name]) for name in given]
    both = [name for name in readers[0] if all(name in own for own in readers)] or readers[0]
    return min(both, key=lambda name: len(load_method(name).needs), default=None)


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
    return preferred(model(), quick) or "sum"


def agreed(methods: Sequence[str]) -> str:
    """The default method of a request to several spaces, from what each of them would have: that one, or `sum`."""
    return methods[0] if len(set(methods)) == 1 else "sum"


def quick(name: str) -> bool:
    """Whether a composed query may be answered by a method where none is named: it costs no more than an embedding."""
    if name not in METHODS:
        return False
    method = load_method(name)
    return set(method.needs) <= {Helper.INVERSION} and not isinstance(method, Selective)


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


def reads(method: SearchMethod, name: str, info: FieldInfo) -> bool:
    """Whether a method reads a field: every method does, or it has what the field is about, or it names it.

    Args:
        method: The method, as it was asked for: `cig` itself where a request has a merge beside it.
        name: Of the field.
        info: Of the field.
    """
    traits = {str(helper) for helper in method.needs} | ({REFINE} if isinstance(method, Refining) else set())
    return not info.trait or info.trait in traits or isinstance(method, ReadsFields) and name in method.reads_fields


def _readers(name: str, info: FieldInfo) -> list[str]:
    """The methods that read a field, without variants; those that it is made for come first."""
    found = [
        (isinstance(method, ReadsFields) and name in method.reads_fields, each)
        for each, method in usable_methods().items()
        if reads(method, name, info) and variant_of(method) is None
    ]
    return [each for _, each in sorted(found, key=itemgetter(0))]


def require_read(request: SearchRequest, method: SearchMethod) -> None:
    """Refuse a field that nothing reads.

    Raises:
        RequestError: There is one.
    """
    known, given = fields_of(SearchRequest), set(request.given())
    asked = method_of(request.method or method.name, None)
    if "rerank_depth" in given and "rerank" not in given:
        raise RequestError("rerank_depth", "`rerank_depth` is read only with `rerank`.", "Add `rerank`.")
    if "fusion" in given and len(request.space) < 2:
        raise RequestError(
            "fusion", "`fusion` is read where several spaces are searched.", "Name two or more with `space`."
        )
    for name, info in known.items():
        if name in given and not reads(asked, name, info) and not (name == "deadline_ms" and "rerank" in given):
            others = " or ".join(f"`method={each}`" for each in _readers(name, info))
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
