import random
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as Gone

from feedback.durability import LedgerNotDurable
from feedback.judgements import Feedback, Judgement, Rating
from feedback.records import Completion, new_id
from feedback.store import Conflict, Ledger, connect
from tests.conftest import ValkeyProcess, own_valkey


def make_feedback(judgement: Judgement, rater: str = "r") -> Feedback:
    return Feedback(id=new_id("fb_"), judgement=judgement, rater=rater, split="train", created=1.0)


def make_completion(id: str) -> Completion:
    return Completion.model_validate(
        dict(id=id, response_id="c", choice=0, conversation_id="v", rater="r",
             messages=[{"role": "user", "content": "a\u2028b\x00 🦀"}], text="hi", prompt_token_ids=[1],
             completion_token_ids=[5, 2], logprobs=[-0.1, -0.2], sampling={"temperature": 1.0}, finish_reason="stop",
             policy_version=3, created=1.5)
    )  # fmt: skip


@pytest.fixture
def ledger(valkey_url: str) -> Ledger:
    return Ledger(connect(valkey_url))


def test_completions_come_back_as_they_went_in(ledger: Ledger) -> None:
    first, second = make_completion("c:0"), make_completion("c:1")
    ledger.append_answer(first.frame(model="m"), [first, second])
    assert ledger.completions(("c:1", "missing", "c:0")) == {"c:0": first, "c:1": second}
    assert ledger.completion_ids() == ["c:0", "c:1"]


def test_the_same_completion_again_changes_nothing(ledger: Ledger) -> None:
    first, other = make_completion("c:0"), make_completion("c:0").model_copy(update={"text": "other"})
    ledger.append_answer(first.frame(model="m"), [first])
    ledger.append_answer(other.frame(model="m"), [other, make_completion("c:1")])
    ledger.append_answer(first.frame(model="m"), [first])
    assert ledger.completion_ids() == ["c:0", "c:1"]
    assert ledger.completions(("c:0",)) == {"c:0": first}


def test_the_same_judgement_again_is_the_same_feedback(ledger: Ledger) -> None:
    first = ledger.append_feedback(make_feedback(Rating(completion_id="c", value=1)), client_id="k")
    again = ledger.append_feedback(make_feedback(Rating(completion_id="c", value=1)), client_id="k")
    without_key = ledger.append_feedback(make_feedback(Rating(completion_id="c", value=1)))
    assert first.status == "created"
    assert again == without_key == (first.id, 1, "same")
    assert len(list(ledger.feedback_between("0"))) == 1


def test_a_changed_judgement_is_a_revision_and_the_last_one_stands(ledger: Ledger) -> None:
    up = ledger.append_feedback(make_feedback(Rating(completion_id="c", value=1)))
    before = ledger.watermark()
    down = ledger.append_feedback(make_feedback(Rating(completion_id="c", value=-1)))
    assert (down.revision, down.status) == (2, "revised")
    assert [f.id for f in ledger.standing(before)] == [up.id]
    assert [f.id for f in ledger.standing(ledger.watermark())] == [down.id]
    assert len(list(ledger.feedback_between("0"))) == 2
    assert [kept.feedback.id for kept in ledger.kept([up.id])] == [up.id]


def test_what_stands_no_more_is_not_revived_by_its_client_id(ledger: Ledger) -> None:
    up, down = make_feedback(Rating(completion_id="c", value=1)), make_feedback(Rating(completion_id="c", value=-1))
    ledger.append_feedback(up, client_id="up")
    ledger.append_feedback(down, client_id="down")
    assert ledger.append_feedback(up, client_id="up") == (up.id, 1, "replaced")
    assert ledger.append_feedback(down, client_id="down") == (down.id, 2, "same")
    ledger.retract(down.id)
    before = ledger.watermark()
    assert ledger.append_feedback(down, client_id="down") == (down.id, 2, "retracted")
    assert ledger.append_feedback(up, client_id="up") == (up.id, 1, "replaced")
    assert (ledger.watermark(), ledger.standing(before)) == (before, [])


def test_a_client_id_cannot_be_used_for_something_else(ledger: Ledger) -> None:
    ledger.append_feedback(make_feedback(Rating(completion_id="c", value=1)), client_id="k")
    with pytest.raises(Conflict):
        ledger.append_feedback(make_feedback(Rating(completion_id="c", value=-1)), client_id="k")
    other_rater = make_feedback(Rating(completion_id="c", value=-1), rater="s")
    assert ledger.append_feedback(other_rater, client_id="k").status == "created"
    assert len(list(ledger.feedback_between("0"))) == 2


def test_fifty_at_once_make_one(ledger: Ledger) -> None:
    results = []

    def post() -> None:
        results.append(ledger.append_feedback(make_feedback(Rating(completion_id="c", value=1)), client_id="k"))

    threads = [threading.Thread(target=post) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.status for r in results].count("created") == 1
    assert len({r.id for r in results}) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("rs"), st.sampled_from("abc"), st.sampled_from([1.0, -1.0, 0.5])), max_size=20)
)
def test_standing_agrees_with_a_dict(ledger: Ledger, votes: list[tuple[str, str, float]]) -> None:
    ledger.redis.flushdb()
    expected: dict[tuple[str, str], float] = {}
    for rater, completion, value in votes:
        ledger.append_feedback(make_feedback(Rating(completion_id=completion, value=value), rater=rater))
        expected[rater, completion] = value
    standing = ledger.standing(ledger.watermark())
    assert {(f.rater, f.judgement.completion_id): f.judgement.value for f in standing} == expected  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"appendonly": "no"}, "without AOF"), ({"maxmemory-policy": "allkeys-lru"}, "evict feedback")],
)
def test_refuses_a_server_that_would_lose_feedback(options: dict[str, str], message: str) -> None:
    with own_valkey(**options) as server, pytest.raises(LedgerNotDurable, match=message):
        Ledger(connect(server.url))


def test_everysec_is_made_durable_by_waitaof() -> None:
    with own_valkey(appendfsync="everysec") as server:
        ledger = Ledger(connect(server.url))
        ledger.append_feedback(make_feedback(Rating(completion_id="c", value=1)))
        server.kill()
        server.start()
        assert len(list(Ledger(connect(server.url)).feedback_between("0"))) == 1


@pytest.mark.parametrize("older", [{}, {"rename-command": "WAITAOF UNKNOWN"}])
def test_a_server_that_comes_back_with_other_settings_acknowledges_nothing_it_would_lose(older: dict[str, str]) -> None:
    """Nobody has looked at its settings since; one too old for WAITAOF must fsync always."""
    with own_valkey(**older) as server:
        ledger = Ledger(connect(server.url))
        assert ledger.append_feedback(make_feedback(Rating(completion_id="a", value=1))).status == "created"
        for changed in ({"appendfsync": "no"}, {"appendfsync": "always", "appendonly": "no"}):
            server.kill()
            server.options |= changed
            server.start()
            with pytest.raises(LedgerNotDurable):
                ledger.append_feedback(make_feedback(Rating(completion_id="b", value=1)))


def test_a_check_finds_out_how_the_server_that_is_there_now_proves_its_writes() -> None:
    with own_valkey(**{"rename-command": "WAITAOF UNKNOWN"}) as server:
        ledger = Ledger(connect(server.url))
        server.kill()
        del server.options["rename-command"]
        server.options["appendfsync"] = "everysec"
        server.start()
        ledger.check()
        assert ledger.append_feedback(make_feedback(Rating(completion_id="a", value=1))).status == "created"


@pytest.fixture
def never_fsynced() -> Iterator[ValkeyProcess]:
    """A server that takes writes and leaves it to the system when they reach the disk."""
    with own_valkey(appendfsync="no") as server:
        yield server


def test_without_fsync_nothing_is_acknowledged_however_many_share_the_connections(never_fsynced: ValkeyProcess) -> None:
    ledger = Ledger(connect(never_fsynced.url))
    done, acknowledged = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            ledger.watermark()

    def write(worker: int) -> None:
        with suppress(LedgerNotDurable):
            ledger.append_feedback(make_feedback(Rating(completion_id="c", value=1), rater=str(worker)))
            acknowledged.append(worker)
        with suppress(LedgerNotDurable):
            answer = make_completion(f"c{worker}")
            ledger.append_answer(answer.frame(model="m"), [answer])
            acknowledged.append(worker)

    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(12)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert len(list(ledger.feedback_between("0"))) == len(ledger.completion_ids()) == 12
    assert acknowledged == []


@pytest.mark.parametrize("client_id", [None, "k"])
def test_repeat_waits_for_the_first_ones_fsync(never_fsynced: ValkeyProcess, client_id: str | None) -> None:
    """Each time over a connection that has written nothing before."""
    for _ in range(2):
        with pytest.raises(LedgerNotDurable):
            vote = make_feedback(Rating(completion_id="c", value=1))
            Ledger(connect(never_fsynced.url)).append_feedback(vote, client_id=client_id)
        with pytest.raises(LedgerNotDurable):
            answer = make_completion("c")
            Ledger(connect(never_fsynced.url)).append_answer(answer.frame(model="m"), [answer])


def test_kill_9_under_load_loses_nothing_acknowledged(valkey: ValkeyProcess) -> None:
    acknowledged: list[str] = []
    lock = threading.Lock()

    def write(worker: int) -> None:
        ledger = Ledger(connect(valkey.url))
        for number in range(100_000):
            feedback = make_feedback(Rating(completion_id=f"c{number}", value=1), rater=str(worker))
            try:
                ledger.append_feedback(feedback)
            except Gone:
                return
            with lock:
                acknowledged.append(feedback.id)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    target = random.Random(0).randint(300, 900)
    while len(acknowledged) < target:
        threads[0].join(timeout=0.01)
    valkey.kill()
    for thread in threads:
        thread.join()
    valkey.start()
    stored = [f.id for _, f in Ledger(connect(valkey.url)).feedback_between("0")]
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
    assert len(stored) <= len(acknowledged) + len(threads)
