import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from training.model.attention import MAX_PADDING, blocks_of, shared_attention

rows = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=6), min_size=1, max_size=4)
HEADS, SIZE = 2, 4


def visible(lengths: list[int], width: int) -> Tensor:
    """What each token of one row sees (T, T), token by token; padding sees nothing."""
    segments = [number for number, length in enumerate(lengths) for _ in range(length)]
    seen = torch.zeros(width, width, dtype=torch.bool)
    for query, own in enumerate(segments):
        for key in range(query + 1):
            seen[query, key] = segments[key] in (0, own)
    return seen


def softmaxed(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Attention (B, T, H, E) by the formula, with scores of all pairs."""
    scores = (query @ key.transpose(-1, -2) / SIZE**0.5).masked_fill(~seen.unsqueeze(1), -torch.inf)
    return (scores.softmax(-1).nan_to_num() @ value).transpose(1, 2)


def test_what_a_token_sees_by_hand() -> None:
    assert visible([2, 2, 1], 6).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert blocks_of([[2, 2, 1], [1, 4, 1]]).position_ids.tolist() == [[0, 1, 2, 3, 2, 0], [0, 1, 2, 3, 4, 1]]


@settings(deadline=None)
@given(rows, st.integers(0, 1000))
def test_blocks_attend_as_the_mask_says_forwards_and_backwards(lengths: list[list[int]], seed: int) -> None:
    width = max(map(sum, lengths))
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), HEADS, width, SIZE)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.double, requires_grad=True) for _ in range(3)]
    seen = torch.stack([visible(row, width) for row in lengths])
    real = seen.any(-1)
    want = softmaxed(*inputs, seen)[real]
    found = shared_attention(nn.Module(), *inputs, None, blocks=blocks_of(lengths))[0][real]
    torch.testing.assert_close(found, want, rtol=0, atol=1e-10)
    weights = torch.randn(want.shape, generator=generator, dtype=torch.double)
    wanted, given_back = (torch.autograd.grad((x * weights).sum(), inputs) for x in (want, found))
    torch.testing.assert_close(given_back, wanted, rtol=0, atol=1e-10)


@given(rows)
def test_little_is_computed_in_vain(lengths: list[list[int]]) -> None:
    computed = sum(block.mask.numel() for block in blocks_of(lengths).blocks)
    real = sum(p * p + sum(c * (p + c) for c in completions) for p, *completions in lengths)
    assert real <= computed <= MAX_PADDING * real
