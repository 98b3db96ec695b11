"""Consoles of the commands: answers on stdout, everything else on stderr, and only JSON if that was asked for.

Texts and ids come from other people's files. Whatever a console of this module prints goes through `harmless`, and JSON
through `harmless_json`, so that no stored text can move the cursor, color the terminal or turn the order of characters
around. What is one line goes through `plain` before, so that it does not pass for markup.

What this module does not know: any command.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""They turn the order of what follows around: `gpj.exe` would read `exe.jpg`."""
_ACTING = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029{_BIDI}]")
_IN_JSON = re.compile(f"[\x7f-\x9f\u2028\u2029{_BIDI}]")


def harmless(text: str) -> str:
    """Text in which every character is only shown: line breaks and tabs stay, other controls do not."""
    return _ACTING.sub(
        lambda found: " " if found[0].isspace() or found[0] == "\0" else "\N{REPLACEMENT CHARACTER}", text
    )


def harmless_json(text: str) -> str:
    """JSON with escapes for the characters that a terminal would act on; the value is the same."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class HarmlessConsole(Console):
    """A console that prints no control character but its own."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            each if each.control else Segment(harmless(each.text), each.style) for each in buffer
        )


out = HarmlessConsole(highlight=False, emoji=False)
"""Answers."""
err = HarmlessConsole(stderr=True, highlight=False, emoji=False)
"""The console for progress, notes and errors, which a pipe never sees."""


def show_error(message: str, remedy: str | None = None) -> None:
    """What went wrong, and below it what to do. Never wrapped, so that a command in it can be copied."""
    err.print(Text.assemble(("error: ", "bold red"), harmless(message)), soft_wrap=True)
    if remedy:
        err.print(Text(harmless(f"  {remedy}".replace("\n", "\n  ")), "cyan"), soft_wrap=True)


def show_remark(text: str) -> None:
    """A line that a person wants and a program does not."""
    err.print(Text(harmless(text), "dim"), soft_wrap=True)


def show_json(value: Any) -> None:
    """One JSON value on stdout."""
    text = harmless_json(json.dumps(value, ensure_ascii=False, indent=2))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    # Not through rich, which drops some control characters and could wrap.
    typer.echo(text)


def show_facts(facts: Mapping[str, str]) -> None:
    """Names and values in two columns; what has no value is left out."""
    show_pairs([(name, value) for name, value in facts.items() if value], "bold")


def show_pairs(pairs: Sequence[tuple[str, str]], style: str) -> None:
    """Two columns, the first in a style. Not wrapped: a path stays one word, for eyes and for `grep`."""
    width = max((len(name) for name, _ in pairs), default=0) + 2
    for name, value in pairs:
        indented = harmless(value).replace("\n", "\n" + " " * (width + 2))
        out.print(Text.assemble("  ", (name.ljust(width), style), indented), soft_wrap=True)


@contextmanager
def hushed_models() -> Iterator[None]:
    """Within this block the libraries that load generators show no bars and no messages of their own."""
    try:
        from diffusers.utils import logging as diffusers
        from transformers.utils import logging as transformers
    except ImportError:
        yield
        return
    verbosity, bars = diffusers.get_verbosity(), transformers.is_progress_bar_enabled()
    diffusers.set_verbosity_error()
    diffusers.disable_progress_bar()
    transformers.disable_progress_bar()
    try:
        yield
    finally:
        diffusers.set_verbosity(verbosity)
        diffusers.enable_progress_bar()
        if bars:
            transformers.enable_progress_bar()


def plain(text: str) -> str:
    """Text on one line, without control characters and halves of surrogate pairs."""
    return " ".join(harmless(text).split())


def shortened(text: str, width: int) -> str:
    """Plain text of at most `width` characters."""
    text = plain(text)
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def examples(*lines: str) -> str:
    """The end of a command's help. A line that begins with # is a comment."""
    shown = [f"[dim]{line}[/dim]" if line.startswith("#") else f"[cyan]$ {line}[/cyan]" for line in lines]
    return "\n".join(["[bold]Examples[/bold]", *shown])


def counted(count: int, name: str) -> str:
    """`1 document`, `2,000 documents`."""
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def measure(value: float) -> str:
    """A number that was measured: `0.4137`, `18,530`, `1,234.5`, never a power of ten where it is large."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def listed(counts: Mapping[str, int]) -> str:
    """Counts by name, the largest first."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered)


def duration(seconds: float) -> str:
    """Such as `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


def amount(count: int) -> str:
    """Bytes, in the unit that suits."""
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"


def first(values: Sequence[str], most: int) -> str:
    """The first values, and how many more there are."""
    more = len(values) - most
    return ", ".join(values[:most]) + (f" and {more:,} more" if more > 0 else "")
