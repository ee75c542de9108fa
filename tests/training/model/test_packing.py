import torch
from hypothesis import given
from hypothesis import strategies as st

from training.model.attention import Blocks
from training.model.packing import Row, collate_end_to_end, collate_rows, in_order, pack, within_budget
from training.model.samples import Sample

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


def test_samples_end_to_end_by_hand() -> None:
    batch = collate_end_to_end([Sample((5, 6), (7, 8)), Sample((9,), (1, 2, 3)), Sample((4, 4, 4), (5,))])
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 2, 3, 4, 4, 4, 5]]
    assert batch.completion_ids.tolist() == [[7, 8, 1, 2, 3, 5]]
    assert batch.positions.tolist() == [[1, 2, 4, 5, 6, 10]]
    assert batch.completion_mask.all() and batch.completion_mask.shape == (1, 6)
    assert batch.lengths.tolist() == [12]
    assert isinstance(batch.attention_mask, Blocks)
    assert batch.attention_mask.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]]


def test_a_row_takes_what_comes_next_until_it_is_full() -> None:
    assert in_order([3, 4, 1, 9, 2], 8) == [[0, 1, 2], [3], [4]]


@given(st.lists(st.integers(1, 9)), st.integers(1, 30))
def test_rows_in_order_keep_to_the_budget_and_leave_nothing_out(lengths: list[int], budget: int) -> None:
    rows = in_order(lengths, budget)
    assert [i for row in rows for i in row] == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[i] for i in row) <= budget for row in rows)
