"""When PPO has gone where going on makes nothing better: too far from the reference, or down to one thing to say."""

from collections.abc import Mapping, Sequence

from training.config import PPOConfig


class Collapsed(RuntimeError):
    """The policy of this run is not worth publishing; the message is the one-line reason."""

    def __init__(self, reason: str, history: Sequence[Mapping[str, float]]) -> None:
        super().__init__(reason)
        self.history = tuple(history)  # the iteration that collapsed comes last


def collapse(config: PPOConfig, history: Sequence[Mapping[str, float]], when: str = "") -> str | None:
    """Why the last iteration of `history` is one too many, if it is. The first one, before any update, is the measure
    of entropy and length: what is too little depends on the model and on what it is asked. `when` names the last."""
    first, now = history[0], history[-1]
    kl, entropy, length = "objective/kl", "objective/entropy", "completion/length"
    when = when or f"at iteration {len(history)}"
    if now[kl] > config.collapse_kl:
        return f"KL to the reference is {now[kl]:.3g} nats per completion {when}, at most {config.collapse_kl:g}"
    for name, key, share in (
        ("entropy", entropy, config.collapse_entropy),
        ("completion length", length, config.collapse_length),
    ):
        if now[key] < share * first[key]:
            return f"{name} fell from {first[key]:.3g} to {now[key]:.3g} {when}, at least {share:g} of it must stay"
    return None
