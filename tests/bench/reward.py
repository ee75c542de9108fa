"""The reward model beside its peers, on people's judgements: seconds per ranking, and what was learned from them.

speed      seconds per ranking, ours and TRL's by turns: real rankings (K >= 3), real pairs, random ones of K = 9
quality    held-out log-loss and accuracy on real rankings over seeds: ours, TRL's, and lengths alone
pairs      the same on single pairs
epochs     whole rankings against shuffled pairs, epoch by epoch: which overfits (Ouyang et al. 2022, section 3.5)
kinds      what ties, thumbs and demonstrations add: held-out log-loss with and without each

Each cell (side, seed, learning rate) is kept in the JSON file as soon as it is known and never run twice: a run that
was broken off goes on. The learning rate of each side, and which of its ways TRL computes, is the best of its sweep by
log-loss on a split of its own that no figure is taken from. Splits follow from the seed alone.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from reward_jobs import Bench, Part
from reward_parts import Epochs, Kinds, Quality, Speed

from training.config import RewardConfig

PARTS: dict[str, Callable[[Bench], Part]] = {
    "speed": Speed,
    "quality": lambda bench: Quality(bench, "kwise", bench.kwise),
    "pairs": lambda bench: Quality(bench, "pairwise", bench.pairwise),
    "epochs": Epochs,
    "kinds": Kinds,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--model", type=Path, required=True, help="the base model's directory")
    parser.add_argument("--data", type=Path, required=True, help="the directory of kwise.jsonl.gz and its siblings")
    parser.add_argument("--json", type=Path, default=Path(".ratchet/bench/reward.json"), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=150, help="rankings to learn from, or what there is")
    parser.add_argument("--held-out", type=int, default=100, help="rankings to be measured on")
    parser.add_argument(
        "--sweep", type=int, default=40, help="rankings of each side of the split that rates are chosen on"
    )
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--lora-layers", type=int, default=RewardConfig().lora_layers, help="0: all")
    parser.add_argument(
        "--trl", nargs="+", choices=("pure", "autocast", "lora"), default=["pure"], help="how TRL may compute: the best"
    )
    parser.add_argument("--epochs", type=int, default=4, help="for epochs: up to so many")
    parser.add_argument("--turns", type=int, default=2, help="of speed, after the first")
    parser.add_argument(
        "--at-once", type=int, default=1,
        help="cells, in processes of their own; their seconds say nothing and are not shown, so speed never does it",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, help="of each process; default: all, shared by those at once")
    arguments = parser.parse_args()
    arguments.threads = arguments.threads or max(1, torch.get_num_threads() // arguments.at_once)
    return arguments


def main() -> None:
    arguments = parse()
    bench = Bench(arguments)
    parts = [PARTS[name](bench) for name in arguments.parts]
    bench.fill(part.first() for part in parts)
    bench.fill(part.then() for part in parts)
    for part in parts:
        part.show()


if __name__ == "__main__":
    main()
