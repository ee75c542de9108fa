"""Scores of a release's answers: which there are, that repeats change nothing, what they decide, and the process."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from feedback.archive import Archive
from feedback.e_values import Moments
from feedback.erasure import Eraser
from feedback.policies.registry import STATES, PolicyRegistry
from feedback.records import Completion
from feedback.releases.book import Release, ReleaseBook
from feedback.releases.guardrails import Guardrail
from feedback.releases.judge import Judge
from feedback.releases.observations import Observations, Observed, Side, Stratum, guardrails, strata_of
from feedback.releases.plan import Limits, Plan
from feedback.releases.scores import Fresh, ReleaseScores, scoring_version
from feedback.retention import Retention
from feedback.settings import Settings
from feedback.store import COMPLETIONS
from tests.training.offline.test_rm import version
from tests.training.people import CONFIG, People
from training.celery import SCORE_EVERY_S, make_app
from training.model.samples import Sample
from training.offline.reward_models import load_trunk, of_version
from training.release_scores import score_open_release
from training.round.round import Stopped

ON_STABLE: dict[str, Any] = {"arm": "stable", "propensity": 0.75}
ON_CANDIDATE: dict[str, Any] = {"arm": "candidate", "propensity": 0.25}
# What tells a later answer in the same conversation apart.
AGAIN = {"id": "later:0", "response_id": "later"}


class Scored:
    """A release of policy-v2 beside policy-v1, of which only the base is trained, at a weight of a quarter."""

    def __init__(self, people: People) -> None:
        self.people, self.redis, self.ledger = people, people.redis, people.ledger
        self.registry = PolicyRegistry(people.redis, people.settings.policies_dir)
        self.book = ReleaseBook(self.registry)
        version(people, 0, kind="base", parent=None)
        for number in (1, 2):
            version(people, number, kind="trained", parent=number - 1, config=CONFIG.to_dict())
        self.registry.point_stable(1, expected=None, actor="test", reason="test")
        begun = self.book.start(
            2, Plan(), mode="automatic", whose="all", since="0", actor="test", reason="test", seen=None
        )
        changed = begun.model_copy(update={"state": "canary", "weight": 0.25, "step": 1})
        self.release: Release = self.book.move(begun, changed, actor="test", reason="test")

    @property
    def scores(self) -> ReleaseScores:
        """Another worker's each time."""
        return ReleaseScores(self.ledger, self.release, b"salt")

    def teach(self, number: int) -> None:
        """Give a version a reward model, untrained but with a head and so with scores of its own."""
        directory = self.registry.directory(number) / "reward"
        load_trunk(self.people.base, CONFIG.reward, seed=number).save_adapter("reward", directory)

    def answer(self, conversation: str, text: str = "abc", rater: str = "ann", **fields: Any) -> Completion:
        [answer] = self.people.ask(
            conversation, [text], rater, **{"release": self.release.id, **ON_STABLE, "text": text, **fields}
        )
        return answer

    def stratum(self) -> Stratum:
        [found] = strata_of(self.redis, self.release.id)
        return found


@pytest.fixture
def scored(people: People) -> Scored:
    return Scored(people)


def by_hand(*scores: float) -> Moments:
    return Moments.of(*scores)


def verdicts(found: tuple[Guardrail, ...]) -> dict[str, str]:
    return {each.name: each.verdict for each in found}


@pytest.mark.parametrize(
    "fields",
    [
        {"release": None}, {"release": 99}, {"release": None, "arm": None, "propensity": None}, {"propensity": None},
        {"choice": 1}, {"decoy": True},
    ],
)  # fmt: skip
def test_what_chance_put_nowhere_is_no_unit_and_the_next_answer_stands_for_its_conversation(
    scored: Scored, fields: dict[str, Any]
) -> None:
    scored.answer("a", **fields)
    assert scored.scores.fresh().first == {}
    later = scored.answer("a", **AGAIN)
    assert [each.id for each in scored.scores.fresh().scorable] == [later.id]


@pytest.mark.parametrize(
    "fields",
    [
        {"partial": True}, {"text": " \n"}, {"tool_calls": ({"id": "1"},)}, {"consent": False},
        {"completion_token_ids": (), "logprobs": ()},
    ],
)  # fmt: skip
def test_a_conversation_whose_first_answer_cannot_be_scored_has_no_score(
    scored: Scored, fields: dict[str, Any]
) -> None:
    scored.answer("a", **fields)
    fresh = scored.scores.fresh()
    assert (len(fresh.first), fresh.scorable) == (1, [])
    scored.scores.add(fresh, {})
    scored.answer("a", **AGAIN)
    assert scored.scores.fresh().first == {}
    scored.answer("a", rater="bob")
    assert len(scored.scores.fresh().first) == 1, "bob may name his conversations as ann does"
    assert strata_of(scored.redis, scored.release.id) == []


def test_consent_counts_as_of_now(scored: Scored) -> None:
    for name in ("kept", "private", "taken back"):
        scored.answer(name)
    archive = Archive(scored.ledger)
    archive.change_conversation("ann", "private", allow_training=False)
    archive.annotate("ann-taken back-0", {"consent": "false"})
    assert [each.conversation_id for each in scored.scores.fresh().scorable] == ["kept"]


def test_answers_from_before_the_release_are_not_read_again(scored: Scored) -> None:
    """They lie before the cursor, so that the first look at a large ledger is short."""
    scored.answer("a")
    later = scored.release.model_copy(update={"created": scored.release.created + 3600})
    found = ReleaseScores(scored.ledger, later, b"salt").fresh()
    assert (found.first, found.scorable) == ({}, [])
    assert int(found.cursor.removesuffix("-0")) == pytest.approx(later.created * 1000 - 60_000, abs=1)  # whole ms


def test_repeats_and_second_workers_change_nothing(scored: Scored) -> None:
    values = {}
    for name, score, arm in (("a", 1.0, ON_STABLE), ("b", -0.5, ON_CANDIDATE), ("c", 0.25, ON_CANDIDATE)):
        values[scored.answer(name, **arm).id] = score
    fresh, other = scored.scores.fresh(), scored.scores.fresh()
    scored.scores.add(fresh, values)
    expected = Stratum(0.25, Side(score=Moments(2, -0.25, 0.3125)), Side(score=Moments(1, 1.0, 1.0)))
    assert scored.stratum() == expected
    scored.scores.add(fresh, values)
    scored.scores.add(other, dict.fromkeys(values, 7.0))
    assert scored.stratum() == expected
    assert scored.scores.fresh() == Fresh({}, [], fresh.cursor)


def test_runs_go_on_where_the_last_ended_also_after_lost_ones(scored: Scored) -> None:
    """Some runs end before they write, some write late: the sums are those of one run over everything."""
    draw = Random(0)
    answers = [scored.answer(f"{n % 30}", id=f"r{n}:0", response_id=f"r{n}") for n in range(40)]
    values = {answer.id: float(n) for n, answer in enumerate(answers)}
    late: list[Fresh] = []
    while (fresh := scored.scores.fresh(draw.randrange(1, 6))).first:
        assert len(fresh.first) <= 5
        match draw.choice(["written", "lost", "late"]):
            case "written":
                scored.scores.add(fresh, values)
            case "late":
                late.append(fresh)
        if late and draw.random() < 0.3:
            scored.scores.add(late.pop(), values)
    first = [float(n) for n in range(30)]
    assert scored.stratum().stable.score == by_hand(*first)


def test_the_oldest_come_first(scored: Scored) -> None:
    for name in "abc":
        scored.answer(name)
    fresh = scored.scores.fresh(2)
    assert [each.conversation_id for each in fresh.scorable] == ["a", "b"]
    assert fresh.cursor == scored.redis.xrange(COMPLETIONS)[1][0], "what was read is not read again"
    scored.scores.add(fresh, {})
    assert [each.conversation_id for each in scored.scores.fresh(2).scorable] == ["c"]


def test_scores_and_what_else_befell_stand_side_by_side(scored: Scored) -> None:
    release = scored.release.id
    Observations(scored.redis, b"salt").add([Observed(release, "ann", "a", "stable", 0.25, failed=False, tokens=1)])
    answer = scored.answer("a")
    scored.scores.add(scored.scores.fresh(), {answer.id: 2.0})
    assert scored.stratum() == Stratum(0.25, Side(), Side(1, length=Moments(1, 0.0, 0.0), score=Moments(1, 2.0, 4.0)))


def test_scores_that_are_not_finite_are_refused(scored: Scored) -> None:
    answer = scored.answer("a")
    with pytest.raises(ValueError, match="not finite"):
        scored.scores.add(scored.scores.fresh(), {answer.id: float("nan")})
    assert [each.id for each in scored.scores.fresh().scorable] == [answer.id]


def test_nobody_can_be_found_in_what_is_kept(scored: Scored) -> None:
    answer = scored.answer("a-secret")
    scored.scores.add(scored.scores.fresh(), {answer.id: 2.0})
    Eraser(Archive(scored.ledger)).person("ann")
    told = [scored.redis.smembers(f"release:{scored.release.id}:scored")]
    told += [scored.redis.hgetall(f"release:{scored.release.id}:{name}") for name in ("observed", "scoring")]
    assert all(told) and not any(word in str(told) for word in ("secret", "ann", answer.id))
    assert scored.stratum().stable.score == Moments(1, 2.0, 4.0)


def test_what_was_erased_before_is_not_scored(scored: Scored) -> None:
    scored.answer("a")
    Eraser(Archive(scored.ledger)).person("ann")
    assert scored.scores.fresh().first == {}


def side(mean: float, units: int, draw: Random) -> Side:
    return Side(score=by_hand(*(draw.gauss(mean, 1.0) for _ in range(units))))


@pytest.mark.parametrize(
    ("candidate", "verdict"), [(-1.5, "breached"), (-0.5, "unknown"), (0.0, "ok"), (1.5, "ok")]
)  # fmt: skip
def test_a_candidate_may_score_lower_by_the_limit_and_not_by_more(candidate: float, verdict: str) -> None:
    draw = Random(3)
    [*_, found] = guardrails([Stratum(0.25, side(candidate, 300, draw), side(0.0, 900, draw))], Limits())
    assert (found.name, found.verdict, found.limit) == ("score", verdict, 0.5)
    assert (found.candidate, found.stable) == (300, 900)
    assert found.value == pytest.approx(-candidate, abs=0.15)


def test_the_value_is_how_much_lower_the_candidate_scores_by_weight() -> None:
    """By hand: 1 lower in each stratum, whose stable scores differ; 30 of the candidate's 40 are in the second."""
    strata = [
        Stratum(0.1, Side(score=by_hand(*[0.0] * 10)), Side(score=by_hand(*[1.0] * 90))),
        Stratum(0.5, Side(score=by_hand(*[4.0] * 30)), Side(score=by_hand(*[5.0] * 30))),
    ]
    [*_, found] = guardrails(strata, Limits())
    assert found.value == pytest.approx(1.0, abs=1e-12)


def test_without_scores_there_is_no_such_guardrail() -> None:
    assert "score" not in verdicts(guardrails([Stratum(0.5, Side(9), Side(9))], Limits()))


def test_lower_scores_roll_back(scored: Scored) -> None:
    draw, judge = Random(4), Judge(scored.ledger, scored.release, every_s=0.0)
    assert judge.look().outcome == "undecided"
    [template] = scored.people.ask("t", ["abc"], "ann", release=scored.release.id)
    first, values = {}, {}
    for number in range(300):
        arm = ON_CANDIDATE if number % 2 else ON_STABLE
        first[str(number)] = template.model_copy(update={"id": str(number), **arm})
        values[str(number)] = draw.gauss(-2.0 if number % 2 else 0.0, 1.0)
    scored.scores.add(Fresh(first, list(first.values()), "1-0"), values)
    decision = judge.look()
    assert (decision.outcome, decision.reason) == ("roll back", "The candidate breaks a guardrail: score.")
    assert verdicts(decision.guardrails)["score"] == "breached"


def test_stables_reward_model_scores_else_the_newest_but_never_the_candidates_own(scored: Scored) -> None:
    """The candidate was taught by its own to please it."""
    scored.teach(2)
    assert scoring_version(scored.registry, scored.release) is None
    for number in (3, 4):
        version(scored.people, number, kind="trained", parent=1, config=CONFIG.to_dict())
    scored.teach(3)
    assert scoring_version(scored.registry, scored.release) == 3
    scored.teach(1)
    assert scoring_version(scored.registry, scored.release) == 1
    scored.redis.hset(STATES, "1", "deleted")
    assert scoring_version(scored.registry, scored.release) == 3


def test_one_reward_model_scores_all_of_a_release_and_stays_for_so_long(scored: Scored) -> None:
    assert scored.scores.version(scored.registry) is None
    version(scored.people, 3, kind="trained", parent=1, config=CONFIG.to_dict())
    scored.teach(3)
    assert 3 not in Retention(scored.registry).needed()
    assert scored.scores.version(scored.registry) == 3
    scored.teach(1)
    assert scored.scores.version(scored.registry) == 3
    assert Retention(scored.registry).needed()[3] == "its reward model scores release 1"
    scored.book.end(scored.release, "aborted", actor="test", reason="test")
    assert 3 not in Retention(scored.registry).needed()


class Started:
    """Children that are counted, and are others than they ought to be."""

    def __init__(self, code: str) -> None:
        self.code, self.children = code, list[subprocess.Popen[bytes]]()
        self.arguments: list[tuple[str, ...]] = []

    def __call__(self, settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
        self.arguments.append(arguments)
        self.children.append(subprocess.Popen([sys.executable, "-c", self.code]))
        return self.children[-1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Of children that live until they are ended."""
    found = Started("import time; time.sleep(600)")
    monkeypatch.setattr("training.release_scores.start_child", found)
    yield found
    for child in found.children:
        child.kill()
        child.wait()


def look(scored: Scored, *, stopping: bool = False) -> None:
    stop = threading.Event()
    if stopping:
        stop.set()
    score_open_release(scored.people.settings, scored.redis, stop)


def test_nothing_starts_without_a_reward_model_a_canary_or_an_answer(scored: Scored, started: Started) -> None:
    scored.answer("a", partial=True)
    look(scored)
    assert scored.redis.exists(f"release:{scored.release.id}:scored") == 0, "they wait for a reward model"
    scored.teach(1)
    look(scored)
    assert scored.redis.scard(f"release:{scored.release.id}:scored") == 1, "read, and not again"
    scored.answer("b")
    scored.book.end(scored.release, "aborted", actor="test", reason="test")
    look(scored)
    assert started.arguments == []


def test_a_worker_that_stops_takes_the_process_along(scored: Scored, started: Started) -> None:
    scored.teach(1)
    scored.answer("a")
    with pytest.raises(Stopped):
        look(scored, stopping=True)
    assert started.arguments == [("score", "--release", "1")]
    assert [child.returncode for child in started.children] == [-9]


def test_a_process_that_fails_is_told_and_tried_again(
    scored: Scored, started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    scored.teach(1)
    scored.answer("a")
    started.code = "raise SystemExit(3)"
    look(scored)
    look(scored)
    assert [record.message for record in caplog.records] == ["release 1 could not be scored: exit status 3"] * 2
    assert len(started.arguments) == 2


def test_the_process_scores_as_the_reward_model_does(scored: Scored) -> None:
    scored.teach(1)
    scored.teach(2)
    answers = [scored.answer("a", "zzzz", **ON_CANDIDATE), scored.answer("b", "yx", **ON_CANDIDATE)]
    answers += [scored.answer("c", "Hello, you.")]
    scored.answer("d", partial=True)
    look(scored)
    scorer = of_version(scored.people.settings, scored.redis, 1).scorer()
    a, b, c = scorer.all([Sample(each.prompt_token_ids, each.completion_token_ids) for each in answers])
    found = scored.stratum()
    assert list(found.candidate.score) == pytest.approx([2, a + b, a * a + b * b], abs=1e-5)
    assert list(found.stable.score) == pytest.approx([1, c, c * c], abs=1e-5)
    assert abs(a - c) > 1e-3
    before = found
    look(scored)
    assert scored.stratum() == before


def test_hints_that_waited_behind_a_round_are_dropped(tmp_path: Path) -> None:
    beat = make_app(Settings(home=tmp_path, redis_url="redis://127.0.0.1:1/0")).conf.beat_schedule
    assert beat["score"] == {
        "task": "training.tasks.score", "schedule": SCORE_EVERY_S, "options": {"expires": SCORE_EVERY_S},
    }  # fmt: skip
