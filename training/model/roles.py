"""The roles of one trunk, and the weights that each trains: in memory, as copies, on disk and merged into the base."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.model.adapters import ADAPTER_FILE, Adapters
from training.model.heads import fitted
from training.model.own_layers import LAYERS_FILE, OWN_ROLES, OwnLayers, weights_file

# "ref" is what KL is measured from, "stable" what a candidate must beat; where they are the base, None stands for it.
Role = Literal["policy", "ref", "stable", "reward", "value"]
ROLES: tuple[Role, ...] = get_args(Role)


class RoleWeights:
    """An adapter per role, or layers of its own, and heads; `base_dtype` is what merged weights are written in."""

    def __init__(
        self, adapters: Adapters, own: OwnLayers | None, heads: dict[Role, nn.Linear], base_dtype: torch.dtype
    ) -> None:
        self._adapters, self._own, self.heads, self.base_dtype = adapters, own, heads, base_dtype
        # Scores over log-odds: a is preferred to b with probability sigmoid((a - b) / temperature).
        self.temperature = 1.0

    @torch.no_grad()
    def set_temperature(self, temperature: float) -> None:
        """Rescale the reward heads, and with them all scores; the log-odds stay as they are."""
        for parameter in self.heads["reward"].parameters():
            parameter.mul_(temperature / self.temperature)
        self.temperature = temperature

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """The trainable weights of `role`: its adapter or its own layers, and its head if it has one."""
        own = self._layers_of(role)
        named = self._adapters.parameters(role) if own is None else own.parameters(role)
        head = self.heads.get(role)
        return named | ({f"head.{n}": p for n, p in head.named_parameters()} if head else {})

    def _layers_of(self, role: Role | None) -> OwnLayers | None:
        return self._own if role in OWN_ROLES else None

    def state(self, role: Role) -> dict[str, Tensor]:
        """A copy of the trainable weights of `role` on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters(role).items()}

    def load_state(self, role: Role, state: Mapping[str, Tensor]) -> None:
        """The reverse of `state`. ValueError when names or shapes differ: half an adapter is never loaded."""
        self._put(self.parameters(role), role, state)

    @staticmethod
    @torch.no_grad()
    def _put(parameters: Mapping[str, Tensor], role: Role, state: Mapping[str, Tensor]) -> None:
        if {n: p.shape for n, p in parameters.items()} != {n: t.shape for n, t in state.items()}:
            raise ValueError(f"these weights do not fit the {role} adapter")
        for name, parameter in parameters.items():
            parameter.copy_(state[name])

    def copy_role(self, source: Role, target: Role) -> None:
        """Give `target` the adapter of `source`, and its heads' mean where both have one (reward -> value).

        Where the reward model has its own layers, value is on them already, and its adapter is made to add nothing.
        """
        if self._own is not None and (source, target) == ("reward", "value"):
            self._own.begin_value()
            state = self.state(target)
        else:
            state = self.state(source)
        state = {n: t for n, t in state.items() if not n.startswith("head.")}
        if (own := self.heads.get(target)) is not None:
            state |= {f"head.{n}": t for n, t in fitted(self.heads.get(source, own).state_dict(), own).items()}
        self.load_state(target, state)

    def save_adapter(self, role: Role, directory: Path) -> None:
        """Write the adapter in PEFT format, and its head, if any, with the scores' temperature as head.safetensors.

        A reward model that has its own layers is written with these, whole, in place of an adapter.
        """
        directory.mkdir(parents=True, exist_ok=True)
        if (own := self._layers_of(role)) is not None:
            save_file({n: p.detach().cpu() for n, p in own.parameters(role).items()}, directory / LAYERS_FILE)
        else:
            self._adapters.save(role, directory)
        if role in self.heads:
            temperature = torch.tensor(self.temperature, dtype=torch.float64)
            save_file({**self.heads[role].state_dict(), "temperature": temperature}, directory / "head.safetensors")

    def load_adapter(self, role: Role, directory: Path) -> None:
        """Read what `save_adapter` wrote, for this or another role. A head is read only where `role` has one.

        Another number of reward heads than was saved begins as `heads.fitted` says. Layers of its own go on from an
        adapter, too; the reverse is a ValueError.
        """
        path = weights_file(directory)
        state = {name.removeprefix("base_model.model."): t for name, t in load_file(path).items()}
        own_layers = self._layers_of(role) is not None
        if own_layers and path.name == ADAPTER_FILE:
            state = self._with_adapter(role, state)
        elif path.name == LAYERS_FILE and not own_layers:
            raise ValueError('whole layers are no adapter: they need reward.trains "full"')
        if (own := self.heads.get(role)) is not None:
            head = load_file(directory / "head.safetensors")
            temperature = head.pop("temperature", torch.tensor(1.0)).item()
            state |= {f"head.{n}": t for n, t in fitted(head, own).items()}
            self.temperature = temperature if role == "reward" else self.temperature
        self.load_state(role, state)

    def _with_adapter(self, role: Role, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The top layers of the base with `adapter` in them, as own layers; `role` is lent its place for it."""
        self._put(self._adapters.parameters(role), role, adapter)
        names = self.parameters(role).keys()
        return dict(self._adapters.merged(role, torch.float32, names.__contains__))

    def merged(
        self,
        role: Role = "policy",
        dtype: torch.dtype | None = None,
        wanted: Callable[[str], bool] = lambda name: True,
    ) -> Iterator[tuple[str, Tensor]]:
        """The weights of base + adapter as new ones under the base's own names, in `dtype` (default: `base_dtype`).

        Those alone that are `wanted` by name.
        """
        own = self._layers_of(role)
        assert own is None or role == "reward", "the value's adapter stands on the reward model's layers"
        layers = {} if own is None else own.parameters(role)
        for name, weight in self._adapters.merged(role, dtype or self.base_dtype, wanted):
            yield name, layers[name].detach().to(weight).contiguous() if name in layers else weight
