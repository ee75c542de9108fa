"""Where things are. How the algorithm behaves lives in training/config.py."""

import ipaddress
import json
import os
import secrets
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from feedback.hardware import Dtype, local_dtype


def _in_range(port: int) -> int:
    if not 0 <= port <= 65535:
        raise PydanticCustomError("port", "a port is a number from 0 to 65535")
    return port


def _given(value: object) -> object:
    """compose.yaml hands an unset variable on as an empty one."""
    return None if value == "" else value


def is_loopback(host: str) -> bool:
    """True if only this machine can mean it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Port = Annotated[int, AfterValidator(_in_range)]


ReleaseMode = Literal["direct", "manual", "assisted", "automatic"]


class BrokenSecrets(ValueError):
    """An installation's secrets cannot be read; the message is one line with the next step."""


class Secrets(BaseModel):
    """Generated once per data directory, readable by its owner only."""

    model_config = ConfigDict(frozen=True)

    redis_password: str
    engine_key: str
    pepper: str


class Settings(BaseSettings):
    """Facts every part needs, from `RATCHET_*` environment variables."""

    model_config = SettingsConfigDict(env_prefix="RATCHET_", frozen=True, env_file=None)

    home: Path = Path(".ratchet")
    base_model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    host: str = "127.0.0.1"
    port: Port = 8000
    single_user: bool = Field(default=False, description="the page opens signed in, as admin; on loopback only")
    workers: int = Field(default=1, ge=1, le=64, description="gateway processes behind the port")
    redis_url: str | None = None
    redis_port: Port = 7379
    engine_url: str | None = None
    engine_port: Port = 8001
    candidate_url: str | None = Field(default=None, description="a second vLLM server, for the candidate of a release")
    candidate_port: Port = 8002
    engine_key: str | None = None
    engine_mode: Literal["merged", "adapter"] = "merged"
    engine_dtype: Dtype | None = None
    engine_args: str = Field(
        default="", description="more arguments for the vLLM that is started here, as a shell has them"
    )
    max_model_len: int = 2048
    log_format: Literal["text", "json"] = Field(default="text", description="of the gateway's log")
    max_requests: int = Field(
        default=1024, ge=1, description="requests in the gateway at once, all its processes together; one more gets 503"
    )
    release_mode: ReleaseMode = Field(
        default="direct",
        description="what becomes of a policy that passed its gate: direct = it serves at once; automatic, assisted = "
        "its release begins, and ends by itself or is confirmed by an operator; manual = an operator begins it",
    )
    keep_policies: Annotated[int | None, BeforeValidator(_given)] = Field(
        default=None, ge=1, description="newest policies whose weights are kept, in use or not; none given = all"
    )
    evaluation_share: float = Field(default=0.1, ge=0.0, le=0.9)
    gold_share: float = Field(
        default=0.02, ge=0.0, le=0.2, description="of blind pairs, in which one answer is to another question"
    )
    min_rankings: int = Field(default=48, ge=1, description="new judgements that start a round")
    training_processes: Annotated[int | None, BeforeValidator(_given)] = Field(
        default=None, ge=1, description="that a stage trains in; none given = one per GPU, or one"
    )
    round_every_minutes: float = Field(default=0.0, ge=0.0, description="start a round on a schedule; 0 = off")

    @field_validator("engine_args")
    @classmethod
    def _as_a_shell_has_them(cls, arguments: str) -> str:
        try:
            shlex.split(arguments)
        except ValueError as error:
            raise PydanticCustomError("engine_args", "no shell would take this: {why}", {"why": str(error)}) from error
        return arguments

    @field_validator("single_user")
    @classmethod
    def _on_loopback(cls, single: bool, info: ValidationInfo) -> bool:
        if single and not is_loopback(info.data.get("host", "")):
            raise PydanticCustomError("single_user", "whoever reaches the host would be admin: listen on 127.0.0.1")
        return single

    def secrets(self) -> Secrets:
        """This installation's secrets; made on first use (mode 0600). Raises BrokenSecrets."""
        return load_secrets(self.home)

    def resolved_redis_url(self) -> str:
        """The Redis to use: the one given, else the embedded one."""
        if self.redis_url:
            return self.redis_url
        return f"redis://:{self.secrets().redis_password}@127.0.0.1:{self.redis_port}/0"

    def resolved_engine_url(self) -> str:
        """The vLLM server to use: the one given, else the supervised one."""
        return self.engine_url or f"http://127.0.0.1:{self.engine_port}"

    def resolved_candidate_url(self) -> str:
        """Where the candidate of a release answers: adapters share the stable policy's engine."""
        if self.engine_mode == "adapter":
            return self.resolved_engine_url()
        return self.candidate_url or f"http://127.0.0.1:{self.candidate_port}"

    def resolved_engine_key(self) -> str:
        """The engine's API key."""
        return self.engine_key or self.secrets().engine_key

    def resolved_engine_dtype(self) -> Dtype:
        """What new installations keep policies in: the dtype given, else this machine's native one."""
        return self.engine_dtype or local_dtype()

    @property
    def policies_dir(self) -> Path:
        return self.home.absolute() / "policies"

    @property
    def rounds_dir(self) -> Path:
        return self.home.absolute() / "rounds"


def load_secrets(home: Path) -> Secrets:
    """Read `home/secrets.json`, creating it exactly once even when two processes race. Raises BrokenSecrets."""
    path = home / "secrets.json"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = {name: secrets.token_hex(24) for name in Secrets.model_fields}
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(fresh, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails if another process was first: theirs counts
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    try:
        return Secrets.model_validate_json(path.read_bytes())
    except ValidationError:
        raise BrokenSecrets(
            f"{path} does not hold this installation's secrets: restore it from a copy; without one move it away: the "
            "next start makes new ones, under which no key made so far is valid and every rater is a new one"
        ) from None  # it would quote them
    except OSError as error:
        raise BrokenSecrets(f"{path} cannot be read ({error.strerror}): run this as whoever started Ratchet") from error
