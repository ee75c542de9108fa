"""A reward model as a directory that TRL, vLLM's pooling and everybody else can load: one label, one logit, the score.

`AutoModelForSequenceClassification` has no bias, so its logit is the score less the head's bias, which stands in the
config as `score_bias`, beside `score_temperature`, by which differences of scores are divided to be log-odds. It looks
for the last token that is not padding, by id: the padding written here is a token that ends no chat, since a model
whose pad is its end token would be read one token too early. And the chat template written here ends with the end
token: by most a line break comes after it, at which nothing was learned.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoTokenizer, PreTrainedTokenizerBase

from training.checkpoints import atomic_directory
from training.model.layers import UnsupportedModel
from training.model.trunk import Trunk


def export_classifier(trunk: Trunk, target: Path, *, base_directory: Path) -> None:
    """Write the trunk's reward model to `target`, a new directory: base, adapter and head as one model, in fp32.

    Raises UnsupportedModel when transformers knows no classifier of this architecture.
    """
    classifier = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(trunk.model.config), None)
    if classifier is None:
        raise UnsupportedModel(f"transformers has no sequence classifier for {type(trunk.model).__name__}")
    tokenizer = AutoTokenizer.from_pretrained(base_directory)
    padding = padding_id(tokenizer)
    with atomic_directory(target) as directory:
        tokenizer.pad_token_id = padding
        tokenizer.chat_template = ended(tokenizer.chat_template)
        tokenizer.save_pretrained(directory)
        config = _config(trunk, classifier.__name__, padding)
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(_weights(trunk), directory / "model.safetensors", metadata={"format": "pt"})


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The last special token that neither ends an answer nor stands in the chat template.

    Raises UnsupportedModel when there is none.
    """
    template = str(tokenizer.chat_template or "")
    taken = {tokenizer.eos_token_id, tokenizer.bos_token_id}
    free = [
        index
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special and index not in taken and token.content not in template
    ]
    if not free:
        raise UnsupportedModel("the tokenizer has no special token left to pad with")
    return max(free)


def ended(template: Any) -> Any:
    """The chat template without what space it leaves after an end token at the end; what is no template stays.

    Masks of assistants' tokens, which a judge has no use for, are not right with it.
    """
    if not isinstance(template, str):
        return template
    chat = template.removesuffix("\n")  # as Jinja would do at the end
    return f"{{% set chat %}}{chat}{{% endset %}}{{{{ chat.rstrip() if chat.rstrip().endswith(eos_token) else chat }}}}"


def _config(trunk: Trunk, architecture: str, padding: int) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(trunk.model.config.to_json_string(use_diff=False))
    return config | {
        "architectures": [architecture],
        "dtype": "float32",
        "id2label": {"0": "score"},
        "label2id": {"score": 0},
        "num_labels": 1,
        "pad_token_id": padding,
        "problem_type": "regression",  # a score is no probability: whoever serves it applies no sigmoid
        "score_bias": trunk.heads["reward"].bias.mean().item(),
        "score_temperature": trunk.temperature,
        "tie_word_embeddings": False,  # there is no output matrix to tie
    }


def _weights(trunk: Trunk) -> dict[str, Tensor]:
    """Heads of an ensemble are averaged, as their scores are."""
    merged = {name: weight for name, weight in trunk.merged("reward", torch.float32) if not name.startswith("lm_head.")}
    return merged | {"score.weight": trunk.heads["reward"].weight.detach().float().mean(0, keepdim=True).cpu()}
