"""The commands `train ...`: a corpus and a recipe in, a run folder with the finished model out.

What this module does not know: any model, any recipe's meaning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.console import examples, out, show_facts, show_remark

app = typer.Typer(no_args_is_help=True, help="Train a model of your own from a captioned corpus.")

RunFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's folder. A run in it is continued.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="Settings, a JSON object. The options below go over it."),
]
Steps = Annotated[int | None, typer.Option("--steps", metavar="N", min=1, help="Optimiser steps.")]
Batch = Annotated[int | None, typer.Option("--batch", metavar="N", min=2, help="Images in a step.")]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", metavar="X", help="The largest of the schedule.")
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Of everything random.")]
Bf16 = Annotated[bool | None, typer.Option("--bf16/--no-bf16", help="Autocast to bfloat16.", show_default=False)]
Device = Annotated[str | None, typer.Option("--device", metavar="NAME", help="cpu or cuda.")]

CLIP_EPILOG = examples(
    "underdrawing train clip captions.parquet --out runs/clip",
    "underdrawing train clip photos/ --out runs/clip --recipe recipe.json --steps 20000 --device cuda",
    "# Use what was trained:",
    "underdrawing index photos/ shop --model open_clip:runs/clip/model",
)


@app.command(epilog=CLIP_EPILOG)
def clip(
    corpus: Annotated[
        str, typer.Argument(metavar="CORPUS", help="Images with texts: a folder, .jsonl, .parquet or .tar file.")
    ],
    folder: RunFolder,
    recipe_file: RecipeFile = None,
    steps: Steps = None,
    batch: Batch = None,
    peak: LearningRate = None,
    split_field: Annotated[
        str | None, typer.Option("--split-field", metavar="NAME", help="The field that says train or validation.")
    ] = None,
    evaluate_every: Annotated[
        int | None, typer.Option("--evaluate-every", metavar="N", min=1, help="Steps between checkpoints.")
    ] = None,
    bf16: Bf16 = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Train a CLIP model: two towers that put pictures and the texts about them at one place.

    Run the same command again to continue at the last checkpoint.

    What is not told is as the recipe says, and else as pipelines.train.clip_model.ClipRecipe has it.

    The result is a folder that open_clip loads.
    """
    from indexer.corpus.readers import open_corpus
    from pipelines.train.clip import train_clip
    from pipelines.train.clip_model import ClipRecipe
    from pipelines.train.run import load_recipe

    overrides = {
        "steps": steps,
        "batch": batch,
        "peak": peak,
        "split_field": split_field,
        "evaluate_every": evaluate_every,
        "bf16": bf16,
        "seed": seed,
        "device": device,
    }
    recipe = load_recipe(ClipRecipe, recipe_file, overrides)
    measured = train_clip(open_corpus(corpus), recipe, folder)
    out.print(f"The model is in {folder / 'model'}", markup=False, soft_wrap=True)
    show_facts({name: f"{value:.4g}" for name, value in measured.items()})
    show_remark(f"Next: underdrawing index SOURCE COLLECTION --model open_clip:{folder / 'model'}")
