"""`ratchet up`: every part of Ratchet on this machine, in order."""

import json
import re
import shlex
import sys
import time

from redis.exceptions import RedisError

from feedback.hardware import has_gpu
from feedback.people.keys import KeyRing
from feedback.policies.manifest import BrokenPolicy, directory_name, read_manifest
from feedback.releases.pool import EnginePool, hosting
from feedback.settings import Settings
from feedback.store import connect
from serving.machine.candidate_engine import CandidateEngine
from serving.machine.children import CannotStart, Child, ChildSpec, Command, NotYet
from serving.machine.installation import check_disk, check_ports, environment, exclusive, record_start
from serving.machine.probes import WORKER_ALIVE, answers, gateway_url
from serving.machine.supervisor import Stopped, Supervisor
from serving.machine.terminal import Terminal
from serving.machine.valkey import ledger_ready, valkey_spec
from serving.machine.vllm_server import candidate_spec, engine_spec

BEAT_SETTLES_S = 3.0
# By the level alone: the lines of requests hold what clients call them.
TROUBLE = re.compile(r'"level": "(?:WARNING|ERROR|CRITICAL)"|^\S+ \S+ (?:WARNING|ERROR|CRITICAL) |^ratchet gateway: ')


def up(settings: Settings, terminal: Terminal, *, verbose: bool = False) -> None:
    """Run until somebody asks to end. Raises CannotStart."""
    with exclusive(settings.home):
        check_disk(settings.home)
        gpu = settings.engine_url is None and has_gpu()
        if gpu and "engine_mode" not in settings.model_fields_set:
            settings = settings.model_copy(update={"engine_mode": "adapter"})
        check_ports(settings)
        record_start(settings)
        try:
            with Supervisor(settings.home / "logs", terminal, verbose=verbose) as supervisor:
                start_all(settings, supervisor, terminal, gpu=gpu)
                supervisor.watch()
        except Stopped:
            terminal.say("ended; `ratchet up` goes on from here")


def start_all(settings: Settings, supervisor: Supervisor, terminal: Terminal, *, gpu: bool) -> None:
    """Bring up one part after the other. Raises CannotStart or Stopped."""
    if settings.redis_url is None:
        supervisor.bring_up(valkey_spec(settings))
    elif not ledger_ready(settings.redis_url):
        raise CannotStart("no Redis answers at --redis-url: start it, or leave the option out for an embedded one")
    prepare_policy(settings, supervisor)
    if settings.engine_url is None:
        supervisor.bring_up(engine_spec(settings, gpu=gpu))
    elif not answers(f"{settings.engine_url}/v1/models", key=settings.resolved_engine_key(), timeout_s=10.0):
        raise CannotStart(f"no vLLM answers at {settings.engine_url} with our key: start it, or set RATCHET_ENGINE_KEY")
    supervisor.bring_up(gateway_spec(settings))
    supervisor.bring_up(worker_spec(settings))
    supervisor.bring_up(beat_spec(settings))
    if hosting(settings) == "supervised":
        supervisor.host(candidate_engine(settings, supervisor, terminal, gpu=gpu))
    greet(settings, terminal)  # last, so that nothing pushes the key away


def candidate_engine(settings: Settings, supervisor: Supervisor, terminal: Terminal, *, gpu: bool) -> CandidateEngine:
    """What starts and ends an engine for the candidate of a release."""

    def create() -> Child:
        return supervisor.child_of(candidate_spec(settings, gpu=gpu))

    return CandidateEngine(EnginePool(connect(settings.resolved_redis_url()), "supervised"), terminal, create)


def prepare_policy(settings: Settings, supervisor: Supervisor) -> None:
    """See that there is a policy to serve: the base model is fetched if need be and is version 0."""
    if not has_base_model(settings):
        fetch = ("fetch", "--model", settings.base_model, "--home", str(settings.home))
        command = ours(settings, "-m", "training.base_model", *fetch)
        supervisor.run("fetching the base model", command, "Name a local directory with --model.")
    register = ours(settings, "-m", "training", "register-base")
    supervisor.run("registering the base model", register, "What it wrote above says why.")


def has_base_model(settings: Settings) -> bool:
    """True if version 0 is on disk, and the model that it names as well."""
    directory = settings.policies_dir / directory_name(0)
    try:
        return (directory / read_manifest(directory).model_path).is_dir()
    except (BrokenPolicy, OSError):
        return False


def ours(settings: Settings, *arguments: str) -> Command:
    """A process of this project."""
    return Command((sys.executable, *arguments), environment(settings) | {"PYTHONUNBUFFERED": "1"})


def gateway_spec(settings: Settings) -> ChildSpec:
    return ChildSpec(
        name="gateway",
        command=lambda: ours(settings, "-m", "serving"),
        ready=lambda: answers(f"{gateway_url(settings)}/ready"),
        ready_timeout_s=180.0,
        hint="See the log.",
        shown=TROUBLE,
    )


def worker_spec(settings: Settings) -> ChildSpec:
    return ChildSpec(
        name="worker",
        command=lambda: worker_command(settings),
        ready=lambda: worker_alive(settings),
        ready_timeout_s=180.0,
        hint="See the log.",
        nice=10,  # training gives way to chat
    )


def worker_command(settings: Settings) -> Command:
    """The worker announces itself in Redis; what one before it announced would be a false sign."""
    redis = connect(settings.resolved_redis_url())
    try:
        redis.delete(WORKER_ALIVE)
    except RedisError as error:
        raise NotYet(f"Redis does not answer: {error}") from error
    finally:
        redis.close()
    return ours(settings, "-m", "training", "worker")


def worker_alive(settings: Settings) -> bool:
    """True if some worker announced itself within the last seconds."""
    redis = connect(settings.resolved_redis_url())
    try:
        return bool(redis.exists(WORKER_ALIVE))
    except RedisError:
        return False
    finally:
        redis.close()


def beat_spec(settings: Settings) -> ChildSpec:
    """Beat answers nobody: it counts as ready when it has run for a while."""
    started: list[float] = []

    def command() -> Command:
        started[:] = [time.monotonic()]
        return ours(settings, "-m", "training", "beat")

    return ChildSpec(
        name="beat",
        command=command,
        ready=lambda: time.monotonic() - started[0] > BEAT_SETTLES_S,
        ready_timeout_s=60.0,
        hint="See the log.",
        nice=10,
    )


def greet(settings: Settings, terminal: Terminal) -> None:
    """Say where to chat, and with what key: the first admin key is shown here and never again."""
    ring = KeyRing(connect(settings.resolved_redis_url()), settings.secrets().pepper)
    url = gateway_url(settings)
    terminal.say(f"\nRatchet answers at {url}/v1 (OpenAI API), data in {settings.home}", "bold")
    terminal.say(f"The page: {url}/ {entrance(settings)}", "bold")
    if ring.list():
        terminal.say("Keys: `ratchet keys list`; another one: `ratchet keys create NAME`\n")
        return
    key = ring.create(name="admin", role="admin")
    terminal.say(f"Admin key, shown only this once: {key}", "bold yellow")
    terminal.say(f"Try:\n{curl_line(url, key)}\n")


def entrance(settings: Settings) -> str:
    """How one comes in."""
    if settings.single_user:
        return "(single-user mode: opens signed in, as admin)"
    return "(sign in with a key, or with a link from `ratchet user invite NAME`)"


def curl_line(url: str, key: str) -> str:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    body = json.dumps({"model": "policy", "max_tokens": 64, "messages": messages})
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    return f"curl {url}/v1/chat/completions {headers} -d {shlex.quote(body)}"
