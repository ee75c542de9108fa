"""`ratchet release` on a real Valkey: what it orders, what it shows, and what it refuses in one line."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from feedback.e_values import Balance
from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import Release, ReleaseBook, ReleaseMoved, describe
from feedback.releases.clock import Passed, time_key
from feedback.releases.decisions import Decision
from feedback.releases.guardrails import Guardrail
from feedback.releases.orders import to_replace
from feedback.releases.plan import Plan
from feedback.releases.self_test import KEY, SelfTest, self_test_of
from feedback.releases.start import begin_release
from feedback.settings import load_secrets
from feedback.statistics import Interval
from feedback.store import Ledger, connect
from serving.cli import app
from serving.views.release import bar, rows, waited
from serving.views.release import history as history_table
from serving.views.release_facts import card, facts
from tests.feedback.policies.test_registry import publish

FAILED = {"wanted": 1, "release": 1, "state": "failed", "state_release": 1, "cause": "out of memory"}
DECISION = Decision(
    outcome="undecided", reason="The candidate won 19 of 50 decisive votes, which decides nothing.",
    wins=19, losses=31, ties=4, capped=2, log_e_better=-1.5, log_e_worse=1.2, log_e_standing=0.925,
    log_threshold=3.7, win_rate=Interval(0.38, 0.21, 0.59), thumbs=Interval(-0.021, -0.05, 0.01), still_needed=120,
    sides=Balance(first=26, second=24, rate=Interval(0.52, 0.3, 0.7), log_e=-0.9, alarm=False),
    guardrails=(
        Guardrail(name="errors", verdict="ok", value=0.9, interval=None, limit=1.5, log_e=-2.0, log_e_ok=5.0,
                  candidate=210, stable=1890),
        Guardrail(name="first_token", verdict="unknown", value=None, interval=None, limit=0.405465108, log_e=0.0,
                  log_e_ok=0.0, candidate=0, stable=1),
        Guardrail(name="score", verdict="breached", value=0.75, interval=None, limit=0.5, log_e=9.0, log_e_ok=0.0,
                  candidate=200, stable=1800),
    ),
    raters=11,
)  # fmt: skip


@pytest.fixture
def book(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> ReleaseBook:
    """policy-v0 serves, 1 to 3 are candidates."""
    load_secrets(tmp_path)
    for name, value in {"HOME": str(tmp_path), "REDIS_URL": valkey_url, "PORT": "1"}.items():
        monkeypatch.setenv(f"RATCHET_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    registry = PolicyRegistry(connect(valkey_url), tmp_path / "policies")
    publish(registry, 4)
    registry.point_stable(0, expected=None, actor="a", reason="first")
    return ReleaseBook(registry)


def release(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["release", *arguments])


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result) -> str:
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    return result.stderr.strip()


def proven(book: ReleaseBook, **changes: Any) -> Release:
    """The open release as the controller moves it, with its first weight set."""
    seen = book.open()
    assert seen is not None
    begun = seen.model_copy(update={"state": "canary", "weight": 0.05, "step": 1, **changes})
    return book.move(seen, begun, actor="ratchet", reason="proven")


def watching(*more: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-u", "-m", "serving.cli", "release", "status", "--watch", *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "command",
    [
        "start",
        "status",
        "list",
        "history",
        "promote",
        "pause",
        "resume",
        "abort",
        "rollback",
        "freeze",
        "unfreeze",
        "self-test",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    assert "Usage:" in done(release(command, "--help"))


def test_that_stable_does_not_tie_with_itself_is_told_until_somebody_resets_it(book: ReleaseBook) -> None:
    """The bar: 5.14 of log 100 is more than all of it."""
    done(release("start", "1"))
    assert "self-test" not in done(release("status"))
    assert done(release("self-test")).startswith("ok: [--------------------] 0.00 of 4.61; nobody has decided yet")
    kept = SelfTest(since="5-1", votes=11, wins=11, log_e=5.14, alarm=True)
    book.redis.set(KEY, kept.model_dump_json())
    assert "ALARM: [####################] 5.14 of 4.61; of 11 decisive" in done(release("self-test"))
    assert "ALARM" in done(release("status"))
    assert json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["self-test"].startswith("ALARM: of 11")
    assert json.loads(done(release("self-test", "--reset", "--json")))["alarm"] is False
    assert self_test_of(Ledger(book.redis)) == SelfTest(since=Ledger(book.redis).watermark())
    assert "self-test" not in json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)


def test_a_release_begins_with_steps_a_file_or_the_installations_plan(book: ReleaseBook, tmp_path: Path) -> None:
    said = done(release("start", "1", "--steps", "5%,30m,pause,analysis", "--mode", "assisted"))
    assert said == (
        "release 1: policy-v1, beside policy-v0; assisted: 5% of conversations, wait 30 minutes, wait for an operator, "
        "wait for the votes\n"
    )
    (tmp_path / "release.json").write_text('{"steps": [{"set_weight": 20}], "alpha": 0.1}')
    assert "release 2: policy-v2 in place of policy-v1, beside policy-v0; manual: 20% of c" in done(
        release("start", "2")
    )
    (tmp_path / "plan.json").write_text('{"max_votes": 100}')
    done(release("start", "2", "--plan", str(tmp_path / "plan.json"), "--steps", "1%"))
    plans = [each.plan for each in reversed(book.latest())]
    assert [(len(plan.steps), plan.alpha, plan.max_votes) for plan in plans] == [
        (4, 0.05, 4000), (1, 0.1, 4000), (1, 0.05, 100),
    ]  # fmt: skip
    opened = book.open()
    assert opened is not None and opened.actor.startswith("cli:")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("9",), "policy-v9 does not exist"),
        (("0",), "policy-v0 is stable: it cannot be released"),
        (("1", "--steps", "5%,soon"), "steps: 'soon' is no step; 5% is a weight"),
        (("1", "--expect", "3"), "no release is open"),
        (("1", "--plan", "plan.json"), "plan.json: step: there is no such field"),
        (("1", "--plan", "broken.json"), "broken.json is no plan"),
    ],
)
def test_what_cannot_begin_is_one_line(
    book: ReleaseBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text('{"step": []}')
    Path("broken.json").write_text("{")
    assert told in refused(release("start", *arguments))
    assert book.open() is None


def test_who_expects_another_release_replaces_none(book: ReleaseBook) -> None:
    done(release("start", "1", "--expect", "0"))
    for expected in ("0", "7"):
        told = refused(release("start", "2", "--expect", expected))
        assert told == "ratchet: release 1 is open: pending, step 1 of 2, policy-v1 at 0%"
    done(release("start", "2", "--expect", "1"))
    assert [each.state for each in book.latest()] == ["pending", "replaced"]


def test_it_is_paused_resumed_and_passed_on(book: ReleaseBook) -> None:
    assert refused(release("pause")) == "ratchet: no release is open"
    done(release("start", "1", "--steps", "5%,30m,25%,pause,analysis"))
    proven(book)
    assert done(release("pause", "--reason", "lunch")) == "release 1: paused, step 2 of 5, policy-v1 at 5%\n"
    again = "ratchet: release 1 is paused already: paused, step 2 of 5, policy-v1 at 5%"
    assert refused(release("pause")) == again
    assert done(release("resume", "1")) == "release 1: canary, step 2 of 5, policy-v1 at 5%\n"
    assert refused(release("resume")) == "ratchet: release 1 is not paused: canary, step 2 of 5, policy-v1 at 5%"
    assert done(release("promote")) == "release 1: canary, step 3 of 5, policy-v1 at 5%\n"
    told = refused(release("abort", "--revision", "2"))
    assert told == "ratchet: release 1 has changed since revision 2: canary, step 3 of 5, policy-v1 at 5%"
    assert done(release("abort", "--revision", "4", "--reason", "no [good]")) == "release 1: aborted\n"
    assert refused(release("resume", "1")) == "ratchet: release 1 is over: aborted"
    lines = json.loads(done(release("history", "--json")))
    assert [(line["is"], line["reason"]) for line in lines[2:4]] == [
        ("paused, step 2 of 5, policy-v1 at 5%", "lunch"),
        ("canary, step 2 of 5, policy-v1 at 5%", "resumed by hand"),
    ]
    assert "no [good]" in done(release("history", "1"))
    assert refused(release("history", "9")) == "ratchet: there is no release 9"


def test_who_paused_it_is_told_and_a_step_that_waits_is_no_pause_by_hand(book: ReleaseBook) -> None:
    done(release("start", "1", "--steps", "5%,pause,25%"))
    begun = proven(book)
    done(release("pause", "--reason", "[lunch]"))
    paused = book.open()
    assert paused is not None and paused.paused_by.startswith("cli:")
    told = dict(rows(card(paused)))
    assert told["state"].startswith("paused, step 2 of 3")
    assert told["next"].endswith(f" by {paused.paused_by}: [lunch]; `ratchet release resume` goes on")
    assert "[lunch]" in done(release("status"))
    book.move(paused, begun.paused_now(1.0), actor="controller", reason="so")
    waiting = book.open()
    assert waiting is not None and (waiting.paused_by, waiting.waiting) == ("", True)
    told = dict(rows(card(waiting)))
    assert told["state"].startswith("waiting, step 2 of 3")
    assert told["next"].startswith("its plan waits for an operator since ")


def test_past_the_last_step_it_says_what_comes_next(book: ReleaseBook) -> None:
    """At once, not only from the controller's next look on."""
    done(release("start", "1", "--steps", "5%,analysis"))
    proven(book)
    book.redis.set("release:1:decision", DECISION.model_dump_json())
    state, then = done(release("promote")).splitlines()
    assert state == "release 1: proposed, step 2 of 2, policy-v1 at 5%"
    assert then == "all steps are taken: `ratchet release promote` lets it serve, `ratchet release abort` does not"
    proposed = book.open()
    assert proposed is not None
    told = dict(rows(facts(book.redis, proposed)))
    assert told["next"] == then and "forecast" not in told
    asked = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert asked["open release"] == f"1 (proposed, step 2 of 2, policy-v1 at 5%), {then}"
    by_itself = card(proposed.model_copy(update={"mode": "automatic"}))
    assert "it is promoted by itself" in dict(rows(by_itself))["next"]


@pytest.mark.parametrize("state", ["promoted", "aborted", "rolled_back"])
def test_what_a_hand_ended_was_not_decided_by_the_votes(book: ReleaseBook, state: Any) -> None:
    done(release("start", "1"))
    ended = book.end(proven(book), state, actor="ann", reason="by hand", decision=DECISION)
    told = dict(rows(card(ended, ended.decision)))
    assert "decided by" not in told
    assert told["votes then"] == "The candidate had won 19 of 50 decisive votes, which decided nothing."
    better = DECISION.model_copy(update={"outcome": "promote", "reason": "The candidate is better."})
    told = dict(rows(card(ended, better)))
    assert told["decided by" if state == "promoted" else "votes then"] == "The candidate is better."


def test_of_what_is_over_no_step_is_under_way(book: ReleaseBook) -> None:
    done(release("start", "1", "--steps", "5%,30m,analysis"))
    ended = book.end(proven(book), "promoted", actor="ann", reason="by hand")
    assert [step["state"] for step in card(ended)["steps"]] == ["taken", "not taken", "not taken"]
    assert "->" not in dict(rows(card(ended)))["steps"]


def test_the_history_does_not_say_twice_what_became_and_names_who_took_the_place(book: ReleaseBook) -> None:
    done(release("start", "1"))
    seen = book.open()
    assert seen is not None
    canary = seen.model_copy(update={"state": "canary"})
    begun = book.move(seen, canary, actor="controller", reason=f"an engine holds it: {describe(canary)}")
    book.move(begun, begun.skipped(5.0), actor="controller", reason=describe(begun.skipped(5.0)))
    done(release("start", "2", "--reason", "newer"))
    assert [row[4] for row in history_table(book.history()).rows] == [
        "started by hand", "an engine holds it", "", "release 2 of policy-v2 took its place: newer", "newer",
    ]  # fmt: skip
    [_, over] = book.latest()
    assert over.why == "release 2 of policy-v2 took its place"


def test_a_rollback_leaves_the_candidate_as_worse(book: ReleaseBook) -> None:
    done(release("start", "1"))
    assert done(release("rollback")) == "release 1: rolled back\n"
    assert (book.registry.stable(), book.registry.states()[1]) == (0, "rolled_back")


def test_a_full_promotion_moves_the_pointer_and_waits_until_it_serves(
    book: ReleaseBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.commands.policies.served_version", lambda settings: book.registry.stable())
    done(release("start", "1"))
    assert refused(release("promote")).startswith("ratchet: release 1 is pending: no engine holds policy-v1 yet")
    said = done(release("promote", "--full")).splitlines()
    assert said[0] == "release 1: promoted"
    assert said[1].startswith("policy-v1 serves after ")
    assert (book.registry.stable(), book.open()) == (1, None)


def test_frozen_releases_are_told_of(book: ReleaseBook) -> None:
    assert done(release("freeze")).startswith("releases are frozen")
    assert json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["releases"] == "frozen"
    done(release("start", "1"))
    assert done(release("unfreeze")) == "releases go on\n"
    book.redis.set("release:1:decision", DECISION.model_dump_json())
    told = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert (told["releases"], told["open release"]) == (
        "on", "1 (pending, step 1 of 2, policy-v1 at 0%), about 120 more votes to a decision",
    )  # fmt: skip
    proven(book, step=2, proposed=True)
    told = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert "votes to a decision" not in told["open release"], "what is proposed waits for somebody, not for votes"


def test_the_screen_says_where_it_is_and_what_is_known(book: ReleaseBook) -> None:
    done(release("start", "1", "--steps", "5%,30m,analysis", "--reason", "[try]"))
    proven(book)
    book.redis.set("release:1:decision", DECISION.model_dump_json())
    book.redis.hset("engine:candidate", mapping=FAILED)
    book.redis.hset(time_key(1), mapping={"0": "60.5", "1": "725.25", "unheld": "120"})
    opened = book.open()
    assert opened is not None
    told = dict(rows(facts(book.redis, opened)))
    assert told.pop("begun").endswith(": [try]")
    assert told == {
        "state": "canary, step 2 of 3, policy-v1 at 5%; manual",
        "steps": "done 5% of conversations\n->   wait 30 minutes\n     wait for the votes",
        "time": "12:05 of 30 minutes in this step\n2:00 of 15 minutes until it is aborted for want of an engine",
        "votes": "19 won, 31 lost, 4 tied, of all raters; 2 beyond what one rater may say",
        "voters": "11 voted; 0 who may vote were known when it began",
        "win rate": "38.0% (21.0% to 59.0%)",
        "evidence": "[#####---------------] 0.93 of 3.70 for stable",
        "forecast": "about 120 more votes to a decision",
        "thumbs": "-2.1 points of thumbs up (-5.0 to +1.0)",
        "errors": "ok: 0.90 times stable's, at most 1.50; 210 conversations beside 1,890",
        "first token": "unknown: at most 1.50; 0 conversations beside 1",
        "score": "breached: lower by 0.75; allowed: lower by at most 0.50; 200 conversations beside 1,800",
        "engine": "policy-v1, failed: out of memory",
        "so far": "The candidate won 19 of 50 decisive votes, which decides nothing.",
    }
    shown = done(release("status"))
    assert "policy-v1 beside policy-v0" in shown
    assert all(line.strip() in shown for value in told.values() for line in value.splitlines())
    assert json.loads(done(release("status", "1", "--json")))["votes"]["won"] == 19
    assert "5%,30m,analysis" in done(release("list"))
    book.redis.set("release:1:decision", DECISION.model_copy(update={"log_e_standing": -0.4}).model_dump_json())
    against = dict(rows(facts(book.redis, opened)))["evidence"]
    assert against.startswith("[--------------------] 0.00 of 3.70"), "what speaks against it is no evidence for it"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ["1:40:00 of 2 hours until it ends undecided"]),
        ({"step": 3, "proposed": True}, []),  # an operator may take their time
        (
            {"step": 3, "proposed": True, "mode": "automatic", "by_votes": True},
            ["1:40:00 of 2 hours until it ends undecided"],
        ),
    ],
)
def test_a_deadline_is_told_while_it_may_pass(book: ReleaseBook, changes: dict[str, Any], told: list[str]) -> None:
    done(release("start", "1"))
    plan = Plan(deadline=7200.0)
    shown = card(proven(book, **{"plan": plan, "step": 1, **changes}), time=Passed(in_step=3000.0, in_all=6000.0))
    assert waited(shown) == told


@pytest.mark.parametrize(
    ("verdict", "value", "told"),
    [
        ("unknown", -1.15, "too few yet: higher by 1.15; allowed: lower by at most 0.50; 9 conversations beside 9"),
        ("unknown", None, "unknown: lower by at most 0.50; 9 conversations beside 9"),
        ("ok", 0.2, "ok: lower by 0.20; allowed: lower by at most 0.50; 9 conversations beside 9"),
    ],
)
def test_a_score_is_higher_or_lower_never_lower_by_less_than_nothing(
    book: ReleaseBook, verdict: Any, value: float | None, told: str
) -> None:
    guardrail = Guardrail(
        name="score", verdict=verdict, value=value, interval=None, limit=0.5, log_e=0.0, log_e_ok=0.0, candidate=9,
        stable=9,
    )  # fmt: skip
    done(release("start", "1"))
    opened = book.open()
    assert opened is not None
    shown = dict(rows(card(opened, DECISION.model_copy(update={"guardrails": (guardrail,)}))))
    assert shown["score"] == told


def test_where_none_is_open_status_says_what_becomes_of_the_next_version(
    book: ReleaseBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = "A version that passes its gate serves at once, without a release."
    asked = release("status")
    assert asked.exit_code == 1, "there has been none"
    assert asked.stdout.splitlines() == [
        direct,
        "A release that begins now, if nothing else is asked: manual; 10% of conversations, wait for the votes",
    ]
    begun = done(release("start", "1"))
    assert begun.strip().endswith("manual: 10% of conversations, wait for the votes"), "as it was foretold"
    assert direct not in done(release("status"))
    done(release("abort"))
    assert done(release("status")).startswith(direct)
    assert direct not in done(release("status", "1"))
    assert json.loads(done(release("status", "--json")))["state"] == "aborted"
    monkeypatch.setenv("RATCHET_RELEASE_MODE", "assisted")
    (tmp_path / "release.json").write_text('{"alpha": 2}')
    says, why = done(release("status")).splitlines()[:2]
    assert says == (
        "A version that passes its gate waits for an operator: by itself no release begins while the plan is broken."
    )
    assert why.startswith(f"No release can begin by the installation's plan: {tmp_path}/release.json: alpha: ")


def test_what_is_over_says_why(book: ReleaseBook) -> None:
    assert "there has been no release yet" in refused(release("status"))
    done(release("start", "1"))
    worse = DECISION.model_copy(update={"outcome": "roll back", "reason": "The candidate is worse: it won 19."})
    ended = book.end(proven(book), "rolled_back", actor="ratchet", reason="It is worse.", decision=worse)
    told = dict(rows(card(ended, ended.decision)))
    assert (told["state"], told["decided by"]) == ("rolled back: It is worse.", worse.reason)
    assert "forecast" not in told
    assert "rolled back: It is worse." in done(release("status")), "the last one, where none is open"


@pytest.mark.parametrize(
    ("share", "drawn"),
    [
        (-1.0, "[" + "-" * 20 + "]"),
        (0.25, "[#####" + "-" * 15 + "]"),
        (1.0, "[" + "#" * 20 + "]"),
        (7.0, "[" + "#" * 20 + "]"),
    ],
)
def test_the_bar_never_leaves_its_frame(share: float, drawn: str) -> None:
    assert bar(share) == drawn


@pytest.mark.parametrize(("state", "code"), [("promoted", 0), ("inconclusive", 3)])
def test_watching_tells_each_change_until_it_ends(book: ReleaseBook, state: Any, code: int) -> None:
    done(release("start", "1"))
    process = watching()
    assert process.stdout is not None
    assert (
        process.stdout.readline()
        == "release 1: pending, step 1 of 2, policy-v1 at 0%: none counted yet, of all raters\n"
    )
    seen = proven(book)
    assert (
        process.stdout.readline()
        == "release 1: canary, step 2 of 2, policy-v1 at 5%: none counted yet, of all raters\n"
    )
    book.redis.set("release:1:decision", DECISION.model_dump_json())
    counted = "19 won, 31 lost, 4 tied, of all raters; 2 beyond what one rater may say"
    assert process.stdout.readline() == f"release 1: {counted}\n", "where it is was told"
    book.end(seen, state, actor="ratchet", reason="so it is")
    rest, _ = process.communicate(timeout=60)
    assert (rest, process.returncode) == (f"release 1: {state}: so it is\n", code)


def test_watching_for_machines_is_a_json_object_for_each_change(book: ReleaseBook) -> None:
    done(release("start", "1"))
    process = watching("--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["state"] == "pending"
    seen = proven(book)
    assert json.loads(process.stdout.readline())["state"] == "canary"
    book.end(seen, "promoted", actor="ratchet", reason="so it is")
    rest, _ = process.communicate(timeout=60)
    assert (json.loads(rest)["state"], process.returncode) == ("promoted", 0)


def test_as_many_releases_are_listed_as_asked_for(book: ReleaseBook) -> None:
    for _ in range(2):
        done(release("start", "1"))
        done(release("abort"))
    assert [each["id"] for each in json.loads(done(release("list", "--json", "--limit", "1")))] == [2]


def test_who_stops_watching_leaves_the_release(book: ReleaseBook) -> None:
    done(release("start", "1"))
    process = watching()
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert (rest, process.returncode) == ("release 1 goes on; see `ratchet release status`\n", 130)
    assert book.open() is not None


def _try_to_start(book: ReleaseBook, candidate: int, ready: threading.Barrier, results: list[Exception | str]) -> None:
    ledger, reason = Ledger(book.redis), threading.current_thread().name
    ready.wait(30)
    try:
        begin_release(
            ledger, book.registry, candidate, Plan(), mode="manual", actor="a", reason=reason,
            seen=to_replace(book, named=True, id=None),
        )  # fmt: skip
        results.append(reason)
    except Exception as error:
        results.append(error)


def test_of_many_who_start_at_once_one_wins(book: ReleaseBook) -> None:
    """The commands as processes are: 12 threads, each expecting that no release is open."""
    results: list[Exception | str] = []
    ready = threading.Barrier(12)
    threads = [
        threading.Thread(target=_try_to_start, args=(book, index % 3 + 1, ready, results)) for index in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    won = [each for each in results if isinstance(each, str)]
    lost = [each for each in results if isinstance(each, ReleaseMoved)]
    assert (len(won), len(lost)) == (1, 11), results
    opened = book.open()
    assert opened is not None and opened.reason == won[0]
    assert all(each.current is None or each.current.id == opened.id for each in lost)
    assert [state for state in book.registry.states().values()].count("canary") == 1
