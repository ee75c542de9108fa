import torch
from hypothesis import given
from hypothesis import strategies as st

from training.attention import Blocks
from training.data import Sample
from training.packing import Row, collate_rows, pack, within_budget

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)
samples = st.lists(st.builds(Sample, tokens, tokens), max_size=20)


def test_a_batch_by_hand() -> None:
    batch = collate_rows([Row((5, 6), ((7,), (8, 9))), Row((1,), ((2, 3, 4),))], pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9], [1, 2, 3, 4, 0]]
    assert batch.rows.tolist() == [0, 0, 1]
    assert batch.ends.tolist() == [2, 4, 3]
    assert isinstance(batch.attention, Blocks)
    assert batch.attention.position_ids.tolist() == [[0, 1, 2, 2, 3], [0, 1, 2, 3, 0]]


def test_completions_in_rows_of_their_own_need_no_more_than_a_padding_mask() -> None:
    batch = collate_rows([Row((5, 6), ((7,),)), Row((1,), ((2, 3, 4),))], pad_id=0)
    assert isinstance(batch.attention, torch.Tensor)
    assert batch.attention.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


@given(samples, st.integers(0, 20))
def test_every_distinct_sample_has_one_place(given: list[Sample], max_tokens: int) -> None:
    rows = pack(given, max_tokens)
    placed = [sample for row in rows for sample in row.samples]
    assert len(placed) == len(set(placed))
    assert set(placed) == set(given)
    assert all(len(row) <= max_tokens or len(row.completions) == 1 for row in rows)


def test_a_row_ends_where_the_next_completion_would_not_fit() -> None:
    completions = [(1, 2), (3, 4), (5,), (6, 7)]
    rows = pack([Sample((9, 9), c) for c in completions], 7)
    assert rows == [Row((9, 9), ((1, 2), (3, 4), (5,))), Row((9, 9), ((6, 7),))]
    assert len(pack([Sample((9, 9), c) for c in completions], 0)) == 4


@given(samples, st.integers(1, 60))
def test_batches_keep_to_the_budget_and_leave_nothing_out(given: list[Sample], budget: int) -> None:
    units = [pack(given[i : i + 3], 20) for i in range(0, len(given), 3)]
    batches = within_budget(units, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(units)))
    for batch in batches:
        rows = [row for i in batch for row in units[i]]
        assert len(batch) == 1 or len(rows) * max(map(len, rows)) <= budget


def test_like_lengths_go_together() -> None:
    units = [[Row((1,), ((1,) * length,))] for length in (9, 1, 8, 2)]
    assert within_budget(units, 20) == [[1, 3], [2, 0]]
