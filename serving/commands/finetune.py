"""`ratchet sft` and `ratchet ppo`: policies outside of rounds. The work is training's, in a child process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from feedback import defaults
from feedback.exchange.formats import FORMATS
from serving.commands.shared import AsJson, Home, OneLineErrors
from serving.commands.training_child import (
    AUTO,
    Base,
    Config,
    File,
    Format,
    Out,
    Seed,
    Strict,
    answer,
    check,
    options,
)
from serving.machine.installation import settings_as_started

TRAINING = "training.finetune"
PROMPTS = "prompts"

Merged = Annotated[
    bool, typer.Option("--merged", help="Also write DIR/merged: base and adapter as one model, for vLLM and others.")
]
#: Metrics that tell how PPO went, each with its unit.
FIGURES = {"objective/score": "score", "objective/kl": "KL in nats", "completion/length": "length in tokens"}

sft = typer.Typer(cls=OneLineErrors, no_args_is_help=True, help="Fine-tune policies, outside of rounds.")
ppo = typer.Typer(cls=OneLineErrors, no_args_is_help=True, help="Improve policies by PPO, outside of rounds.")


@sft.command(
    "train",
    epilog="On a file: ratchet sft train --from demonstrations.jsonl.gz --out sft1\n\n"
    "On the ledger: ratchet sft train --out sft2 --epochs 1\n\n"
    "Without an installation: ratchet sft train --from chats.jsonl --base models/mine --out sft3 --merged",
)
def train_sft(
    out: Out,
    file: File = None,
    format: Format = AUTO,
    base: Base = None,
    config: Config = None,
    epochs: Annotated[
        int | None, typer.Option(help=f"Passes over the demonstrations (default: {defaults.SFT_EPOCHS})")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help=f"Adam's (default: {defaults.SFT_RATE})")] = None,
    seed: Seed = None,
    merged: Merged = False,
    strict: Strict = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune the base model on demonstrations in a file or the ledger. Stopped, the same command goes on."""
    check(file, format)
    arguments = options(**{
        "--out": out, "--from": file, "--format": format, "--base": base, "--config": config, "--epochs": epochs,
        "--learning-rate": learning_rate, "--seed": seed, "--merged": merged, "--strict": strict,
    })  # fmt: skip
    found = answer(settings_as_started(home), TRAINING, "sft", *arguments)
    fitted = found["fitted"]
    loss = f"loss {fitted['first_loss']:.3f} -> {fitted['last_loss']:.3f} nats per token in {fitted['steps']} steps"
    if fitted["held_out"]:
        before, after = fitted["held_out_before"], fitted["held_out_after"]
        loss += f", {before:.3f} -> {after:.3f} on {fitted['held_out']} held out"
    show(found, f"{found['counts']['demonstrations']} demonstrations, {loss}", as_json)


@ppo.command(
    "train",
    epilog="On a file: ratchet ppo train --prompts prompts.jsonl --reward rm1 --policy sft1 --out ppo1\n\n"
    "On the ledger's prompts, by version 3's reward model: ratchet ppo train --reward 3 --out ppo2\n\n"
    "A line of --prompts has a `prompt` (a text or turns) or `messages`, or is of a format that `ratchet feedback "
    "import` reads.",
)
def train_ppo(
    out: Out,
    reward: Annotated[
        str,
        typer.Option(
            metavar="DIR|VERSION", help="What `rm train` left, or a policy version; pin that until this is done."
        ),
    ],
    prompts: Annotated[
        Path | None, typer.Option(help="JSON lines, gzip or plain (default: the prompts of the installation's ledger)")
    ] = None,
    format: Annotated[str, typer.Option(help="Of --prompts: auto | " + " | ".join(sorted({PROMPTS, *FORMATS})))] = AUTO,
    policy: Annotated[
        Path | None, typer.Option(help="What `sft train` or `ppo train` left, to begin with (default: the base model)")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Directory of the base model (default: what the reward model was trained on)")
    ] = None,
    config: Config = None,
    iterations: Annotated[
        int | None, typer.Option(help=f"Turns of sampling and updating (default: {defaults.PPO_ITERATIONS})")
    ] = None,
    kl_coef: Annotated[
        float | None, typer.Option(help=f"Weight of the KL from the policy to begin with (default: {defaults.KL_COEF})")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help=f"Of a completion (default: {defaults.MAX_NEW_TOKENS})")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help=f"Adam's (default: {defaults.PPO_RATE})")] = None,
    seed: Seed = None,
    merged: Merged = False,
    strict: Strict = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Improve a policy on prompts against a reward model. Stopped, the same command goes on."""
    check(prompts, format, {PROMPTS, *FORMATS})
    arguments = options(**{
        "--out": out, "--reward": reward, "--prompts": prompts, "--format": format, "--policy": policy, "--base": base,
        "--config": config, "--iterations": iterations, "--kl-coef": kl_coef, "--max-new-tokens": max_new_tokens,
        "--learning-rate": learning_rate, "--seed": seed, "--merged": merged, "--strict": strict,
    })  # fmt: skip
    found = answer(settings_as_started(home), TRAINING, "ppo", *arguments)
    first, last = found["history"][0], found["history"][-1]
    changes = [f"{unit} {first[name]:.2f} -> {last[name]:.2f}" for name, unit in FIGURES.items()]
    turns = f"{len(found['history'])} iterations on {found['counts']['prompts']} prompts"
    show(found, ", ".join([turns, *changes]), as_json)


def show(found: Mapping[str, Any], text: str, as_json: bool) -> None:
    """What came of it: all in JSON, or a line."""
    if as_json:
        typer.echo(json.dumps(found))
        return
    counts = found["counts"]
    missing = {
        "lines refused": found["rejected"],
        "prompts too long": counts.get("too_long", 0),
        "left out, without tokens": counts.get("unencodable", 0),
    }
    text += "".join(f", {count} {how}" for how, count in missing.items() if count)
    typer.echo(f"{found['name']}: {text}")
