"""Filter by fields: prices, dates, lists.

    python examples/filters.py

If k documents match the filter, k come back, ranked exactly. `fake:64` is a model without weights that knows a text by
its words; put a real model in its place.
"""

import tempfile
from typing import Any

import underdrawing as ud

LAMPS = [
    ud.Document("desk", text="a desk lamp of brass", fields={"price": 89, "added": "2026-03-01", "rooms": ["study"]}),
    ud.Document("floor", text="a floor lamp of oak", fields={"price": 149, "added": "2026-05-20", "rooms": ["living"]}),
    ud.Document("kids", text="a lamp like a moon", fields={"price": 35, "added": "2025-11-11", "rooms": ["bedroom"]}),
    ud.Document("oil", text="an oil lamp of brass", fields={"price": 60, "added": "2024-01-05"}),
]

FILTERS: dict[str, dict[str, Any]] = {
    "below 100": {"price": {"$lt": 100}},
    "added in 2026": {"added": {"$gte": "2026-01-01", "$lt": "2027-01-01"}},
    "for study or bedroom": {"rooms": {"$in": ["study", "bedroom"]}},
    "below 100, and of brass": {"$and": [{"price": {"$lt": 100}}, {"$text": {"$contains": "brass"}}]},
    "a field nobody has": {"prize": {"$lt": 100}},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ud.Collection.open(folder, "fake:64") as lamps:
        lamps.add(LAMPS)
        search = ud.Retriever(lamps, method="text").search
        for name, where in FILTERS.items():
            results = search(ud.Query(text="a lamp of brass"), k=10, where=where)
            print(f"{name}: {', '.join(hit.id for hit in results) or 'nothing'}")
            for note in results.notes:  # a filter that cannot match says why
                print(f"  note: {note}")


if __name__ == "__main__":
    main()
