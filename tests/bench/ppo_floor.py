"""Who is timed at PPO, and how many floating-point operations each cannot do without. No torch here.

A product of (n, k) and (k, m) counts 2nkm; what is not a product counts nothing. Of a sequence of S tokens a layer
needs 2W for each token (W weights, those of its adapter included) and 4H for each token and token that it sees, which
are half of the S on average (H is heads times their size): that is forward. Backward needs the same again for the
gradients of activations, and once more 2W, but only for weights that are trained. The output matrix counts at the C
positions that predict a completion's token and nowhere else.

generate  every token once through all layers, with the keys and values kept, and C times the output matrix
observe   reference, reward and value once, and the policy where it has not told its log-probs by generating
update    policy and value forward and backward, in each epoch

What lies below the lowest adapter counts once for all roles. Recomputation, padding, the output matrix at the prompt's
positions: all of it is overhead. MFU is these operations over the time taken and the rate of one large product.
"""

import json
from dataclasses import dataclass
from pathlib import Path

PHASES = ("generate", "observe", "update")


@dataclass(frozen=True)
class Variant:
    """One side: ours, or with `peer` TRL's."""

    name: str
    peer: bool = False
    upper: int | None = None  # layers with adapters, from the top; None = all
    live: bool = False  # nothing is generated
    full: bool = False  # all weights are trained (a peer's value model always is so)
    checkpointing: bool = False  # the activations are computed again in backward


def variants(shared: int) -> dict[str, Variant]:
    """All, with adapters in the `shared` top layers where the lower ones are shared."""
    sides = (
        Variant("all layers"),
        Variant("shared", upper=shared),
        Variant("live, shared", upper=shared, live=True),
        Variant("TRL full", peer=True, full=True),
        Variant("TRL LoRA", peer=True),
        Variant("TRL full, checkpointing", peer=True, full=True, checkpointing=True),
        Variant("TRL LoRA, checkpointing", peer=True, checkpointing=True),
    )
    return {side.name: side for side in sides}


@dataclass(frozen=True)
class Shape:
    """A Llama's, as its config.json says."""

    layers: int
    weights: int  # of a layer's matrices
    adapter: int  # of a LoRA of all of them
    attention: int  # heads times their size
    output: int  # of the output matrix

    @classmethod
    def of(cls, model: Path, rank: int) -> "Shape":
        config = json.loads((model / "config.json").read_text())
        width, heads, inner = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
        head = config.get("head_dim") or width // heads
        queries, keys = heads * head, config.get("num_key_value_heads", heads) * head
        matrices = [(width, queries), (width, keys), (width, keys), (queries, width)]
        matrices += [(width, inner), (width, inner), (inner, width)]
        return cls(
            layers=config["num_hidden_layers"],
            weights=sum(a * b for a, b in matrices),
            adapter=sum(rank * (a + b) for a, b in matrices),
            attention=queries,
            output=width * config["vocab_size"],
        )

    def forward(self, tokens: float, layers: int, adapted: bool) -> float:
        each = 2 * self.weights + 2 * self.adapter * adapted + 4 * self.attention * (tokens + 1) / 2
        return tokens * layers * each

    def weight_gradients(self, tokens: float, layers: int, full: bool) -> float:
        return tokens * layers * 2 * (self.weights if full else self.adapter)


def operations(side: Variant, shape: Shape, prompt: float, completion: float, epochs: int) -> dict[str, float]:
    """Of one completion, by phase."""
    tokens, head = prompt + completion, 2 * shape.output * completion
    upper = min(side.upper or shape.layers, shape.layers)
    lower = shape.forward(tokens, shape.layers - upper, adapted=False)
    plain = shape.forward(tokens, upper, adapted=False)
    role = shape.forward(tokens, upper, adapted=not side.full)
    others = 2 * plain if side.peer else 2 * role  # reward and value
    observe = lower + plain + head + others + (0 if side.peer else role + head)
    policy = 2 * (role + head) + shape.weight_gradients(tokens, upper, side.full) + (head if side.full else 0)
    full_value = side.full or side.peer
    value = 2 * (plain if full_value else role) + shape.weight_gradients(tokens, upper, full_value)
    generate = 0.0 if side.live else lower + role + head
    return {"generate": generate, "observe": observe, "update": epochs * (policy + value)}
