"""The commands `train ...`: a corpus and a recipe in, a run folder with the finished model out.

What this module does not know: any model, any recipe's meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pipelines.terminal.console import examples, measure, out, show_facts, show_remark

app = typer.Typer(no_args_is_help=True, help="Train a model of your own from a captioned corpus.")


def show_trained(kind: str, model: Path, measured: Mapping[str, float], next_command: str) -> None:
    """Say where a finished model is, its measures, and the command that uses it, which ends in the model's folder."""
    out.print(f"The {kind} is in {model}", markup=False, soft_wrap=True)
    show_facts({name: measure(value) for name, value in measured.items()})
    show_remark(f"Next: underdrawing {next_command}{model}")


RunFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's folder. A run in it is continued.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="Settings, a JSON object. The options below go over it."),
]
Corpus = Annotated[
    str, typer.Argument(metavar="CORPUS", help="Images with texts: a folder, .jsonl, .parquet or .tar file.")
]
SplitField = Annotated[
    str | None, typer.Option("--split-field", metavar="NAME", help="The field that says train or validation.")
]
EvaluateEvery = Annotated[
    int | None, typer.Option("--evaluate-every", metavar="N", min=1, help="Steps between checkpoints.")
]
Steps = Annotated[int | None, typer.Option("--steps", metavar="N", min=1, help="Optimiser steps.")]
Batch = Annotated[int | None, typer.Option("--batch", metavar="N", min=2, help="Images in a step.")]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", metavar="X", help="The largest of the schedule.")
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Of everything random.")]
Bf16 = Annotated[bool | None, typer.Option("--bf16/--no-bf16", help="Autocast to bfloat16.", show_default=False)]
Device = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="cpu (if not told), cuda, cuda:1, mps or auto.")
]

CLIP_EPILOG = examples(
    "underdrawing train clip captions.parquet --out runs/clip",
    "underdrawing train clip photos/ --out runs/clip --recipe recipe.json --steps 20000 --device cuda",
    "# Use what was trained:",
    "underdrawing index photos/ shop --model open_clip:runs/clip/model",
)


@app.command(epilog=CLIP_EPILOG)
def clip(
    corpus: Corpus,
    folder: RunFolder,
    recipe_file: RecipeFile = None,
    steps: Steps = None,
    batch: Batch = None,
    peak: LearningRate = None,
    split_field: SplitField = None,
    evaluate_every: EvaluateEvery = None,
    bf16: Bf16 = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Train a CLIP model: an image encoder and a text encoder that share one embedding space.

    Run the same command again to continue at the last checkpoint.

    What is not told is as the recipe says, and else as pipelines.train.clip.model.ClipRecipe has it.

    The result is a folder that open_clip loads.
    """
    from indexer.corpus.readers import open_corpus
    from pipelines.train.clip.model import ClipRecipe
    from pipelines.train.clip.train import train_clip
    from pipelines.train.common.recipe import load_recipe

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
    show_trained("model", folder / "model", measured, "index SOURCE COLLECTION --model open_clip:")


INVERSION_EPILOG = examples(
    "underdrawing train inversion captions.parquet --out runs/inversion --model open_clip:runs/clip/model",
    "underdrawing train inversion photos/ --out runs/phi --method lincir --model open_clip:ViT-B-32/laion2b_s34b_b79k",
    "# Use what was trained:",
    'underdrawing search shop "at night" --image street.jpg --method inversion --inversion runs/inversion/model',
)


@app.command(epilog=INVERSION_EPILOG)
def inversion(
    corpus: Corpus,
    folder: RunFolder,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="NAME", help="pic2word, searle, lincir or difference. By default difference."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model whose text encoder reads the pseudo-words.")
    ] = None,
    recipe_file: RecipeFile = None,
    steps: Steps = None,
    batch: Batch = None,
    peak: LearningRate = None,
    split_field: SplitField = None,
    evaluate_every: EvaluateEvery = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Train an inversion: it turns an image into a pseudo-word that a CLIP model's text encoder reads in a sentence.

    Run the same command again to continue at the last checkpoint.

    What is not told is as the recipe says, and else as pipelines.train.inversion.train.InversionRecipe has it.
    """
    from indexer.corpus.readers import open_corpus
    from pipelines.train.common.recipe import load_recipe
    from pipelines.train.inversion.train import InversionRecipe, train_inversion

    overrides = {
        "method": method,
        "model": model,
        "steps": steps,
        "batch": batch,
        "peak": peak,
        "split_field": split_field,
        "evaluate_every": evaluate_every,
        "seed": seed,
        "device": device,
    }
    recipe = load_recipe(InversionRecipe, recipe_file, overrides)
    measured = train_inversion(open_corpus(corpus), recipe, folder)
    show_trained("inversion", folder / "model", measured, "search COLLECTION TEXT --image FILE --inversion ")


GENERATOR_EPILOG = examples(
    "underdrawing train generator captions.parquet --out runs/generator --model open_clip:runs/clip/model "
    "--inversion runs/inversion/model",
    "# Use what was trained:",
    'underdrawing search shop "at night" --image street.jpg --method cig --inversion runs/inversion/model '
    "--generator runs/generator/model",
)


@app.command(epilog=GENERATOR_EPILOG)
def generator(
    corpus: Corpus,
    folder: RunFolder,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model whose text encoder reads the prompts.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--inversion", metavar="NAME", help="The inversion of that model to start from.")
    ] = None,
    recipe_file: RecipeFile = None,
    steps: Steps = None,
    batch: Batch = None,
    peak: LearningRate = None,
    split_field: SplitField = None,
    evaluate_every: EvaluateEvery = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Train a generator of pseudo-targets: first an autoencoder, then a denoiser that reads texts with pseudo-words.

    Run the same command again to continue at the last checkpoint.

    What is not told is as the recipe says, and else as pipelines.train.generator.model.GeneratorRecipe has it.

    The result is a folder that diffusers loads as a StableDiffusionPipeline.
    """
    from indexer.corpus.readers import open_corpus
    from pipelines.train.common.recipe import load_recipe
    from pipelines.train.generator.model import GeneratorRecipe
    from pipelines.train.generator.train import train_generator

    overrides = {
        "model": model,
        "inversion": start,
        "steps": steps,
        "batch": batch,
        "peak": peak,
        "split_field": split_field,
        "evaluate_every": evaluate_every,
        "seed": seed,
        "device": device,
    }
    recipe = load_recipe(GeneratorRecipe, recipe_file, overrides)
    measured = train_generator(open_corpus(corpus), recipe, folder)
    show_trained(
        "generator", folder / "model", measured, "search COLLECTION TEXT --image FILE --method cig --generator "
    )


UNIFIED_EPILOG = examples(
    "underdrawing train unified captions.parquet --out runs/unified",
    "underdrawing train unified photos/ --out runs/gme --start Alibaba-NLP/gme-Qwen2-VL-2B-Instruct --lora-rank 8 "
    "--device cuda --cache-gradients",
    "# With what underdrawing synthesize made, besides:",
    "underdrawing train unified captions.parquet --out runs/unified --synthesised made/records.jsonl",
    "# Use what was trained:",
    "underdrawing index photos/ shop --model mllm:runs/unified/model",
    'underdrawing search shop "at night" --image street.jpg --method joint',
)


@app.command(epilog=UNIFIED_EPILOG)
def unified(
    corpus: Corpus,
    folder: RunFolder,
    start: Annotated[
        str | None,
        typer.Option(
            "--start", metavar="NAME", help="A checkpoint to go on from, hub id or folder. By default a new model."
        ),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option("--lora-rank", metavar="N", min=0, help="Train a LoRA of it. By default all weights.")
    ] = None,
    recipe_file: RecipeFile = None,
    steps: Steps = None,
    hard_steps: Annotated[
        int | None,
        typer.Option("--hard-steps", metavar="N", min=0, help="Steps with mined negatives, after the others."),
    ] = None,
    batch: Batch = None,
    synthesised: Annotated[
        Path | None,
        typer.Option("--synthesised", metavar="FILE", help="Records that underdrawing synthesize made of the corpus."),
    ] = None,
    synthesised_share: Annotated[
        float | None,
        typer.Option(
            "--synthesised-share", metavar="X", min=0, max=0.9, help="Their share of a batch: 0.1 if not told."
        ),
    ] = None,
    cache_gradients: Annotated[
        bool | None,
        typer.Option(
            "--cache-gradients/--no-cache-gradients", help="Let the batch exceed the memory.", show_default=False
        ),
    ] = None,
    peak: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            metavar="X",
            help="The largest of the schedule; that of the hard steps is the recipe's hard_peak.",
        ),
    ] = None,
    split_field: SplitField = None,
    evaluate_every: EvaluateEvery = None,
    bf16: Bf16 = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Train one model that reads texts, images, and both together, as GME does, from captioned images alone.

    Run the same command again to continue at the last checkpoint.

    What is not told is as the recipe says, and else as pipelines.train.unified.model.UnifiedRecipe has it.

    The result is a folder that transformers loads, or a LoRA of the checkpoint.
    """
    from indexer.corpus.readers import open_corpus
    from pipelines.train.common.recipe import load_recipe
    from pipelines.train.unified.model import UnifiedRecipe
    from pipelines.train.unified.train import train_unified

    overrides = {
        "start": start,
        "lora_rank": lora_rank,
        "steps": steps,
        "hard_steps": hard_steps,
        "batch": batch,
        "synthesised": None if synthesised is None else str(synthesised),
        "synthesised_share": synthesised_share,
        "cache_gradients": cache_gradients,
        "peak": peak,
        "split_field": split_field,
        "evaluate_every": evaluate_every,
        "bf16": bf16,
        "seed": seed,
        "device": device,
    }
    recipe = load_recipe(UnifiedRecipe, recipe_file, overrides)
    measured = train_unified(open_corpus(corpus), recipe, folder)
    show_trained("model", folder / "model", measured, "index SOURCE COLLECTION --model mllm:")


BRIDGE_EPILOG = examples(
    "underdrawing train bridge captions.parquet --out runs/bridge --connector mlp",
    "underdrawing train bridge photos/ --out runs/bridge --connector qformer "
    "--tower open_clip:ViT-B-32/laion2b_s34b_b79k --text sentence-transformers/all-MiniLM-L6-v2",
    "# Use what was trained:",
    "underdrawing index photos/ shop --model bridge:runs/bridge/model",
    'underdrawing search shop "at night" --image street.jpg --method joint',
)


@app.command(epilog=BRIDGE_EPILOG)
def bridge(
    corpus: Corpus,
    folder: RunFolder,
    connector: Annotated[
        str | None, typer.Option("--connector", metavar="NAME", help="linear, mlp or qformer. By default mlp.")
    ] = None,
    tower: Annotated[
        str | None,
        typer.Option("--tower", metavar="NAME", help="The model of the CLIP family whose image encoder is used."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="NAME", help="The text model that reads: hub id, folder or .gguf file."),
    ] = None,
    recipe_file: RecipeFile = None,
    align_steps: Annotated[
        int | None, typer.Option("--align-steps", metavar="N", min=0, help="Steps of the first phase, alignment.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=0, help="Steps of the second phase, the tasks.")
    ] = None,
    batch: Batch = None,
    align_peak: Annotated[
        float | None,
        typer.Option("--align-learning-rate", metavar="X", help="The largest of the first phase's schedule."),
    ] = None,
    peak: Annotated[
        float | None,
        typer.Option("--learning-rate", metavar="X", help="The largest of the second phase's schedule, and no other."),
    ] = None,
    split_field: SplitField = None,
    evaluate_every: EvaluateEvery = None,
    bf16: Bf16 = None,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Train a bridge: a small connector between a frozen image encoder and a frozen text model.

    Run the same command again to continue at the last checkpoint.

    What is not told is as the recipe says, and else as pipelines.train.bridge.parts.BridgeRecipe has it.
    """
    from indexer.corpus.readers import open_corpus
    from pipelines.train.bridge.parts import BridgeRecipe
    from pipelines.train.bridge.train import train_bridge
    from pipelines.train.common.recipe import load_recipe

    overrides = {
        "connector": connector,
        "tower": tower,
        "text": text,
        "align_steps": align_steps,
        "steps": steps,
        "batch": batch,
        "align_peak": align_peak,
        "peak": peak,
        "split_field": split_field,
        "evaluate_every": evaluate_every,
        "bf16": bf16,
        "seed": seed,
        "device": device,
    }
    recipe = load_recipe(BridgeRecipe, recipe_file, overrides)
    measured = train_bridge(open_corpus(corpus), recipe, folder)
    show_trained("bridge", folder / "model", measured, "index SOURCE COLLECTION --model bridge:")
