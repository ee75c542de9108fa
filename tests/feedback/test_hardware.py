import pytest

from feedback.hardware import native_dtype


@pytest.mark.parametrize(
    ("flags", "gpu", "dtype"),
    [
        ({"avx", "avx2"}, False, "float32"),
        ({"avx2", "avx512f"}, False, "float32"),
        ({"avx512f", "avx512_bf16"}, False, "bfloat16"),
        ({"amx_bf16"}, False, "bfloat16"),
        (set(), True, "bfloat16"),
    ],
)
def test_bf16_only_where_it_is_native(flags: set[str], gpu: bool, dtype: str) -> None:
    assert native_dtype(frozenset(flags), gpu=gpu) == dtype
