"""The stages of a round in this process: what each starts from and leaves behind, and what ends a round early."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from transformers import AutoTokenizer

from feedback.archive import Archive
from feedback.erasure import Eraser
from feedback.judgements import Comparison
from feedback.people.raters import Raters
from feedback.policies.fixed_answers import read_answers
from feedback.policies.manifest import sha256_of, verify_files
from feedback.policies.ppo_curves import LINES, Curves
from feedback.policies.reward_fit import Change, Fit
from feedback.records import Completion, Message
from feedback.rounds.book import STAGES, LeaseLost, RoundBook
from feedback.rounds.sides import SIDES
from feedback.store import Ledger
from training.config import RewardConfig, RoundConfig
from training.lessons.collect import TrainingData, collect
from training.model.roles import Role
from training.model.samples import RankedSamples, Sample
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.reward.fit import compare
from training.reward.likelihoods import Labels
from training.reward.reward import RewardReport, train_reward_model
from training.round.fixed_answers import PROMPTS
from training.round.progress import Progress
from training.round.round import run_round
from training.round.stages import LOST, run_stage
from training.workspace import DATA, Outcome, Workspace

if TYPE_CHECKING:
    from tests.training.round.conftest import Installation


TIMINGS = ("seconds", "tokens_per_s")


class Rounds:
    """Rounds whose stages run here, one after the other."""

    def __init__(self, installation: "Installation") -> None:
        self.installation = installation

    def claim(self, round_id: int) -> int:
        token = self.installation.book.claim(round_id, owner="test", lease_s=0.0)
        assert token is not None
        self.installation.book.write(round_id, token, watermark=self.installation.ledger.watermark())
        return token

    def workspace(self, round_id: int) -> Workspace:
        return Workspace(self.installation.settings.rounds_dir, round_id)

    def stage(self, stage: str, round_id: int, token: int) -> Outcome:
        assert run_stage(self.installation.settings, stage, round_id, token) == 0
        outcome = self.workspace(round_id).outcome(stage)
        assert outcome is not None
        return outcome

    def run(self, last: str = "publish") -> tuple[int, dict[str, Outcome]]:
        """A round up to a stage, or to its early end; (id, outcomes)."""
        round_id = self.installation.open_round()
        token = self.claim(round_id)
        outcomes: dict[str, Outcome] = {}
        for stage in STAGES[: STAGES.index(last) + 1]:
            outcomes[stage] = self.stage(stage, round_id, token)
            if outcomes[stage].state != "done":
                break
        return round_id, outcomes

    def end(self, round_id: int, state: str) -> None:
        token = self.claim(round_id)
        self.installation.book.finish(round_id, token, state)  # type: ignore[arg-type]


@pytest.fixture
def rounds(installation: "Installation") -> Rounds:
    return Rounds(installation)


def with_a_first_version(rounds: Rounds) -> "Installation":
    """Where people have spoken once, and a round has made policy-v1 of it."""
    rounds.installation.speak(24)
    first, _ = rounds.run()
    rounds.end(first, "published")
    return rounds.installation


def require_answers(installation: "Installation", *versions: int) -> None:
    """Each has answered the fixed prompts, and its manifest vouches for that."""
    for version in versions:
        directory = installation.registry.directory(version)
        answers = read_answers(directory)
        assert answers is not None and answers.keys() == set(PROMPTS)
        verify_files(directory, manifest := installation.registry.manifest(version))
        assert "answers.json" in manifest.files


def test_next_round_goes_on_from_the_stable_version(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = rounds.installation
    installation.speak(24, demonstrations=4)
    first, outcomes = rounds.run()
    assert outcomes["publish"].metrics == {"version": 1, "note": "policy-v1 is stable"}
    require_answers(installation, 0, 1)
    done = [(point.stage, point.step) for point in installation.book.course(first)]
    reward = json.loads((installation.settings.home / "round.json").read_text())["reward"]
    held_out = round(24 * RewardConfig().held_out_fraction)
    rankings = 24 - held_out + 4  # a demonstration is ranked above what it corrects
    reward_steps = reward["epochs"] * math.ceil(rankings / reward["batch_rankings"])
    assert done == [*(("sft", n + 1) for n in range(20)), *(("reward", n + 1) for n in range(reward_steps)),
                    *(("ppo", n + 1) for n in range(6)), ("gate", 6)]  # fmt: skip
    rounds.end(first, "published")
    installation.speak(24, seed=1)
    loaded: list[str] = []
    load = Trunk.load_adapter

    def noting(trunk: Trunk, role: Role, directory: Path) -> None:
        loaded.append(f"{role} <- {directory.relative_to(installation.settings.home)}")
        load(trunk, role, directory)

    monkeypatch.setattr(Trunk, "load_adapter", noting)
    installation.configure(gate={"min_score_gain_ci": 1e6})
    second, outcomes = rounds.run()
    assert outcomes["sft"].metrics == {"skipped": "0 new demonstrations, 4 are needed"}
    assert loaded == [
        "reward <- policies/000001/reward",
        "policy <- policies/000001/adapter",
        "ref <- policies/000001/ref",
        "reward <- rounds/000002/reward/0001/reward",
        "stable <- policies/000001/adapter",
        "ref <- policies/000001/ref",
        "reward <- rounds/000002/reward/0001/reward",
        "policy <- rounds/000002/ppo/0001/adapter",
    ]
    assert outcomes["gate"].state == "refused"
    assert outcomes["gate"].reason.startswith("gate: score gain, lower bound is")
    assert outcomes["gate"].metrics["checks"]
    assert installation.published() == [1]
    assert installation.registry.stable() == 1
    lineage = installation.registry.manifest(1).lineage
    assert lineage["reward_model"] == sha256_of(installation.registry.directory(1) / "reward/adapter_model.safetensors")
    assert lineage["raters"] == ["r"]
    assert len(lineage["feedback_ids"]) == lineage["feedback"]["rankings"], "4 of them are demonstrations too"


def reward_sources(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A round up to its reward stage: the adapters which that started from."""
    loaded: list[str] = []
    load = Trunk.load_adapter

    def noting(trunk: Trunk, role: Role, directory: Path) -> None:
        loaded.append(f"{role} <- {directory.relative_to(rounds.installation.settings.home)}")
        load(trunk, role, directory)

    with monkeypatch.context() as patch:
        patch.setattr(Trunk, "load_adapter", noting)
        round_id, outcomes = rounds.run(last="reward")
    assert outcomes["reward"].state == "done", outcomes
    rounds.end(round_id, "cancelled")
    return loaded


def test_reward_model_starts_afresh_once_somebody_it_learned_from_is_put_aside_or_erased(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = with_a_first_version(rounds)
    installation.speak(24, seed=1, rater="eve")
    assert reward_sources(rounds, monkeypatch) == ["reward <- policies/000001/reward"]
    second, _ = rounds.run()
    rounds.end(second, "published")
    assert installation.registry.stable() == 2
    assert installation.registry.manifest(2).lineage["raters"] == ["eve", "r"]
    raters = Raters(installation.redis)
    raters.quarantine("eve", actor="test", reason="trigger")
    assert reward_sources(rounds, monkeypatch) == ["reward <- policies/000001/reward"], "eve came after it"
    raters.release("eve", actor="test", reason="mistake")
    assert reward_sources(rounds, monkeypatch) == ["reward <- policies/000002/reward"]
    Eraser(Archive(installation.ledger)).person("r")
    assert reward_sources(rounds, monkeypatch) == [], "policy-v1 had learned from r, and so both"
    last = rounds.workspace(next(RoundBook(installation.redis).newest_first()).id).outcome("reward")
    assert last is not None and "this one begins anew" in last.metrics["no_change"]


def test_hold_out_of_a_round_that_trains_is_frozen_and_raters_are_told(rounds: Rounds) -> None:
    installation = rounds.installation
    installation.speak(4)
    early, outcomes = rounds.run(last="collect")
    assert outcomes["collect"].state == "refused"
    assert not installation.redis.exists(SIDES), "nothing trained yet"
    rounds.end(early, "refused")
    installation.speak(24, seed=1)
    round_id, outcomes = rounds.run(last="collect")
    data = TrainingData.model_validate_json((rounds.workspace(round_id).output("collect") / DATA).read_text())
    assert len(data.trained) + len(data.held_out) == 28
    assert installation.redis.hlen(SIDES) == 2 * 28, "by tokens and by question"
    raters = outcomes["collect"].metrics["raters"]
    assert (raters["count"], raters["quarantined"], raters["largest_share"]) == (1, 0, {"r": 1.0})
    assert list(Raters(installation.redis).weights()) == ["r"]


def test_demonstrations_of_a_refused_round_are_new_until_a_policy_has_learned_from_them(rounds: Rounds) -> None:
    installation = rounds.installation
    installation.speak(24, demonstrations=4)
    for _ in range(2):
        refused, outcomes = rounds.run(last="collect")
        assert outcomes["collect"].metrics["new_demonstrations"] == 4
        rounds.end(refused, "refused")
    learned, outcomes = rounds.run()
    assert outcomes["sft"].metrics["demonstrations"] == 4
    assert installation.registry.stable() == 1
    rounds.end(learned, "published")
    _, outcomes = rounds.run(last="collect")
    assert outcomes["collect"].metrics["new_demonstrations"] == 0


def test_sft_learns_the_new_demonstrations_and_as_many_old_ones_as_it_is_told_to(rounds: Rounds) -> None:
    installation = rounds.installation
    installation.configure(sft={"replay": 0.5, "epochs": 1}, reward={"held_out_fraction": 0.3})
    installation.speak(24, demonstrations=24)
    first, outcomes = rounds.run()
    known = outcomes["collect"].metrics
    taught = {name: outcomes["sft"].metrics[name] for name in ("demonstrations", "replayed", "held_out")}
    held_out = known["held_out_demonstrations"]
    assert taught == {"demonstrations": 24 - held_out, "replayed": 0, "held_out": held_out}
    assert outcomes["sft"].metrics["held_out_before"] > outcomes["sft"].metrics["held_out_after"] > 0
    rounds.end(first, "published")
    installation.speak(8, demonstrations=8, seed=1)
    _, outcomes = rounds.run(last="sft")
    new = outcomes["collect"].metrics["new_demonstrations"]
    assert 4 <= new < 8
    assert outcomes["sft"].metrics["replayed"] == round(new / 2)
    assert outcomes["sft"].metrics["demonstrations"] == new + round(new / 2)


def test_demonstrations_too_few_for_sft_wait_for_more(rounds: Rounds) -> None:
    """A version is published without them, and they are still new."""
    installation = rounds.installation
    installation.configure(min_demonstrations=10, reward={"held_out_fraction": 0.0})
    installation.speak(24, demonstrations=6)
    first, outcomes = rounds.run()
    few = outcomes["collect"].metrics["new_demonstrations"]
    assert outcomes["sft"].metrics == {"skipped": f"{few} new demonstrations, 10 are needed"}
    assert installation.registry.manifest(1).lineage["taught"] == "0"
    rounds.end(first, "published")
    installation.speak(10, demonstrations=10, seed=1)
    second, outcomes = rounds.run()
    assert outcomes["sft"].metrics["demonstrations"] == outcomes["collect"].metrics["new_demonstrations"] > few
    lineage = installation.registry.manifest(2).lineage
    assert lineage["taught"] == lineage["watermark"]
    rounds.end(second, "published")


def test_live_rounds_learn_from_what_people_received_and_name_it(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whom keeps them in training, by the policy that serves or the one before; nothing is written in addition."""

    def written(*_: Any) -> Any:
        raise AssertionError("somebody had to write")

    monkeypatch.setattr("training.ppo.rollout.sample_completions", written)
    installation, archive = rounds.installation, Archive(rounds.installation.ledger)
    installation.configure(ppo={"rollouts": "live"})
    installation.speak(24)
    refused, outcomes = rounds.run()
    assert outcomes["collect"].reason.startswith(
        'ppo.rollouts "live": 0 completions that people received may be learnt'
    )
    rounds.end(refused, "refused")
    installation.speak(24, seed=1, plain=True)
    # The first to each prompt is a; without it, it is b.
    assert archive.change_conversation("r", "c1-0-a:0", allow_training=False)
    assert archive.annotate("c1-1-a", {"consent": "false"})
    erased = archive.response("c1-2-a")
    assert erased is not None
    Eraser(archive).response(erased)
    published, outcomes = rounds.run()
    assert outcomes["publish"].metrics["version"] == 1
    data = TrainingData.model_validate_json((rounds.workspace(published).output("collect") / DATA).read_text())
    prompts, names = {each.prompt_ids for each in data.live}, {each.response_id for each in data.live}
    assert prompts <= set(data.prompts)
    assert 12 <= outcomes["collect"].metrics["live"] == len(prompts) == len(names)
    assert names <= {f"c1-{n}-b" if n < 3 else f"c1-{n}-a" for n in range(24)}
    learnt = set(installation.registry.manifest(1).lineage["live"])
    assert learnt <= names & set(data.responses)
    assert len(learnt) >= 12  # 24 completions in six iterations of four, of which a pass leaves out three at most
    rounds.end(published, "published")
    _, outcomes = rounds.run(last="collect")
    assert outcomes["collect"].metrics["live"] == len(names), "one version behind"
    rounds.end(3, "cancelled")
    installation.configure(ppo={"rollouts": "live", "max_staleness": 0})
    _, outcomes = rounds.run(last="collect")
    assert outcomes["collect"].state == "refused"


class Noting(Progress):
    """Keeps the completed iterations."""

    completed: ClassVar[list[int]] = []

    def __call__(self, stage: str, step: int, total: int, metrics: Mapping[str, Any]) -> None:
        super().__call__(stage, step, total, metrics)
        if metrics:
            self.completed.append(step)


class Stopping(Noting):
    """Loses the round after three iterations."""

    def __call__(self, stage: str, step: int, total: int, metrics: Mapping[str, Any]) -> None:
        super().__call__(stage, step, total, metrics)
        if self.completed == [1, 2, 3]:
            raise LeaseLost("taken over")


def iterations(directory: Path) -> list[dict[str, float]]:
    """What the stage ppo has written down, without the timings."""
    lines = [json.loads(line) for line in (directory / LINES).read_text().splitlines()]
    return [{name: x for name, x in line.items() if name.split("/")[0] not in TIMINGS} for line in lines]


def test_resumed_stage_ends_like_one_that_was_never_stopped(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """PPO stopped after three of six iterations and taken up by the next token: the same adapter, bit for bit."""
    rounds.installation.speak(24)
    round_id, _ = rounds.run(last="reward")
    workspace = rounds.workspace(round_id)
    rounds.stage("ppo", round_id, 1)
    never_stopped = sha256_of(workspace.output("ppo") / "adapter/adapter_model.safetensors")
    never_stopped_lines = iterations(workspace.output("ppo"))
    shutil.rmtree(workspace.root / "ppo")
    monkeypatch.setattr(Noting, "completed", [])
    monkeypatch.setattr("training.round.stages.Progress", Stopping)
    assert run_stage(rounds.installation.settings, "ppo", round_id, 1) == LOST
    assert workspace.outcome("ppo") is None
    assert not (workspace.root / "ppo/0001/adapter").exists()
    monkeypatch.setattr("training.round.stages.Progress", Noting)
    outcome = rounds.stage("ppo", round_id, rounds.claim(round_id))
    assert outcome.token == 2
    assert Noting.completed == [1, 2, 3, 4, 5, 6]
    assert sha256_of(workspace.output("ppo") / "adapter/adapter_model.safetensors") == never_stopped
    assert iterations(workspace.output("ppo")) == never_stopped_lines
    assert len(never_stopped_lines) == 6
    kept = Curves.model_validate(outcome.metrics["curves"])
    assert kept.kl == tuple(line["objective/kl"] for line in never_stopped_lines)


def test_demonstrations_of_the_round_are_mixed_into_ppo_if_asked_for(rounds: Rounds) -> None:
    """All that the round collected, also where they are too few for SFT; by default none."""
    rounds.installation.speak(24, demonstrations=3)
    found = {}
    for ptx_coef in (0.0, 0.5):
        rounds.installation.configure(ppo={"iterations": 1, "ptx_coef": ptx_coef})
        round_id, outcomes = rounds.run(last="ppo")
        assert "skipped" in outcomes["sft"].metrics
        found[ptx_coef] = outcomes["ppo"].metrics
        rounds.end(round_id, "cancelled")
    assert found[0.0]["ptx_demonstrations"] == 0 and "ppo/ptx_loss" not in found[0.0]["last"]
    assert found[0.5]["ptx_demonstrations"] == 3
    assert 3 < found[0.5]["last"]["ppo/ptx_loss"] < 10, "about log 300 nats per token, as a random model has"


def test_old_token_leaves_no_outcome(rounds: Rounds) -> None:
    """A worker that lost the round and does not know it runs a stage to its end."""
    installation = rounds.installation
    installation.speak(24)
    round_id = installation.open_round()
    zombie = rounds.claim(round_id)
    token = rounds.claim(round_id)
    assert run_stage(installation.settings, "collect", round_id, zombie) == LOST
    assert rounds.workspace(round_id).outcome("collect") is None
    assert rounds.stage("collect", round_id, token).token == token


def test_policy_that_trained_on_erased_data_is_gone_with_its_round(rounds: Rounds) -> None:
    """Erased when all was written and nothing registered yet; what takes the round over finds nothing to go on from."""
    installation = rounds.installation
    installation.speak(24)
    round_id = installation.open_round()
    token = rounds.claim(round_id)
    data = rounds.stage("collect", round_id, token)
    installation.book.write(round_id, token, policy_version=installation.registry.reserve())
    for name in ("000001", ".000001.0001"):
        (installation.settings.policies_dir / name).mkdir()
    archive = Archive(installation.ledger)
    response = archive.response("c0-3-b")
    assert response is not None
    assert Eraser(archive).response(response).restarted == (round_id,)
    installation.configure(reward={"learning_rate": 1e30})  # fails soon
    record = run_round(installation.settings, installation.redis, round_id, owner="test:1")
    assert record is not None and (record.state, record.restarts) == ("failed", 1)
    assert sorted(path.name for path in installation.settings.rounds_dir.iterdir()) == ["000001.1"]
    assert sorted(path.name for path in installation.settings.policies_dir.iterdir()) == ["000000"]
    counted = record.metrics["collect"]
    rankings = data.metrics["rankings"] + data.metrics["held_out_rankings"]
    assert counted["rankings"] + counted["held_out_rankings"] == rankings - 1


def test_data_is_collected_again_when_some_was_erased_meanwhile(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = rounds.installation
    installation.speak(24)
    archive, seen = Archive(installation.ledger), []

    def slow(ledger: Ledger, **options: Any) -> TrainingData:
        data = collect(ledger, **options)
        seen.append("c0-5-a" in data.responses)
        if len(seen) == 1:
            response = archive.response("c0-5-a")
            assert response is not None
            assert Eraser(archive).response(response).restarted == ()
        return data

    monkeypatch.setattr("training.round.stages.collect", slow)
    _, outcomes = rounds.run(last="collect")
    assert (outcomes["collect"].state, seen) == ("done", [True, False])


def test_first_outcome_of_a_stage_counts(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 1)
    workspace.attempt("ppo", 1)
    workspace.attempt("ppo", 2)
    assert workspace.settle("ppo", Outcome(state="done", token=2)).token == 2
    assert workspace.settle("ppo", Outcome(state="failed", token=1, reason="late")).token == 2
    assert workspace.output("ppo").name == "0002"
    assert sorted(path.name for path in (tmp_path / "000001/ppo").iterdir()) == ["0001", "0002", "done.json"]


def test_config_of_a_round_is_the_one_it_began_with(rounds: Rounds) -> None:
    rounds.installation.speak(24)
    round_id, _ = rounds.run(last="collect")
    rounds.installation.configure(nonsense=1)
    assert rounds.stage("sft", round_id, 1).state == "done"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [({"ppo": {"iteration": 3}}, "ppo.iteration"), ({"gate": {"prompts": 1}}, "prompts: at least 2")],
)
def test_wrong_config_fails_the_round_by_name(rounds: Rounds, overrides: dict[str, object], reason: str) -> None:
    rounds.installation.speak(24)
    rounds.installation.configure(**overrides)
    _, outcomes = rounds.run()
    assert outcomes["collect"].state == "failed"
    assert reason in outcomes["collect"].reason
    assert "\n" not in outcomes["collect"].reason


@pytest.mark.parametrize("installed", [False, True])
def test_vllm_that_ppo_insists_on_and_cannot_have_fails_the_round_before_it_trains(
    installed: bool, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not installed, or not for several processes."""
    rounds.installation.speak(24)
    rounds.installation.configure(ppo={"sampler": "vllm"})
    monkeypatch.setattr("training.ppo.vllm_needed.find_spec", lambda name: name if installed else None)
    monkeypatch.setattr("training.round.torch_stages.process_count", lambda *_: 2)
    _, outcomes = rounds.run()
    *_, (stage, outcome) = outcomes.items()
    assert (stage, outcome.state) == ("reward" if installed else "collect", "failed")
    assert outcome.reason is not None and outcome.reason.startswith('ppo.sampler is "vllm", ')


def test_weights_that_diverge_fail_the_round(rounds: Rounds) -> None:
    rounds.installation.speak(24)
    rounds.installation.configure(reward={"learning_rate": 1e30})
    _, outcomes = rounds.run()
    assert list(outcomes) == ["collect", "sft", "reward"]
    assert outcomes["reward"].state == "failed"
    assert outcomes["reward"].reason.startswith("reward: ")
    assert rounds.installation.published() == []


def test_a_policy_that_collapses_is_refused_with_the_reason(rounds: Rounds) -> None:
    """Steps far too long, with nothing that holds the policy near its reference."""
    installation = rounds.installation
    installation.speak(24)
    wild = {"learning_rate": 1.0, "kl_coef": 0.0, "max_kl_step": 1e9, "max_grad_norm": 1e9, "collapse_kl": 2.0}
    installation.configure(ppo=wild)
    round_id, _ = rounds.run(last="reward")
    record = run_round(installation.settings, installation.redis, round_id, owner="test:1")
    assert record is not None and record.state == "refused"
    assert record.reason is not None
    assert record.reason.startswith("ppo: KL to the reference is ")
    assert record.reason.endswith(", at most 2")
    assert installation.published() == []
    curves = Curves.model_validate(record.metrics["ppo"]["curves"])
    assert curves.kl[-1] > 2.0 >= max(curves.kl[:-1])
    assert len(curves.iterations) == len(iterations(rounds.workspace(round_id).output("ppo"))) < 6


def test_other_adapter_shape_fails_with_a_hint(rounds: Rounds) -> None:
    with_a_first_version(rounds)
    rounds.installation.speak(24, seed=1)
    rounds.installation.configure(ppo={"lora_rank": 4}, sft={"lora_rank": 4}, reward={"lora_rank": 4})
    _, outcomes = rounds.run()
    assert outcomes["reward"].state == "failed"
    assert "were the lora fields of the config changed?" in outcomes["reward"].reason


def test_a_reward_model_that_is_right_no_oftener_than_a_coin_ends_the_round_before_ppo(rounds: Rounds) -> None:
    rounds.installation.speak(24)
    reward = {"learning_rate": 1e-9, "held_out_fraction": 0.5}
    rounds.installation.configure(gate={"min_held_out_accuracy": 0.9}, reward=reward)
    _, outcomes = rounds.run()
    assert (outcomes["reward"].state, "ppo" in outcomes) == ("refused", False)
    found = outcomes["reward"].metrics["held_out"]["accuracy"]["mean"]
    assert outcomes["reward"].reason == f"reward: reward model accuracy is {found:.3g}, threshold 0.9"


@pytest.mark.parametrize("flipped", [False, True])
def test_a_reward_model_worse_than_the_last_ends_the_round(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch, flipped: bool
) -> None:
    """Flipped, the second round's learns the opposite of what people say of the prompts that are held out."""
    installation = rounds.installation
    learning = {"learning_rate": 1e-2, "epochs": 3, "held_out_fraction": 0.3}
    installation.configure(reward=learning)
    installation.speak(48)
    first, outcomes = rounds.run()
    metrics = outcomes["reward"].metrics
    assert (metrics["change"], metrics["no_change"]) == (None, "there is no reward model to go on from")
    assert metrics["temperature"] == 1
    assert installation.registry.manifest(1).metrics["reward"] == metrics
    rounds.end(first, "published")
    installation.speak(120, seed=1)
    installation.configure(gate={"max_log_loss_rise": 0.0}, reward=learning)

    def flipping(
        config: RewardConfig, trunk: Trunk, rankings: Sequence[RankedSamples], *ratings: Any, **options: Any
    ) -> RewardReport:
        said = [replace(ranking, tiers=ranking.tiers[::-1]) for ranking in rankings] if flipped else rankings
        return train_reward_model(config, trunk, said, *ratings, **options)

    monkeypatch.setattr("training.round.torch_stages.train_reward_model", flipping)
    _, outcomes = rounds.run(last="reward")
    outcome = outcomes["reward"]
    change = Change.model_validate(outcome.metrics["change"])
    fit = Fit.model_validate(outcome.metrics["held_out"])
    assert (change.version, change.worse) == (1, flipped)
    assert fit.raters[0].name == "r"
    assert 6 <= change.prompts == fit.prompts  # what trained once proves nothing later: the comparison is fair
    assert outcome.state == ("refused" if flipped else "done")
    if flipped:
        assert outcome.reason.startswith("reward: log-loss over that of policy-v1's reward model, lower bound is ")
        assert outcome.reason.endswith(", threshold 0")


def test_a_reward_model_is_held_against_the_last_each_by_its_own_width_of_ties(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths, seen = iter((0.25, 0.75)), []

    def tied(*args: Any, **options: Any) -> RewardReport:
        return replace(train_reward_model(*args, **options), tie_width=next(widths))

    def comparing(*args: Any, labels: Labels, old_labels: Labels, **options: Any) -> Change | None:
        seen.extend((each.ties, each.tie_width.item()) for each in (labels, old_labels))
        return compare(*args, labels=labels, old_labels=old_labels, **options)

    monkeypatch.setattr("training.round.torch_stages.train_reward_model", tied)
    monkeypatch.setattr("training.round.torch_stages.compare", comparing)
    rounds.installation.configure(reward={"ties": "rao_kupper"})
    installation = with_a_first_version(rounds)
    installation.speak(24, seed=1)
    rounds.run(last="reward")
    assert seen == [("rao_kupper", 0.75), ("rao_kupper", 0.25)]


def test_scale_and_heads_go_on_from_version_to_version(rounds: Rounds) -> None:
    """One head becomes three; the scores of the training completions stay as far apart, prompt by prompt."""
    installation = with_a_first_version(rounds)
    installation.speak(24, seed=1)
    installation.configure(reward={"reward_heads": 3}, ppo={"uncertainty_coef": 0.5})
    second, outcomes = rounds.run()
    assert installation.published() == [1, 2]
    assert outcomes["ppo"].metrics["last"]["objective/uncertainty"] > 0
    data = TrainingData.model_validate_json((rounds.workspace(second).output("collect") / DATA).read_text())
    config = RoundConfig.from_dict(data.config).reward
    trained = [Sample(r.prompt_ids, c) for r in data.rankings for c in r.completions]
    spreads, temperatures = [], []
    for version in (1, 2):
        trunk = Trunk.load(installation.registry.manifest(0).model_path, config, reward_heads=3)
        trunk.load_adapter("reward", installation.registry.directory(version) / "reward")
        temperatures.append(trunk.temperature)
        scores = torch.tensor(Scorer(trunk, [], config).all(trained)).view(-1, 2)  # of each comparison
        spreads.append((scores[:, 0] - scores[:, 1]).square().mean().sqrt().item())
    assert spreads[1] == pytest.approx(spreads[0], rel=1e-3)
    assert temperatures == [1, outcomes["reward"].metrics["temperature"]] != [1, 1]


def test_whole_layers_go_on_from_the_last_versions_adapter(rounds: Rounds) -> None:
    installation = with_a_first_version(rounds)
    installation.speak(24, seed=1)
    installation.configure(reward={"trains": "full"})
    second, outcomes = rounds.run()
    assert outcomes["reward"].metrics["change"]["version"] == 1
    assert outcomes["publish"].state == "done"
    layers = installation.registry.directory(2) / "reward/layers.safetensors"
    assert installation.registry.manifest(2).lineage["reward_model"] == sha256_of(layers)
    assert layers.read_bytes() == (rounds.workspace(second).output("reward") / "reward/layers.safetensors").read_bytes()
    rounds.end(second, "published")
    installation.speak(24, seed=2)
    _, outcomes = rounds.run(last="reward")
    assert outcomes["reward"].metrics["change"]["version"] == 2


def test_imported_text_is_encoded_by_the_base_models_chat_template(rounds: Rounds) -> None:
    """Byte by byte, with the template's control tokens, and left out where text would become one of them."""
    installation = rounds.installation
    imported = [
        Completion(
            id=f"i{n}:0", response_id=f"i{n}", choice=0, conversation_id="import:x", rater="imported_train_x",
            messages=(Message(role="user", content="hi"),), text=text, prompt_token_ids=(), completion_token_ids=(),
            logprobs=(), sampling={}, finish_reason="stop", policy_version=None, created=0.0,
        )
        for n, text in enumerate(["yes", "no"])
    ]  # fmt: skip
    for answer in imported:
        installation.ledger.append_answer(answer.frame(model="m"), [answer])
    installation._say(Comparison(left="i0:0", right="i1:0", winner="left"))
    installation.speak(24)
    round_id, outcomes = rounds.run(last="collect")
    assert outcomes["collect"].metrics["unencodable"] == 0
    data = TrainingData.model_validate_json((rounds.workspace(round_id).output("collect") / DATA).read_text())
    tokenizer = AutoTokenizer.from_pretrained(installation.registry.manifest(0).model_path)
    decoded = {
        (tokenizer.decode(ranked.prompt_ids), *map(tokenizer.decode, ranked.completions))
        for ranked in (*data.rankings, *data.held_out_rankings)
    }
    assert ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "yes<|im_end|>", "no<|im_end|>") in decoded
