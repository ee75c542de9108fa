"""A tiny random Llama and a small tokenizer, made here: no downloads, seconds per test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.training.people import People
from training.config import AdapterConfig
from training.model.trunk import Trunk

VOCABULARY = 300  # 3 control tokens, 256 bytes, and some that only a random model says
ENDOFTEXT, IM_START, IM_END = 0, 1, 2
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small lose time on threads, and a test must not wait for a busy core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


ModelMaker = Callable[..., LlamaForCausalLM]
TrunkMaker = Callable[..., Trunk]


def _tiny_model(dtype: torch.dtype = torch.float32, hidden_size: int = 32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,  # at the usual 0.02 a model this narrow hardly reacts to its input
        bos_token_id=IM_START,
        eos_token_id=IM_END,
        pad_token_id=IM_END,
    )
    return LlamaForCausalLM(config).to(dtype)


def _tiny_trunk(*, perturbed: bool = False, lora_layers: int | None = 2) -> Trunk:
    trunk = Trunk(_tiny_model(), AdapterConfig(lora_rank=8, lora_alpha=16, lora_layers=lora_layers))
    generator = torch.Generator().manual_seed(1)
    for name, weight in trunk.model.named_parameters():
        if perturbed and "lora_B" in name:
            weight.data.normal_(std=0.05, generator=generator)
    return trunk


@pytest.fixture
def tiny_model() -> ModelMaker:
    """Makes the same random model each time, in a dtype and of a width."""
    return _tiny_model


@pytest.fixture(scope="session")
def tiny_trunk() -> TrunkMaker:
    """Makes trunks: four layers, adapters in the top `lora_layers`; `perturbed` moves each away from zero."""
    return _tiny_trunk


@pytest.fixture
def trunk() -> Trunk:
    """Adapters in the top two layers, all as initialised."""
    return _tiny_trunk()


@pytest.fixture
def perturbed() -> Trunk:
    """The same with every adapter moved away from zero, each in its own direction."""
    return _tiny_trunk(perturbed=True)


def _tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and three control tokens; as in SmolLM2, padding and end of turn are one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A new one each time: tests change it."""
    return _tiny_tokenizer()


def write_tiny_base(directory: Path) -> Path:
    """The tiny model in Hugging Face format, bf16 as most are."""
    _tiny_model(torch.bfloat16).save_pretrained(directory)
    _tiny_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def base_directory(tmp_path: Path) -> Path:
    """What `write_tiny_base` writes."""
    return write_tiny_base(tmp_path / "base")


@pytest.fixture
def people(valkey_url: str, base_directory: Path, tmp_path: Path) -> People:
    """A ledger, and no base model registered."""
    return People(valkey_url, base_directory, tmp_path / "home")
