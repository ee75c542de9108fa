"""The base model in shares: of several processes each holds its part of every layer's weights (FSDP), adapters whole.

A layer's weights come together only while it computes, forwards and backwards. That takes all processes, so they must
run the layers equally often; where they cannot know how often, as in sampling, the base is made whole for a while.
Embeddings and the output matrix are whole all the time.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from training.config import AdapterConfig
from training.model.trunk import Trunk
from training.optimizing.parallel import mesh

C = TypeVar("C", bound=AdapterConfig)
P = ParamSpec("P")
Report = TypeVar("Report")


def in_shares(train: Callable[Concatenate[C, Trunk, P], Report]) -> Callable[Concatenate[C, Trunk, P], Report]:
    """`train(config, trunk, ...)`, with the base in shares where the config says so."""

    @wraps(train)
    def trained(config: C, trunk: Trunk, /, *args: P.args, **kwargs: P.kwargs) -> Report:
        with shards(trunk) if config.shard_base else nullcontext():
            return train(config, trunk, *args, **kwargs)

    return trained


@contextmanager
def shards(trunk: Trunk) -> Iterator[None]:
    """Inside, each of several processes holds its share of the base; afterwards all of it again.

    `trunk.whole` lasts for a block. After an error the trunk is of no more use.
    """
    with mesh() as processes:
        if processes is None:
            yield
            return
        shares = _Shares(trunk, processes)
        trunk.whole = shares.whole
        yield
        shares.gather()
        trunk.whole = nullcontext


class _Shares:
    """The trunk's own layers, emptied, and twins of them that hold a share each; the adapters are the same in both."""

    def __init__(self, trunk: Trunk, processes: DeviceMesh):
        self._trunk, self._layers = trunk, list(trunk.model.model.layers)
        same = {id(each): each for each in (trunk.model.config, *trunk.model.parameters())}
        self._twins = copy.deepcopy(self._layers, same)
        adapters = {weight for name, weight in trunk.model.named_parameters() if "lora_" in name}
        for twin in self._twins:
            fully_shard(twin, mesh=processes, reshard_after_forward=True, ignored_params=adapters)
        own, parts = ([p for layer in both for p in layer.parameters()] for both in (self._layers, self._twins))
        self._weights = [(weight, part) for weight, part in zip(own, parts, strict=True) if isinstance(part, DTensor)]
        self._part()

    def _part(self) -> None:
        for weight, _ in self._weights:
            weight.data = weight.new_empty(0)
        self._trunk.use(self._twins)

    def gather(self) -> None:
        """Fill the trunk's own layers again."""
        for weight, part in self._weights:
            weight.data = part.full_tensor()
        self._trunk.use(self._layers)

    @contextmanager
    def whole(self) -> Iterator[None]:
        self.gather()
        yield
        self._part()
