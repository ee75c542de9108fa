"""compose.yaml keeps our rules: loopback only, no default secret, pinned images, least privilege."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.exceptions import NoPermissionError

from feedback.settings import Settings
from feedback.store import Ledger, connect
from training.celery import make_app

ROOT = Path(__file__).parent.parent
SECRETS = {"RATCHET_REDIS_PASSWORD": "secret-of-redis", "RATCHET_ENGINE_KEY": "secret-of-engine"}
REFERENCE = re.compile(r"\$\{(\w+)(:?[-?][^}]*)?\}")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment", "healthcheck", "image", "init",
    "networks", "ports", "read_only", "restart", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "user",
    "volumes",
}  # fmt: skip
OURS = {"base", "gateway", "worker", "beat"}

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def test_the_parts_are_all_there() -> None:
    assert set(SERVICES) == OURS | {"redis", "engine"}


def test_only_the_gateway_is_published_and_only_to_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"gateway": ["127.0.0.1:8000:8000"]}


def test_secrets_have_no_default() -> None:
    found = {name: rest for name, rest in REFERENCE.findall((ROOT / "compose.yaml").read_text()) if name in SECRETS}
    assert found == dict.fromkeys(SECRETS, ":?set it")


def test_the_example_environment_names_the_secrets_and_gives_none() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert {f"{name}=" for name in SECRETS} <= set(lines)
    assert not [line for line in lines if re.fullmatch(r"[^#]\w+=.+", line)]


def taken_from_env() -> dict[str, str]:
    """What compose.yaml takes from .env, and what follows the name: a default, or that there is none."""
    return dict(REFERENCE.findall((ROOT / "compose.yaml").read_text()))


def test_the_example_environment_names_all_that_is_taken_from_it() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert {found[1] for line in lines if (found := re.match(r"#?(\w+)=", line))} == taken_from_env().keys()


def test_settings_that_operators_are_told_of_are_passed_on_or_said_not_to_be() -> None:
    """One that compose.yaml leaves out would be ignored in silence."""
    readme = (ROOT / "README.md").read_text()
    containers = re.search(r"^\*\*Containers\.\*\*.*?\n\n", readme, re.MULTILINE | re.DOTALL)
    assert containers is not None
    fixed = set(re.findall(r"RATCHET_\w+", containers[0]))
    told = set(re.findall(r"RATCHET_\w+", readme))
    assert told >= {"RATCHET_RELEASE_MODE", "RATCHET_GOLD_SHARE"}
    assert told - taken_from_env().keys() == fixed


def test_what_is_not_set_is_as_it_is_without_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("RATCHET_"):
            monkeypatch.delenv(name)
    usual = Settings()
    for name, default in taken_from_env().items():
        if name not in SECRETS:
            monkeypatch.setenv(name, default.removeprefix(":-"))
    assert Settings() == usual


def test_each_setting_reaches_the_parts_that_read_it() -> None:
    for name in ("RELEASE_MODE", "MIN_RANKINGS", "ROUND_EVERY_MINUTES", "EVALUATION_SHARE", "KEEP_POLICIES"):
        for part in ("gateway", "worker", "beat"):
            assert SERVICES[part]["environment"][f"RATCHET_{name}"].startswith(f"${{RATCHET_{name}:-")
    assert {"RATCHET_GOLD_SHARE", "RATCHET_MAX_REQUESTS"} < SERVICES["gateway"]["environment"].keys()
    assert "RATCHET_TRAINING_PROCESSES" in SERVICES["worker"]["environment"]
    assert SERVICES["base"]["environment"]["HF_TOKEN"] == "${HF_TOKEN:-}"
    longest = "RATCHET_MAX_MODEL_LEN"
    assert SERVICES["engine"]["environment"][longest] == SERVICES["gateway"]["environment"][longest]
    assert f'--max-model-len "$${longest}"' in SERVICES["engine"]["command"][0]


@each_service
def test_images_are_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+\.\d+[\w.-]*", SERVICES[name]["image"])


@pytest.mark.parametrize("package", ["serving", "training"])
def test_our_images_are_pinned_light_and_not_root(package: str) -> None:
    lines = (ROOT / package / "Dockerfile").read_text().splitlines()
    begun = [line for line in lines if line.startswith("FROM")]
    assert all(re.fullmatch(r"FROM python:\d+\.\d+\.\d+-[\w-]+( AS page)?", line) for line in begun)
    last = lines[lines.index(begun[-1]) :]
    assert "USER ratchet" in last
    copied = {line.split()[1] for line in last if line.startswith("COPY ")}
    assert {"feedback", package, ".ci/backend.py"} <= copied
    assert not {"serving", "training"} - {package} & copied


def test_the_workers_image_has_no_command_of_what_it_lacks() -> None:
    lines = (ROOT / "training" / "Dockerfile").read_text().splitlines()
    [installed] = [line for line in lines if line.startswith("RUN pip install")]
    assert installed.endswith(' && rm "$(command -v ratchet)"')


def test_the_gateways_image_builds_the_page_it_holds() -> None:
    """By the script that builds it on any machine, and in the place of one that came with the sources."""
    lines = (ROOT / "serving" / "Dockerfile").read_text().splitlines()
    own = max(index for index, line in enumerate(lines) if line.startswith("FROM"))
    page, image = lines[:own], lines[own:]
    assert page.index("COPY serving/web serving/web") < page.index("RUN python -m venv .venv && .ci/web")
    assert "COPY .ci/quiet .ci/web .ci/" in page
    taken = image.index("COPY --from=page /app/serving/web/dist serving/web/dist")
    installed = next(index for index, line in enumerate(image) if line.startswith("RUN pip install"))
    assert image.index("COPY serving serving") < taken < installed


def test_images_are_built_from_what_they_copy_and_no_build_of_this_machine() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    for package in ("serving", "training"):
        for line in (ROOT / package / "Dockerfile").read_text().splitlines():
            command, *names = line.split()[:-1] or [""]
            for name in names if command == "COPY" and "--from=page" not in names else ():
                assert f"!{name}" in ignored or f"!{name.partition('/')[0]}" in ignored, name
    # The last line that matches decides.
    made = {f"serving/web/{name}" for name in ("dist", ".dist", ".node", ".sources", "node_modules")}
    assert made <= set(ignored[ignored.index("!serving") + 1 :])
    assert made <= {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}


@each_service
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["user"] in {"redis", "10001:10001"}
    assert not {"privileged", "cap_add", "network_mode", "pid", "env_file"} & service.keys()
    assert all(not volume.startswith(("/", ".")) for volume in service["volumes"])


@each_service
def test_every_container_that_stays_has_a_health_check(name: str) -> None:
    assert ("healthcheck" in SERVICES[name]) == (name != "base")


def test_redis_and_the_engine_have_no_way_out() -> None:
    assert COMPOSE["networks"]["ledger"] == COMPOSE["networks"]["engine"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == ["ledger"]
    assert SERVICES["engine"]["networks"] == ["engine"]


def test_training_cannot_reach_the_engine() -> None:
    """It never asks it anything: the gateway swaps policies."""
    for name in OURS - {"gateway"}:
        assert "engine" not in SERVICES[name]["networks"]
        assert "RATCHET_ENGINE_KEY" not in SERVICES[name]["environment"]


def test_parts_wait_for_what_they_need() -> None:
    waits = {
        (name, other, wait["condition"])
        for name, service in SERVICES.items()
        for other, wait in service.get("depends_on", {}).items()
    }
    assert {
        ("base", "redis", "service_healthy"),
        ("engine", "base", "service_completed_successfully"),
        ("gateway", "engine", "service_healthy"),
        ("worker", "base", "service_completed_successfully"),
        ("beat", "base", "service_completed_successfully"),
    } <= waits


def test_the_engine_allows_adapters_and_is_asked_for_by_the_name_the_gateway_uses() -> None:
    engine = SERVICES["engine"]
    assert engine["environment"]["VLLM_SERVER_DEV_MODE"] == "1"
    assert engine["environment"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "--enable-lora" in engine["command"][0]
    assert "--enable-auto-tool-choice --tool-call-parser hermes" in engine["command"][0], "else it refuses tools"
    assert "--served-model-name policy " in engine["command"][0]
    assert SERVICES["gateway"]["environment"]["RATCHET_ENGINE_MODE"] == "adapter"
    tag = engine["image"].partition(":v")[2]
    assert f'"vllm=={tag}"' in (ROOT / "pyproject.toml").read_text()


def test_policies_are_kept_as_the_engine_runs_them() -> None:
    """`base` sees no GPU: left alone it would choose for the processor it happens to be on."""
    dtype = re.search(r"--dtype (\w+)", SERVICES["engine"]["command"][0])
    assert dtype is not None
    for name in OURS:
        assert SERVICES[name]["environment"]["RATCHET_ENGINE_DTYPE"] == dtype[1]


@each_service
def test_services_use_only_what_exists(name: str) -> None:
    """What compose would refuse, held here also where there is no client to ask."""
    service = SERVICES[name]
    assert service.keys() <= SERVICE_KEYS
    assert set(service["networks"]) <= COMPOSE["networks"].keys()
    assert {volume.partition(":")[0] for volume in service["volumes"]} <= COMPOSE["volumes"].keys()
    assert service.get("depends_on", {}).keys() <= SERVICES.keys() - {name}
    for other, wait in service.get("depends_on", {}).items():
        assert wait["condition"] != "service_healthy" or "healthcheck" in SERVICES[other]
    assert all(isinstance(value, str) for value in service.get("environment", {}).values())
    build = service.get("build")
    assert build is None or (ROOT / build["context"] / build["dockerfile"]).is_file()


@each_service
def test_environment_names_are_settings(name: str) -> None:
    """A misspelt variable would be ignored in silence."""
    known = {f"RATCHET_{field.upper()}" for field in Settings.model_fields}
    given = {variable for variable in SERVICES[name].get("environment", {}) if variable.startswith("RATCHET_")}
    assert given <= known


def test_redis_is_durable_and_its_user_can_do_our_work_and_no_more(valkey_url: str, tmp_path: Path) -> None:
    script = SERVICES["redis"]["command"][0]
    assert "--appendonly yes --appendfsync always --maxmemory-policy noeviction" in script
    rules = re.search(r'echo "user ratchet (on [^"]*)"', script)
    assert rules is not None
    password = SECRETS["RATCHET_REDIS_PASSWORD"]
    granted = rules[1].replace("$$REDISCLI_AUTH", password).split()
    assert Redis.from_url(valkey_url).execute_command("ACL", "SETUSER", "ratchet", *granted)

    url = valkey_url.replace("redis://", f"redis://ratchet:{password}@")
    Ledger(connect(url))
    app = make_app(Settings(redis_url=url, home=tmp_path))
    with app.connection_for_write() as connection:
        app.send_task("training.tasks.tick", connection=connection)
    with app.connection_for_read() as connection, connection.SimpleQueue("training") as queue:
        assert queue.get(timeout=5).headers["task"] == "training.tasks.tick"
    for forbidden in ("FLUSHALL", "SHUTDOWN NOSAVE", "CONFIG SET appendonly no", "ACL LIST", "KEYS *"):
        with pytest.raises(NoPermissionError):
            connect(url).execute_command(*forbidden.split())


@pytest.fixture
def compose_client() -> list[str]:
    """`docker compose`, else `docker-compose`; the rules above hold without either."""
    plugin = (
        shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    )
    if plugin:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    return []


def configured(client: list[str], no_env_file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
    command = [*client, "--file", str(ROOT / "compose.yaml"), "--env-file", str(no_env_file), "config"]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False)


def test_the_client_accepts_the_file_and_asks_for_secrets(compose_client: list[str], tmp_path: Path) -> None:
    if not compose_client:
        return
    (empty := tmp_path / "env").touch()
    accepted = configured(compose_client, empty, **SECRETS)
    assert accepted.returncode == 0, accepted.stderr
    services = yaml.safe_load(accepted.stdout)["services"]
    assert services["gateway"]["environment"]["RATCHET_ENGINE_KEY"] == SECRETS["RATCHET_ENGINE_KEY"]
    for missing in SECRETS:
        refused = configured(
            compose_client, empty, **{name: value for name, value in SECRETS.items() if name != missing}
        )
        assert refused.returncode != 0
        assert missing in refused.stderr
