"""Build EmojiCIR: composed queries over the bundled emoji corpus, made by rules from Unicode's structure.

Run as `python -m benchmarks.emoji.build_queries [--corpus FILE] [--out FILE] [--check | --table]`. It takes the edits
of `families.py`, finds the images that show them, chooses a balanced number of each family and writes the sentences. It
uses no model: a query is never kept or dropped because a model finds it hard or easy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.emoji.build import BUNDLED, close_pairs, decode, publish
from benchmarks.emoji.concepts import Concept, plain, rank
from benchmarks.emoji.families import RULES, Edit, shuffled
from benchmarks.emoji.words import FAMILIES, TEMPLATES

SPLITS = ("train", "validation", "test")
# Limit of queries per family, in training and in each held-out split.
CAPS = {
    "skin_tone": (4500, 500), "role": (4500, 500), "gender": (2800, 350), "style": (2500, 350),
    "hair": (1500, 250), "expression": (1800, 300), "direction": (1600, 250), "clock": (1200, 200),
    "colour": (1000, 150), "moon_phase": (500, 100),
}  # fmt: skip
# Limit of queries per reference in a family, in training and in each held-out split; families with few
# references may use all edits.
PER_REFERENCE = (3, 2)
FEW_REFERENCES = ("clock", "colour", "moon_phase", "direction")
QUERIES_PER_TEXT = 4
SUBSET, SMALLEST_SUBSET = 10, 5
# Root mean square difference of the pixels (of 255) below which a change cannot be seen at 64 pixels.
VISIBLE = 4.0

SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("targets", pa.list_(pa.string()), nullable=False),
        pa.field("subset", pa.list_(pa.string()), nullable=False),
        pa.field("change", pa.string(), nullable=False),
        pa.field("template", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Corpus:
    """The emoji corpus without its pixels: what the rules and the checks need.

    `documents` are the ids in row order. `near` maps an id to ids of the same vendor that can hardly be
    distinguished from it, `twins` to those that show the same image.
    """

    documents: Mapping[str, Concept]
    splits: Mapping[str, str]
    near: Mapping[str, frozenset[str]]
    twins: Mapping[str, frozenset[str]]

    def split_of(self, document: str) -> str:
        """The split of the document's concept."""
        return self.splits[self.documents[document].hexcode]


@dataclass(frozen=True)
class Candidate:
    """An edit in one vendor's images."""

    reference: str
    targets: tuple[str, ...]
    split: str
    edit: Edit

    @property
    def key(self) -> str:
        """The candidate's name, for ordering by hash."""
        return f"{self.edit.family}|{self.reference}|{self.edit.change}"


@dataclass(frozen=True)
class Query:
    """A candidate with its sentence."""

    candidate: Candidate
    text: str
    template: str
    subset: tuple[str, ...]


def read_corpus(path: Path) -> Corpus:
    """Read the bundled corpus and measure which images look alike."""
    rows = pq.read_table(path).to_pylist()
    texts = {row["concept"]: row["text"] for row in rows}
    documents = {row["id"]: concept_of(row, texts[row["base"]]) for row in rows}
    near: dict[str, set[str]] = {row["id"]: set() for row in rows}
    twins: dict[str, set[str]] = defaultdict(set)
    for vendor in sorted({row["vendor"] for row in rows}):
        own = [row for row in rows if row["vendor"] == vendor]
        for a, b, _ in close_pairs(np.stack([decode(row["image"]) for row in own]), VISIBLE):
            near[own[a]["id"]].add(own[b]["id"])
            near[own[b]["id"]].add(own[a]["id"])
    for row in rows:
        twins[row["drawing"]].add(row["id"])
    return Corpus(
        documents=documents,
        splits={row["concept"]: row["split"] for row in rows},
        near={document: frozenset(others) for document, others in near.items()},
        twins={row["id"]: frozenset(twins[row["drawing"]]) for row in rows},
    )


def concept_of(row: Mapping[str, object], base_text: str) -> Concept:
    """The concept of a row of the corpus."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    hexcode = fields.pop("concept")
    for name in ("id", "vendor", "image", "split", "drawing"):
        del fields[name]
    return Concept(hexcode=hexcode, base_text=base_text, **fields)  # type: ignore[arg-type]


def candidates(corpus: Corpus, edits: Iterable[Edit]) -> Iterator[Candidate]:
    """The edits as documents that all exist, with a visible change that nothing else shows."""
    vendors = sorted({document.split("/")[0] for document in corpus.documents})
    for edit in edits:
        for vendor in vendors:
            reference, target = f"{vendor}/{edit.reference}", f"{edit.vendor or vendor}/{edit.target}"
            if reference == target or not {reference, target} <= corpus.documents.keys():
                continue
            targets = corpus.twins[target]
            # Only the targets may be near the targets: neither the reference nor any rival.
            if any(corpus.near[one] - targets for one in targets) or reference in targets:
                continue
            split = corpus.split_of(target)
            if split == "train" and corpus.split_of(reference) != "train":
                continue
            yield Candidate(reference, tuple(sorted(targets)), split, edit)


def select(
    found: Sequence[Candidate], cap: int, each: int, known: Mapping[str, set[tuple[str, ...]]]
) -> list[Candidate]:
    """At most `cap` candidates, at most `each` per reference, preferring the least used targets.

    A reference must lead to two different answers, here or among those `known` from elsewhere; otherwise the
    image alone would determine the answer.
    """
    own: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in found:
        own[candidate.reference].append(candidate)
    used: Counter[tuple[str, ...]] = Counter()
    chosen: list[Candidate] = []
    for reference in shuffled(own, "reference"):
        answers = known.get(reference, set()) | {candidate.targets for candidate in own[reference]}
        if len(answers) < 2:
            continue
        order = sorted(own[reference], key=lambda candidate: (used[candidate.targets], rank(candidate.key)))
        chosen.extend(order[:each])
        used.update(candidate.targets for candidate in order[:each])
        if len(chosen) >= cap:
            break
    return chosen[:cap]


def choose(corpus: Corpus) -> list[Candidate]:
    """The candidates of all families and splits."""
    concepts = list({concept.hexcode: concept for concept in corpus.documents.values()}.values())
    known: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    found = {
        family: [candidate for candidate in candidates(corpus, RULES[family](concepts)) if sayable(corpus, candidate)]
        for family in FAMILIES
    }
    chosen: list[Candidate] = []
    for split in SPLITS:
        for family in CAPS:
            here = [candidate for candidate in found[family] if candidate.split == split]
            held_out = split != "train"
            cap = CAPS[family][held_out]
            each = cap if family in FEW_REFERENCES else PER_REFERENCE[held_out]
            picked = select(here, cap, each, known)
            for candidate in picked:
                known[candidate.reference].add(candidate.targets)
            chosen.extend(picked)
    return chosen


@cache
def says_name(family: str, phrase: str, name: str) -> bool:
    """Whether some sentence of the family would contain the name."""
    templates = TEMPLATES[family]
    sentences = (template.format(phrase) for template in (*templates.trained, *templates.unseen))
    return any(f" {plain(name)} " in f" {plain(sentence)} " for sentence in sentences)


def sayable(corpus: Corpus, candidate: Candidate) -> bool:
    """Whether the change can be expressed without the CLDR name of a target."""
    edit = candidate.edit
    return not any(says_name(edit.family, edit.phrase, corpus.documents[one].text) for one in candidate.targets)


def subset_of(corpus: Corpus, candidate: Candidate) -> tuple[str, ...]:
    """The targets and their hard siblings of the same vendor, without the reference."""
    vendor = candidate.targets[0].split("/")[0]
    left_out = corpus.twins[candidate.reference] | set(candidate.targets)
    subgroup = corpus.documents[candidate.targets[0]].subgroup
    siblings = [f"{vendor}/{code}" for code in candidate.edit.siblings]

    def usable(document: str) -> bool:
        if document not in corpus.documents or document in left_out:
            return False
        return candidate.split != "train" or corpus.split_of(document) == "train"

    chosen = [document for document in dict.fromkeys(siblings) if usable(document)]
    chosen = chosen[: SUBSET - len(candidate.targets)]
    if len(chosen) + len(candidate.targets) < SMALLEST_SUBSET:
        rest = [f"{vendor}/{c.hexcode}" for c in corpus.documents.values() if c.subgroup == subgroup]
        fill = [d for d in shuffled(set(rest) - set(chosen), candidate.key) if usable(d)]
        chosen += fill[: SMALLEST_SUBSET - len(candidate.targets) - len(chosen)]
    return tuple(sorted((*candidate.targets, *chosen)))


def templates_for(split: str, family: str, turn: int) -> list[str]:
    """All templates that the split may use; the `turn`-th change of the family starts at the `turn`-th."""
    templates = TEMPLATES[family]
    allowed = templates.trained if split == "train" else (*templates.trained, *templates.unseen)
    order = shuffled(allowed, f"{split}|{family}")
    turn %= len(order)
    return order[turn:] + order[:turn]


def put_into_words(corpus: Corpus, chosen: Sequence[Candidate]) -> list[Query]:
    """One sentence per candidate; several queries of the split share each sentence."""
    groups: dict[tuple[str, str, str], list[Candidate]] = defaultdict(list)
    for candidate in chosen:
        groups[candidate.split, candidate.edit.family, candidate.edit.change].append(candidate)
    queries = []
    turns: Counter[tuple[str, str]] = Counter()
    for split, family, change in sorted(groups):
        members = sorted(groups[split, family, change], key=lambda member: rank(member.key))
        templates = templates_for(split, family, turns[split, family])
        turns[split, family] += 1
        count = max(1, min(len(templates), len(members) // QUERIES_PER_TEXT))
        for place, candidate in enumerate(members):
            template = templates[place % count]
            subset = subset_of(corpus, candidate)
            if len(subset) >= SMALLEST_SUBSET:
                queries.append(Query(candidate, template.format(candidate.edit.phrase), template, subset))
    return queries


def telling_texts(queries: Iterable[Query]) -> set[tuple[str, str]]:
    """The (split, text) pairs with a document that answers every query: these need no image."""
    common: dict[tuple[str, str], set[str]] = {}
    for query in queries:
        targets = set(query.candidate.targets)
        key = (query.candidate.split, query.text)
        common[key] = common.get(key, targets) & targets
    return {key for key, shared in common.items() if shared}


def telling_references(queries: Iterable[Query]) -> set[str]:
    """The references that have one answer in all their queries: these need no text."""
    answers: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for query in queries:
        answers[query.candidate.reference].add(query.candidate.targets)
    return {reference for reference, targets in answers.items() if len(targets) < 2}


def without_shortcuts(queries: Sequence[Query]) -> list[Query]:
    """The queries that need both parts; repeated until stable, since dropping one may affect another."""
    kept = list(queries)
    while True:
        texts, references = telling_texts(kept), telling_references(kept)
        fewer = [
            query
            for query in kept
            if (query.candidate.split, query.text) not in texts and query.candidate.reference not in references
        ]
        if len(fewer) == len(kept):
            return kept
        kept = fewer


def _place(query: Query) -> tuple[int, int, str]:
    candidate = query.candidate
    return SPLITS.index(candidate.split), FAMILIES.index(candidate.edit.family), rank(candidate.key)


def build(corpus: Corpus) -> pa.Table:
    """All queries as rows, by split and family."""
    queries = without_shortcuts(put_into_words(corpus, choose(corpus)))
    numbers: Counter[tuple[str, str]] = Counter()
    rows = []
    for query in sorted(queries, key=_place):
        candidate = query.candidate
        place = (candidate.split, candidate.edit.family)
        numbers[place] += 1
        rows.append(
            {
                "query_id": f"{candidate.split}/{candidate.edit.family}/{numbers[place]:04d}",
                "split": candidate.split,
                "family": candidate.edit.family,
                "reference": candidate.reference,
                "text": query.text,
                "targets": list(candidate.targets),
                "subset": list(query.subset),
                "change": candidate.edit.change,
                "template": query.template,
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def markdown_table(table: pa.Table) -> str:
    """The number of queries per family and split, as shown in the README."""
    counts = Counter(zip(table["family"].to_pylist(), table["split"].to_pylist(), strict=True))
    lines = ["| family | train | validation | test |", "| --- | ---: | ---: | ---: |"]
    for family in FAMILIES:
        lines.append(f"| `{family}` | " + " | ".join(f"{counts[family, split]:,}" for split in SPLITS) + " |")
    totals = [sum(counts[family, split] for family in FAMILIES) for split in SPLITS]
    return "\n".join([*lines, "| all | " + " | ".join(f"{total:,}" for total in totals) + " |"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emoji.build_queries", description="Build EmojiCIR.")
    parser.add_argument("--corpus", type=Path, default=BUNDLED / "emoji.parquet")
    parser.add_argument("--out", type=Path, default=BUNDLED / "emojicir.parquet")
    parser.add_argument("--check", action="store_true", help="compare with the file at --out, write nothing")
    parser.add_argument("--table", action="store_true", help="print the counts of the file at --out, build nothing")
    options = parser.parse_args(arguments)
    if options.table:
        print(markdown_table(pq.read_table(options.out)))
        return 0
    table = build(read_corpus(options.corpus))
    print(markdown_table(table))
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "emojicir.parquet"
        pq.write_table(table, built, compression="zstd", compression_level=9, version="2.6", store_schema=False)
        return publish(built, options.out, options.check)


if __name__ == "__main__":
    raise SystemExit(main())
