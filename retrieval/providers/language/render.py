"""A program that renders chats by an untrusted template, within limits of time and memory.

`templates.py` runs it as a file, with a JSON object on standard input; it prints a JSON list of texts. A template
cannot leave Jinja's sandbox, but it can loop for ever or write a gigabyte.

What this module does not know: models, transformers.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any


def limit(seconds: int, memory: int) -> None:
    """Limit this process to that much processor time and that many bytes."""
    try:
        import resource
    except ImportError:  # not on every system; the caller has a limit, too
        return
    for what, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory)):
        hard = resource.getrlimit(what)[1]
        try:
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
        except (ValueError, OSError):  # a system that does not support one of the limits
            continue


def render(asked: dict[str, Any]) -> list[str]:
    """The text of each chat, as transformers renders them."""
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock, Node
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}`, which marks the model's words; here it renders its content."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

        def _said(self, caller: Any) -> Any:
            return caller()

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
                sort_keys: bool = False) -> str:  # fmt: skip
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005  # as transformers
    template = environment.from_string(asked["template"])
    return [template.render(messages=chat, **asked["options"]) for chat in asked["chats"]]


def main() -> None:
    """Read, render, print."""
    limit(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write(json.dumps(render(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
