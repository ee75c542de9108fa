"""After an erasure nothing is left of what was erased, everything else is, and what learned from it is named."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from feedback.erasure import MARKS_S, Eraser, traces
from feedback.judgements import Comparison, Demonstration, Feedback, Judgement, Rating
from feedback.people.checks import again
from feedback.policies.manifest import Manifest, write_manifest
from feedback.policies.registry import PolicyRegistry
from feedback.records import Offer, Slot, new_id
from feedback.store import ERASED, REPEATS, Conflict, erased_at

READERS = {
    "string": lambda redis, key: redis.get(key),
    "hash": lambda redis, key: redis.hgetall(key),
    "set": lambda redis, key: redis.smembers(key),
    "zset": lambda redis, key: redis.zrange(key, 0, -1, withscores=True),
    "list": lambda redis, key: redis.lrange(key, 0, -1),
    "stream": lambda redis, key: redis.xrange(key),
}


def contents(redis: Any) -> dict[str, Any]:
    """Everything in the database, but for what must not come back and a count of repeats."""
    keys = [key for key in redis.scan_iter() if key not in (ERASED, REPEATS) and not key.startswith(erased_at(""))]
    found = {key: READERS[redis.type(key)](redis, key) for key in keys}
    return {key: value for key, value in found.items() if value}


def say(shop: Any, judgement: Judgement, rater: str = "ann", client_id: str | None = None) -> str:
    record = Feedback(id=new_id("fb_"), judgement=judgement, rater=rater, split="train", created=1.0)
    return str(shop.ledger.append_feedback(record, client_id=client_id).id)


@pytest.fixture
def eraser(shop: Any) -> Eraser:
    return Eraser(shop.archive)


def bobs(shop: Any) -> None:
    first = shop.ask(("user", "bob asks"), answer="a", rater="bob", n=2)
    shop.ask(("user", "bob asks"), ("assistant", "a"), ("user", "more"), answer="b", rater="bob")
    say(shop, Rating(completion_id=f"{first.id}:0", value=1), "bob", "once")
    say(shop, Rating(completion_id=f"{first.id}:0", value=-1), "bob")


def anns(shop: Any, theirs: str) -> set[str]:
    """Everything that can be left behind; returns the ids of the judgements."""
    first = shop.ask(("user", "ann asks"), answer="a", n=2, colour="red")
    shop.ask(("user", "ann asks"), ("assistant", "a"), ("user", "more"), answer="b")
    shop.ask(("user", "ann asks"), ("assistant", "a"), ("user", "less"), answer="c")
    shown = shop.ask(("user", "another"), answer="d", conversation="d", id="cmp_1", n=2)
    a, b = first.completion_ids
    for id in (shown.id, "cmp_never_stored"):
        slots = tuple(Slot(completion_id=f"{id}:{slot}", arm="policy") for slot in range(2))
        offer = Offer(id=id, rater="ann", conversation_id="d", slots=slots, propensity=0.5, created=1.0)
        shop.archive.add_offer(offer)
        if id == shown.id:
            shop.archive.add_offer(again(offer, 2.0))
    shop.archive.change_conversation("ann", "c", title="ann's", allow_training=False)
    up = say(shop, Rating(completion_id=a, value=1), client_id="k")
    assert say(shop, Rating(completion_id=a, value=1), client_id="the same again") == up
    down = say(shop, Rating(completion_id=a, value=-1, comment="no"))
    taken_back = say(shop, Demonstration(completion_id=b, content="better"))
    assert shop.ledger.retract(taken_back)
    elsewhere = say(shop, Rating(completion_id=theirs, value=1))
    return {
        up, down, taken_back, elsewhere,
        say(shop, Comparison(left=a, right=b, winner="left", comparison_id="x"), "bob", "k"),
    }  # fmt: skip


def test_after_a_person_is_erased_the_ledger_is_as_if_they_had_never_been(shop: Any, eraser: Eraser) -> None:
    bobs(shop)
    before = contents(shop.ledger.redis)
    judgements = anns(shop, theirs=shop.archive.branches("bob", "c")[0].completion_ids[0])
    assert eraser.judgements("ann") == judgements
    erased = eraser.person("ann")
    assert (erased.conversations, erased.completions, set(erased.feedback)) == (2, 6, judgements)
    assert contents(shop.ledger.redis) == before
    again = eraser.person("ann")
    assert (again.conversations, again.completions, again.feedback) == (0, 0, ())


def test_no_name_of_a_conversation_outlives_it_and_a_person_leaves_one_mark_that_ends(
    shop: Any, eraser: Eraser
) -> None:
    redis, names = shop.ledger.redis, [f"my secret {number}" for number in range(5)]
    redis.hset("ledger:erased_at", "conversation:bob:my secret", 1.0)  # as an earlier version left it
    for name in names:
        shop.ask(("user", "hi"), answer="a", conversation=name)
    for name in names[:3]:
        eraser.conversation("ann", name)
    assert redis.hlen(erased_at("ann")) == 3
    assert "secret" not in str([READERS[redis.type(key)](redis, key) for key in redis.scan_iter("ledger:*")])
    eraser.person("ann")
    assert list(redis.hgetall(erased_at("ann"))) == [""]
    assert "secret" not in str([(key, READERS[redis.type(key)](redis, key)) for key in redis.scan_iter()])
    assert 0 < redis.ttl(erased_at("ann")) <= MARKS_S


def test_what_is_still_being_written_when_it_is_erased_stays_erased(shop: Any, eraser: Eraser) -> None:
    response = shop.ask(("user", "hi"), answer="hello", n=2)
    completions = list(shop.ledger.completions(tuple(response.completion_ids)).values())
    eraser.response(response)
    shop.ledger.append_answer(response, completions)
    assert contents(shop.ledger.redis) == {}


def test_an_erasure_that_was_cut_off_is_finished_by_the_next(
    shop: Any, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off after every number of steps."""
    durably, steps = shop.ledger.durably, 0

    def failing(*arguments: Any) -> Any:
        nonlocal left
        if not left:
            raise ConnectionError
        left -= 1
        return durably(*arguments)

    while True:
        anns(shop, theirs="nobody's:0")
        left = steps
        with monkeypatch.context() as patch:
            patch.setattr(shop.ledger, "durably", failing)
            try:
                eraser.person("ann")
            except ConnectionError:
                pass
            else:
                break
        eraser.person("ann")
        assert contents(shop.ledger.redis) == {}, f"cut off after {steps} steps"
        shop.ledger.redis.flushdb()
        steps += 1
    assert steps == 11, "five judgements, four responses, what came again of one, and an offer that has none"


def test_children_of_an_erased_response_go_on_from_where_it_did(shop: Any, eraser: Eraser) -> None:
    first = shop.ask(("user", "1"), answer="a")
    second = shop.ask(("user", "1"), ("assistant", "a"), ("user", "2"), answer="b")
    turns = ("user", "1"), ("assistant", "a"), ("user", "2"), ("assistant", "b")
    third = shop.ask(*turns, ("user", "3"), answer="c")
    assert third.parent_id == f"{second.id}:0"
    shop.archive.change_conversation("ann", "c", head=f"{second.id}:0")
    eraser.response(second)
    conversation = shop.archive.conversation("ann", "c")
    assert conversation is not None
    assert conversation.head == f"{first.id}:0"
    assert shop.archive.branches("ann", "c") == [first, third.model_copy(update={"parent_id": f"{first.id}:0"})]
    late = shop.ask(*turns, ("user", "4"), answer="d")
    assert late.parent_id is None, "whose words it repeats is gone"
    eraser.response(first)
    assert [each.parent_id for each in shop.archive.branches("ann", "c")] == [None, None]


def test_title_does_not_outlive_the_question_unless_somebody_chose_it(shop: Any, eraser: Eraser) -> None:
    for conversation in ("c", "d"):
        secret = shop.ask(("user", "a secret"), answer="a", conversation=conversation)
        shop.ask(("user", "no secret"), answer="b", conversation=conversation)
        if conversation == "d":
            shop.archive.change_conversation("ann", "d", title="chosen")
        eraser.response(secret)
    titles = [each.title for each in shop.archive.conversations("ann", after=None, limit=2).items]
    assert titles == ["chosen", "no secret"]


class Installation(RuleBasedStateMachine):
    """Two people ask, branch, judge and erase; plain dicts say what must be left."""

    shop: Any

    def __init__(self) -> None:
        super().__init__()
        self.shop.ledger.redis.flushdb()
        self.eraser = Eraser(self.shop.archive)
        self.count = 0
        self.nodes: dict[str, dict[str, Any]] = {}  # by response id, oldest first
        self.conversations: dict[tuple[str, str], dict[str, Any]] = {}
        self.judgements: dict[str, tuple[str, str, float]] = {}  # rater, completion, value
        self.standing: dict[tuple[str, str], str] = {}

    def _ask(self, rater: str, conversation: str, turns: tuple[tuple[str, str], ...], parent: str | None) -> None:
        self.count += 1
        response = self.shop.ask(
            *turns, answer=f"answer {self.count}", rater=rater, conversation=conversation, n=1 + self.count % 2
        )
        choices = [f"{response.id}:{choice}" for choice in range(response.choices)]
        answers = [f"answer {self.count}", f"answer {self.count} 1"]
        self.nodes[response.id] = {
            "place": (rater, conversation), "turns": turns, "parent": parent,
            "choices": dict(zip(choices, answers, strict=False)),
        }  # fmt: skip
        kept = self.conversations.setdefault((rater, conversation), {"title": None})
        kept["head"] = choices[0]

    def _some(self, data: st.DataObject) -> tuple[str, dict[str, Any], str]:
        """Any completion: its response's id, node, and its own id."""
        id = data.draw(st.sampled_from(list(self.nodes)))
        return id, self.nodes[id], data.draw(st.sampled_from(list(self.nodes[id]["choices"])))

    @rule(rater=st.sampled_from(["ann", "bob"]), conversation=st.sampled_from("cd"))
    def begin(self, rater: str, conversation: str) -> None:
        self._ask(rater, conversation, (("user", f"question {self.count}"),), None)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        _, node, parent = self._some(data)
        turns = (*node["turns"], ("assistant", node["choices"][parent]), ("user", f"question {self.count}"))
        self._ask(*node["place"], turns, parent)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), edit=st.booleans())
    def regenerate_or_edit(self, data: st.DataObject, edit: bool) -> None:
        _, node, _ = self._some(data)
        turns = (*node["turns"][:-1], ("user", f"question {self.count}")) if edit else node["turns"]
        answered = [words for role, words in turns if role == "assistant"]
        known = {words: id for each in self.nodes.values() for id, words in each["choices"].items()}
        self._ask(*node["place"], turns, known.get(answered[-1]) if answered else None)

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), rater=st.sampled_from(["ann", "bob"]), value=st.sampled_from([1.0, -1.0]))
    def judge(self, data: st.DataObject, rater: str, value: float) -> None:
        _, _, target = self._some(data)
        id = say(
            self.shop, Rating(completion_id=target, value=value), rater, data.draw(st.none() | st.just(new_id("")))
        )
        self.judgements[id] = rater, target, value
        self.standing[rater, target] = id

    @precondition(lambda self: self.standing)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(list(self.standing)))
        assert self.shop.ledger.retract(self.standing.pop(slot))

    @precondition(lambda self: self.conversations)
    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(list(self.conversations)))
        self.count += 1
        self.conversations[place]["title"] = f"title {self.count}"
        assert self.shop.archive.change_conversation(*place, title=f"title {self.count}")

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def erase_a_response(self, data: st.DataObject) -> None:
        id, _, _ = self._some(data)
        response = self.shop.archive.response(id)
        assert response is not None
        erased = self.eraser.response(response)
        assert set(erased.feedback) == self._forget(id)

    @precondition(lambda self: self.conversations)
    @rule(data=st.data())
    def erase_a_conversation(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(list(self.conversations)))
        erased = self.eraser.conversation(*place)
        assert set(erased.feedback) == self._forget_conversation(place)

    @precondition(lambda self: self.count % 10 == 9)  # seldom, or nothing grows
    @rule(rater=st.sampled_from(["ann", "bob"]))
    def erase_a_person(self, rater: str) -> None:
        erased = self.eraser.person(rater)
        places = [place for place in self.conversations if place[0] == rater]
        assert erased.conversations == len(places)
        gone = {id for place in places for id in self._forget_conversation(place)}
        gone |= self._drop({id for id, (by, _, _) in self.judgements.items() if by == rater})
        assert set(erased.feedback) == gone

    def _forget_conversation(self, place: tuple[str, str]) -> set[str]:
        ids = [id for id, node in self.nodes.items() if node["place"] == place]
        return {judgement for id in reversed(ids) for judgement in self._forget(id)}

    def _forget(self, id: str) -> set[str]:
        node = self.nodes.pop(id)
        conversation = self.conversations[node["place"]]
        left = {other: n for other, n in self.nodes.items() if n["place"] == node["place"]}
        for each in left.values():
            if each["parent"] in node["choices"]:
                each["parent"] = node["parent"]
        if conversation["head"] in node["choices"]:
            conversation["head"] = node["parent"] or (f"{list(left)[-1]}:0" if left else None)
        if not left:
            del self.conversations[node["place"]]
        return self._drop({j for j, (_, target, _) in self.judgements.items() if target in node["choices"]})

    def _drop(self, judgements: set[str]) -> set[str]:
        self.judgements = {id: kept for id, kept in self.judgements.items() if id not in judgements}
        self.standing = {slot: id for slot, id in self.standing.items() if id not in judgements}
        return judgements

    @invariant()
    def the_trees_are_as_expected(self) -> None:
        for rater in ("ann", "bob"):
            found = self.shop.archive.conversations(rater, after=None, limit=9).items
            assert {(rater, each.id) for each in found} == {p for p in self.conversations if p[0] == rater}
            for each in found:
                branches = self.shop.archive.branches(rater, each.id)
                nodes = {id: n for id, n in self.nodes.items() if n["place"] == (rater, each.id)}
                assert {r.id: r.parent_id for r in branches} == {id: n["parent"] for id, n in nodes.items()}
                expected = self.conversations[rater, each.id]
                asked_first = next(iter(nodes.values()))["turns"][0][1]
                assert (each.title, each.head) == (expected["title"] or asked_first, expected["head"])

    @invariant()
    def the_judgements_are_as_expected(self) -> None:
        standing = self.shop.ledger.standing(self.shop.ledger.watermark())
        assert {(f.rater, f.judgement.completion_id): f.id for f in standing} == self.standing
        kept = self.shop.ledger.kept(list(self.judgements))
        said = [(k.feedback.rater, k.feedback.judgement.completion_id, k.feedback.judgement.value) for k in kept]
        assert said == list(self.judgements.values())
        everything = {id for rater in ("ann", "bob") for id in self.shop.archive.judgement_ids(rater)}
        assert everything == set(self.judgements)

    def teardown(self) -> None:
        self.erase_a_person("ann")
        assert not [key for key, value in contents(self.shop.ledger.redis).items() if "ann" in f"{key} {value}"]
        self.erase_a_person("bob")
        assert contents(self.shop.ledger.redis) == {}


def test_whatever_people_do_what_they_erase_is_gone_and_the_rest_is_there(shop: Any) -> None:
    machine = type("Machine", (Installation,), {"shop": shop})
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=checks)
    )


def publish(registry: PolicyRegistry, version: int, parent: int | None, **lineage: Any) -> None:
    directory = registry.directory(version)
    directory.mkdir(parents=True)
    manifest = Manifest(
        version=version, parent=parent, kind="trained", base_model="m", dtype="float32", model_path="model",
        created=time.time(), files={}, weights={}, golden=(), golden_logprobs=(), lineage=lineage,
    )  # fmt: skip
    write_manifest(directory, manifest)
    registry.publish(version, actor="test", reason="test")


def test_traces_name_what_learned_from_a_person_and_what_descends_from_it(shop: Any, tmp_path: Path) -> None:
    registry = PolicyRegistry(shop.ledger.redis, tmp_path)
    publish(registry, 0, None)
    publish(registry, 1, 0, round=3, raters=["bob"], feedback_ids=["fb_1"])
    publish(registry, 2, 1, round=4, raters=["ann", "bob"], feedback_ids=["fb_1", "fb_2"])
    publish(registry, 3, 2, round=5, raters=["bob"], feedback_ids=["fb_1"])
    publish(registry, 4, 1, round=6, feedback_ids=["fb_3"])
    publish(registry, 10, 3, round=7, raters=["carl"])
    (registry.directory(10) / "manifest.json").write_text("broken")
    found = traces(registry, "ann", [])
    assert (found.rounds, found.policies) == ((4,), ("policy-v2", "policy-v3"))
    found = traces(registry, "ann", ["fb_3"])
    assert (found.rounds, found.policies) == ((4, 6), ("policy-v2", "policy-v3", "policy-v4"))
    found = traces(registry, "dora", ["fb_9"])
    assert (found.rounds, found.policies) == ((), ())


@pytest.mark.parametrize("erase", [lambda eraser: eraser.person("ann"), lambda eraser: eraser.conversation("ann", "c")])
def test_what_was_asked_before_an_erasure_is_not_stored_after_it(shop: Any, eraser: Eraser, erase: Any) -> None:
    asked = time.time()
    shop.ask(("user", "ann asks"), answer="a")
    bobs(shop)
    erase(eraser)
    before = contents(shop.ledger.redis)
    with pytest.raises(AssertionError):  # nothing was kept of it
        shop.ask(("user", "ann asks"), ("assistant", "a"), ("user", "more"), answer="late", id="late", created=asked)
    assert contents(shop.ledger.redis) == before
    with pytest.raises(Conflict, match="erased"):
        say(shop, Rating(completion_id="late:0", value=1))
    assert shop.ask(("user", "ann asks again"), answer="b").rater == "ann"
