"""`ratchet demo`: a crowd with a hidden preference uses the service, and we measure whether the service learnt it.

Only the public HTTP API is used, and the preference itself never leaves this process: the service sees rankings.
"""

import asyncio
import random
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.console import Console

from feedback.statistics import bootstrap_mean
from serving.demo.crowd import Asked, BackgroundChats, Chat, Service, ServiceError, judgements
from serving.demo.preferences import PREFERENCES
from serving.demo.report import DemoReport, ProgressLine, Traffic, Verdict, judge, show, write_json
from serving.views.round import line
from serving.views.round_metrics import KL, REWARD_ACCURACY, REWARD_PROMPTS, find

Result = TypeVar("Result")
REQUEST_TIMEOUT_S = 120.0
# Asked so, most answers end by themselves. Those that are cut off all look alike to a crowd, and teach it nothing.
QUESTION = "{} Answer briefly."


@dataclass(frozen=True)
class DemoOptions:
    """Whom the crowd talks to, what it secretly likes, and how much of it there is."""

    url: str
    key: str
    preference: str = "brevity"
    seed: int = 0
    prompts: int = 64
    held_out: int = 48
    candidates: int = 4
    max_tokens: int = 40
    raters: int = 64  # the service holds a tenth of them out; of few raters that may be none, and the gate refuses
    noise: float = 0.05  # probability that two neighbouring ranks trade places
    background_streams: int = 2
    concurrency: int = 6  # requests in flight while collecting, each with `candidates` answers
    timeout_minutes: float = 15.0
    poll_s: float = 1.0
    swap_timeout_s: float = 120.0  # from published to serving
    json_path: Path | None = None

    def __post_init__(self) -> None:
        if self.preference not in PREFERENCES:
            raise ValueError(f"preference must be one of {', '.join(PREFERENCES)}")
        if not 2 <= self.candidates <= 8:
            raise ValueError("candidates must be 2 to 8")
        if min(self.prompts, self.held_out, self.raters, self.concurrency) < 1:
            raise ValueError("prompts, held_out, raters and concurrency must be at least 1")


class DemoStopped(RuntimeError):
    """The demo cannot go on to its measurement; the message is the reason."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict: Verdict = verdict


@dataclass(frozen=True)
class Prompts:
    """Disjoint sets; `background` is what the other two left over."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]
    background: tuple[str, ...]


async def run_demo(
    options: DemoOptions, console: Console, transport: httpx.AsyncBaseTransport | None = None
) -> DemoReport:
    """Play the whole demo, print its table, write its JSON if asked for; `exit_code` of the report says how it went.

    Raises ValueError when there are not enough prompts. `transport` replaces the network.
    """
    headers = {"authorization": f"Bearer {options.key}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=options.url, headers=headers, timeout=REQUEST_TIMEOUT_S, limits=limits, transport=transport
    ) as client:
        report = await Demo(options, console, Service(client)).play()
    show(report, console)
    if options.json_path is not None:
        write_json(report, options.json_path)
    return report


def split_prompts(count: int, held_out: int, *, seed: int) -> Prompts:
    """A shuffle by seed, cut in three; raises ValueError when the file has too few prompts."""
    lines = (resources.files("serving.demo") / "prompts.txt").read_text(encoding="utf-8").splitlines()
    if count + held_out > len(lines):
        most = len(lines) - held_out
        raise ValueError(f"--prompts {count}: there are {most}, beside {held_out} to measure by")
    lines = [QUESTION.format(line) for line in lines]
    random.Random(seed).shuffle(lines)
    training, rest = lines[:count], lines[count:]
    return Prompts(tuple(training), tuple(rest[:held_out]), tuple(rest[held_out:] or training))


def per_prompt(asked: Sequence[Asked], preference: str) -> tuple[float, ...]:
    """Mean hidden preference of each prompt's answers."""
    like = PREFERENCES[preference]
    scores = [[like(answer.text, answer.finish_reason) for answer in one.answers] for one in asked]
    return tuple(sum(row) / len(row) for row in scores)


def traffic_of(background: BackgroundChats, swap: tuple[int, int] | None) -> Traffic:
    """`swap` is (version before, version after) when there was one."""
    around: list[Chat] = background.during_swap(*swap) if swap else []
    return Traffic(
        chats=len(background.chats),
        failures=background.failures,
        longest_first_token_s=max((chat.first_token_s for chat in background.chats), default=0.0),
        longest_gap_s=max((chat.longest_gap_s for chat in background.chats), default=0.0),
        chats_during_swap=len(around),
        longest_gap_during_swap_s=max((chat.longest_gap_s for chat in around), default=None),
    )


class Demo:
    """One run. `report` grows phase by phase, so that a demo that stops half-way still shows what it saw."""

    def __init__(self, options: DemoOptions, console: Console, service: Service) -> None:
        self.options = options
        self.service = service
        self.prompts = split_prompts(options.prompts, options.held_out, seed=options.seed)
        self.report = DemoReport(options.preference, options.seed, verdict="stopped", reason="")
        self.background = BackgroundChats(
            service, self.prompts.background, clients=options.background_streams, max_tokens=options.max_tokens
        )
        self.line = ProgressLine(console)

    async def play(self) -> DemoReport:
        try:
            async with asyncio.timeout(self.options.timeout_minutes * 60), self.background:
                await self._phases()
        except DemoStopped as stopped:
            return self._stopped(stopped.verdict, str(stopped))
        except TimeoutError:
            return self._stopped("out of time", f"not done within {self.options.timeout_minutes:g} minutes")
        except ServiceError as error:
            return self._stopped("stopped", str(error))
        finally:
            self.line.end()
        change = bootstrap_mean(
            [after - before for before, after in zip(self.report.before, self.report.after, strict=True)],
            seed=self.options.seed,
        )
        traffic = traffic_of(self.background, (self.report.policies_before[-1], self.report.policies_after[-1]))
        verdict, reason = judge(change, traffic)
        return replace(self.report, change=change, traffic=traffic, verdict=verdict, reason=reason)

    async def _phases(self) -> None:
        before = await self._timed("before", self._measure("before"))
        self._note(before=per_prompt(before, self.options.preference), policies_before=_versions(before))
        asked = await self._timed("ask", self._ask_all("ask", self.prompts.training))
        await self._timed("rank", self._rank(asked))
        round = await self._timed("train", self._train())
        await self._timed("swap", self._wait_for(int(round["policy_version"])))
        after = await self._timed("after", self._measure("after"))
        self._note(after=per_prompt(after, self.options.preference), policies_after=_versions(after))
        self._note(example=_example(before[0], after[0]))
        if (swap := (await self.service.policies())["last_swap"]) is not None:
            self._note(swap_pause_s=swap["pause_s"], swap_held_s=swap["held_s"])

    async def _measure(self, phase: str) -> list[Asked]:
        """The held-out prompts, same seeds each time; without consent, so that no round practises on them."""
        return await self._ask_all(phase, self.prompts.held_out, seed=self.options.seed)

    async def _ask_all(self, phase: str, prompts: Sequence[str], *, seed: int | None = None) -> list[Asked]:
        """Answers in the order of the prompts, `concurrency` requests at a time; seeded ones do not consent."""
        free = asyncio.Semaphore(self.options.concurrency)
        n, max_tokens = self.options.candidates, self.options.max_tokens
        done = 0

        async def ask(place: int, prompt: str) -> Asked:
            nonlocal done
            own_seed = None if seed is None else 100_000 * seed + 100 * place  # an engine may count up from it
            user = f"demo-rater-{place % self.options.raters}"
            async with free:
                asked = await self.service.ask(
                    prompt, user=user, n=n, max_tokens=max_tokens, seed=own_seed, consent=seed is None
                )
            done += 1
            self.line.show(phase, f"{done}/{len(prompts)} prompts, {n} answers each")
            return asked

        return await gather_all([ask(place, prompt) for place, prompt in enumerate(prompts)])

    async def _rank(self, asked: Sequence[Asked]) -> None:
        """All judgements in one go after all answers, so that a round opened by their number sees nearly all."""
        generator = random.Random(self.options.seed)
        like = PREFERENCES[self.options.preference]
        for place, one in enumerate(asked):
            for body in judgements(one, like, place=place, noise=self.options.noise, generator=generator):
                await self.service.judge(body)
            self._note(rankings=place + 1)
            self.line.show("rank", f"{place + 1}/{len(asked)} prompts ranked")

    async def _train(self) -> dict[str, Any]:
        """Follow the round that is open, or a new one, to its end; raises DemoStopped unless it publishes."""
        round = await self.service.open_round()
        self._note(round=int(round["id"]))
        while round["state"] in ("queued", "running"):
            again = round["reason"] if round["restarts"] and not round["progress"] else None
            self.line.show(f"round {round['id']}: {round['stage']}", line(round["progress"]) or again or "…")
            await asyncio.sleep(self.options.poll_s)
            round = await self.service.round(round["id"])
        metrics = round["metrics"]
        self._note(
            reward_accuracy=find(metrics, REWARD_ACCURACY),
            reward_prompts=int(find(metrics, REWARD_PROMPTS) or 0),
            kl=find(metrics, KL),
        )
        if round["state"] == "refused":
            raise DemoStopped("refused", f"the gate of round {round['id']} refused the new policy: {round['reason']}")
        if round["state"] != "published":
            raise DemoStopped("failed", f"round {round['id']} {round['state']}: {round['reason']}")
        return round

    async def _wait_for(self, version: int) -> None:
        """Chat until an answer names `version`; raises DemoStopped when none does in time."""
        deadline = time.monotonic() + self.options.swap_timeout_s
        served = None
        while time.monotonic() < deadline:
            asked = await self.service.ask(self.prompts.background[0], user="demo-guest-0", n=1, max_tokens=1)
            served = asked.answers[0].policy_version
            if served == version:
                return
            self.line.show("swap", f"policy-v{served} serves, waiting for policy-v{version}")
            await asyncio.sleep(self.options.poll_s)
        reason = f"policy-v{version} was published, but after {self.options.swap_timeout_s:g} s policy-v{served} serves"
        raise DemoStopped("not served", reason)

    async def _timed(self, phase: str, work: Coroutine[Any, Any, Result]) -> Result:
        started = time.monotonic()
        try:
            return await work
        finally:
            self._note(seconds={**self.report.seconds, phase: time.monotonic() - started})

    def _note(self, **fields: Any) -> None:
        self.report = replace(self.report, **fields)

    def _stopped(self, verdict: Verdict, reason: str) -> DemoReport:
        return replace(self.report, traffic=traffic_of(self.background, None), verdict=verdict, reason=reason)


async def gather_all(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results in order; when one fails, the others are cancelled and its error is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _versions(asked: Sequence[Asked]) -> tuple[int, ...]:
    return tuple(sorted({answer.policy_version for one in asked for answer in one.answers}))


def _example(before: Asked, after: Asked) -> dict[str, str]:
    """The first held-out prompt with the first answer to it, then and now: not picked by its score."""
    return {"prompt": before.prompt, "before": before.answers[0].text, "after": after.answers[0].text}
