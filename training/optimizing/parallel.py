"""Several processes that train one model, each on its share (data parallelism): what they must tell each other.

Losses are normalised over a whole optimizer step, so the gradients of all shares add up to those of one process; with
the same sums and the same optimizer the weights stay the same everywhere, bit for bit, and never travel. Nobody else is
there unless `joined` says so, and then all of this costs nothing.

The groups are this module's own and not torch's default one, which vLLM takes when it samples in a training process;
only `mesh` needs that one.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # for what another process must tell
MEETING = "meeting"
_c10d: Any = distributed  # its stubs know less than half of it


@dataclass(frozen=True)
class Group:
    """Who this process is among how many, and how they talk; torch's process groups, one per kind of tensor."""

    rank: int = 0
    size: int = 1
    cpu: Any = None
    gpu: Any = None
    store: Any = None  # by which further groups meet, each under a number of its own
    numbers: Iterator[int] = field(default_factory=count)

    def of(self, tensor: Tensor) -> Any:
        return self.gpu if tensor.is_cuda else self.cpu


_group = Group()


@contextmanager
def joined(rank: int, size: int, directory: Path) -> Iterator[None]:
    """Be one of `size` processes of this host that meet in `directory`; waits until all have come.

    Where there are GPUs, each works on the first that it sees, and that must be another for each.
    """
    global _group
    store = _c10d.FileStore(str(directory / MEETING), size)
    gpu = None
    if torch.cuda.is_available():
        gpu = _nccl(_c10d.PrefixStore("gpu", store), rank, size)
    _group = Group(rank, size, _gloo(_c10d.PrefixStore("cpu", store), rank, size), gpu, store)
    try:
        yield
    finally:
        _group = Group()


def _gloo(store: Any, rank: int, size: int) -> Any:
    options = _c10d.ProcessGroupGloo._Options()
    options._devices = [_c10d.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
    options._timeout = PATIENCE
    return _c10d.ProcessGroupGloo(store, rank, size, options)


def _nccl(store: Any, rank: int, size: int) -> Any:
    options = _c10d.ProcessGroupNCCL.Options()
    options._timeout = PATIENCE
    return _c10d.ProcessGroupNCCL(store, rank, size, options)


@contextmanager
def mesh() -> Iterator[DeviceMesh | None]:
    """All processes as FSDP wants them, which takes torch's default group for the time; None where there is but one."""
    if _group.size == 1:
        yield None
        return
    device, backend = ("cuda", "nccl") if _group.gpu else ("cpu", "gloo")
    store = _c10d.PrefixStore(f"mesh {next(_group.numbers)}", _group.store)
    _c10d.init_process_group(backend, store=store, rank=_group.rank, world_size=_group.size, timeout=PATIENCE)
    try:
        yield init_device_mesh(device, (_group.size,))
    finally:
        _c10d.destroy_process_group()


def leads() -> bool:
    """Whether this process is the one that writes files and tells how far it is."""
    return _group.rank == 0


def share(things: Sequence[T], place: int = 0) -> list[T]:
    """This process's of `things` that all know, dealt out in turn; the first is the `place`th of all that are dealt.

    None is left without when there are as many things as processes.
    """
    return list(things[(_group.rank - place) % _group.size :: _group.size])


def evenly(own: Sequence[T], spare: T) -> Iterator[tuple[T, bool]]:
    """`own`, which counts, then `spare`, which does not, until all processes have as many.

    Those that hold the base in shares must run it equally often.
    """
    most = max(gathered([len(own)]))
    yield from ((each, True) for each in own)
    yield from ((spare, False) for _ in range(most - len(own)))


def gathered(own: Sequence[T], told: Sequence[T] | None = None) -> list[T]:
    """The first process's things, the second's and so on: what was given where it is its own.

    Others get to see `told` instead, if it is given. Tensors on a GPU come to the one that this process sees.
    """
    if _group.size == 1:
        return list(own)
    letters = _exchanged(_packed(list(own if told is None else told)))
    parts = [list(own) if rank == _group.rank else _unpacked(letter) for rank, letter in enumerate(letters)]
    return [thing for part in parts for thing in part]


def own(things: Sequence[T]) -> list[T]:
    """This process's of what was `gathered`, where all gave equally many."""
    count = len(things) // _group.size
    return list(things[_group.rank * count : (_group.rank + 1) * count])


def summed(numbers: Mapping[str, float]) -> dict[str, float]:
    """Each number summed over the processes."""
    if _group.size == 1:
        return dict(numbers)
    sums = torch.tensor(list(numbers.values()), dtype=torch.float64)
    _group.cpu.allreduce([sums]).wait()
    return dict(zip(numbers, sums.tolist(), strict=True))


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Each gradient becomes its sum over the processes; one that nobody has stays None."""
    if _group.size == 1:
        return
    parameters = list(parameters)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    there = gradients[0].new_tensor([float(p.grad is not None) for p in parameters])
    flat = torch.cat([there, *(gradient.flatten() for gradient in gradients)])
    _group.of(flat).allreduce([flat]).wait()
    there, *sums = flat.split([len(parameters), *(gradient.numel() for gradient in gradients)])
    for parameter, total, has in zip(parameters, sums, there.tolist(), strict=True):
        parameter.grad = total.view_as(parameter) if has else None


def _packed(things: list[Any]) -> Tensor:
    letter = io.BytesIO()
    torch.save(things, letter)
    return torch.frombuffer(letter.getbuffer(), dtype=torch.uint8)


def _unpacked(letter: Tensor) -> list[Any]:
    """Only ever of a process that this one has started, or was started by."""
    things: list[Any] = torch.load(io.BytesIO(letter.numpy().tobytes()), weights_only=False)
    return things


def _exchanged(letter: Tensor) -> list[Tensor]:
    """The bytes of all; they travel padded to the longest."""
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(_group.size)]
    _group.cpu.allgather([sizes], [torch.tensor([len(letter)])]).wait()
    longest = int(torch.cat(sizes).max())
    letters = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
    _group.cpu.allgather([letters], [nn.functional.pad(letter, (0, longest - len(letter)))]).wait()
    return [each[: int(size)] for each, size in zip(letters, sizes, strict=True)]
