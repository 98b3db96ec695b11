"""The command `underdrawing`: its root and its errors. Each command has a file beside this one.

Nothing heavy is imported here or by the modules that define commands: each command imports what it runs on, so that
`underdrawing --help` answers at once.

What this module does not know: how any command does its work.
"""

from __future__ import annotations

import atexit
import gc
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from indexer.errors import UnderdrawingError
from pipelines.cli import collection as cli_collection
from pipelines.cli import diagnose as cli_diagnose
from pipelines.cli import doctor as cli_doctor
from pipelines.cli import evaluate as cli_evaluate
from pipelines.cli import search as cli_search
from pipelines.cli import spaces as cli_spaces
from pipelines.cli import synthesize as cli_synthesize
from pipelines.cli import train_photo as cli_train_photo  # which is one of the commands of train
from pipelines.cli.request import with_options
from pipelines.terminal.console import examples, out, show_error
from underdrawing import __version__

RESUMABLE = frozenset({"index", "spaces", "synthesize", "train"})
"""Commands that a second run continues."""

HELP = ["-h", "--help"]
INTERRUPTED = 130  # as shells count: 128 and the number of SIGINT

YOUNG_OBJECTS = 100_000
"""New objects before the garbage collector looks at them; Python's default is 700."""


class Commands(TyperGroup):
    """The root: what a command raises becomes a line, a remedy and an exit code; a bug keeps its traceback."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Begin a call."""
        _take_no_value(self)
        return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was called."""
        try:
            return super().invoke(ctx)
        except UnderdrawingError as error:
            if ctx.params["debug"]:
                raise
            show_error(with_options(error.message), error.remedy and with_options(error.remedy))
            raise typer.Exit(error.exit_code) from None
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # which pydantic, below typer, puts before it
            raise
        except BrokenPipeError:
            raise  # whoever read the output has left, as `head` does; typer ends quietly then
        except OSError as error:
            if ctx.params["debug"]:
                raise
            show_error(_sentence(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            again = "run the same command again and it continues where it stopped"
            show_error("interrupted.", again if ctx.invoked_subcommand in RESUMABLE else None)
            raise typer.Exit(INTERRUPTED) from None


def _take_no_value(command: Any) -> None:
    """Let help texts show no type for options that are yes or no, of a command and all below it."""
    named = command.context_class(command, help_option_names=HELP)
    for option in command.get_params(named):
        if getattr(option, "is_flag", False) and option.metavar is None:
            option.metavar = ""
    for each in getattr(command, "commands", {}).values():
        _take_no_value(each)


def _sentence(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}." if error.filename else f"{reason}."


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP},
    epilog=examples(
        "underdrawing demo",
        "underdrawing index photos/ shop",
        'underdrawing search shop "at night" --image reference.jpg',
    ),
)


def _version(asked: bool) -> None:
    if asked:
        out.print(f"underdrawing {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error was raised, as a traceback.")] = False,
) -> None:
    """Find the image you mean: a reference image plus a sentence ("this one, but at night") finds images.

    Index a folder once, then search it by text, by image, or by both together.
    """


START = "Start here"
COLLECTIONS = "Collections"
TRAINING = "Training"
MEASURING = "Measuring"


@app.command(rich_help_panel=START, epilog=examples("underdrawing demo", "underdrawing demo --out /tmp/demo"))
def demo(
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the collection and the report go.")
    ] = Path("demo"),
    joint: Annotated[
        str | None,
        typer.Option(metavar="M", help="A model that reads text and image at once: adds joint, and pages of both."),
    ] = None,
) -> None:
    """Index the bundled emoji, ask composed queries, write an HTML report. Needs no network.

    A first look at what the engine does. It takes some minutes on a CPU and prints where the report is.
    """
    from pipelines.demo.run import run_demo

    run_demo(out_folder, out, joint=joint)


app.command(rich_help_panel=START, epilog=cli_doctor.EPILOG)(cli_doctor.doctor)
app.command(rich_help_panel=COLLECTIONS, epilog=cli_collection.INDEX_EPILOG)(cli_collection.index)
app.command(rich_help_panel=COLLECTIONS, epilog=cli_search.EPILOG)(cli_search.search)
app.command(rich_help_panel=COLLECTIONS, epilog=cli_collection.INFO_EPILOG)(cli_collection.info)
app.command(rich_help_panel=COLLECTIONS, epilog=cli_spaces.EPILOG)(cli_spaces.spaces)
app.command(rich_help_panel=COLLECTIONS, epilog=cli_collection.DELETE_EPILOG)(cli_collection.delete)
app.command(rich_help_panel=COLLECTIONS, epilog=cli_collection.CHECK_EPILOG)(cli_collection.check)
app.command(rich_help_panel=COLLECTIONS, epilog=cli_collection.COMPACT_EPILOG)(cli_collection.compact)
app.add_typer(cli_diagnose.app, name="diagnose", rich_help_panel=COLLECTIONS)
app.command(rich_help_panel=TRAINING, epilog=cli_synthesize.EPILOG)(cli_synthesize.synthesize)
app.add_typer(cli_train_photo.app, name="train", rich_help_panel=TRAINING)
app.command(rich_help_panel=MEASURING, epilog=cli_evaluate.EPILOG)(cli_evaluate.evaluate)


def main() -> None:
    """The entry point."""
    # Importing torch makes hundreds of thousands of objects that live until the end. To look for garbage among them
    # while they are made, and once more at exit, takes half a second of every search.
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
    atexit.register(gc.freeze)
    app(prog_name="underdrawing")


if __name__ == "__main__":
    main()
