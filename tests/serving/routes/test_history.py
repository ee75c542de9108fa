"""Stored completions, conversations and a person's own data, through the SDK where it has a call for it."""

import asyncio
import json
from typing import Any

import openai
import pytest

from feedback.judgements import Comparison, Feedback
from feedback.records import Completion, Message, Offer, Slot, new_id
from feedback.rounds.book import MOST_RESTARTS, key
from feedback.rounds.sources import note_sources

USER = {"role": "user", "content": "hi"}


@pytest.fixture
async def joe(live: Any) -> Any:
    """The SDK with a key of role user."""
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key=live.user_key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def ann(live: Any) -> dict[str, str]:
    """Another key's headers."""
    return {"authorization": f"Bearer {live.gateway.keys.create(name='ann', role='user')}"}


async def asked(sdk: Any, *messages: Any, conversation: str = "c", n: int = 1, **metadata: str) -> Any:
    return await sdk.chat.completions.create(
        model="policy", messages=list(messages) or [USER], n=n, max_tokens=3, temperature=0.5,
        metadata={"conversation_id": conversation, **metadata},
    )  # fmt: skip


def own(live: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {live.user_key}"}


def ratings(live: Any) -> list[tuple[str, float]]:
    standing = live.ledger.standing(live.ledger.watermark())
    return [(f.judgement.completion_id, f.judgement.value) for f in standing]


async def test_sdk_retrieves_what_it_was_answered(live: Any, joe: Any) -> None:
    answer = await asked(joe, n=2, colour="red")
    kept = await joe.chat.completions.retrieve(answer.id)
    assert kept.model_dump(exclude={"choices", "usage", "ratchet", "created"}) == {
        "id": answer.id, "object": "chat.completion", "model": "policy-v0", "service_tier": None, "moderation": None,
        "system_fingerprint": answer.system_fingerprint, "metadata": {"conversation_id": "c", "colour": "red"},
        "temperature": 0.5, "max_tokens": 3,
    }  # fmt: skip
    assert [(each.index, each.message.content, each.message.refusal, each.finish_reason) for each in kept.choices] == [
        (0, "w0-0 w0-1 ", None, "stop"),
        (1, "w0-0 w0-1 ", None, "stop"),
    ]
    assert kept.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
        "prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8,
    }  # fmt: skip
    assert kept.ratchet == {
        "policy_version": 0, "conversation_id": "c", "completion_ids": [f"{answer.id}:0", f"{answer.id}:1"],
        "parent_id": None, "stored": True, "partial": False,
    }  # fmt: skip


async def test_tool_calls_and_what_was_stopped_come_back(live: Any, joe: Any) -> None:
    rater = live.gateway.rater(live.gateway.keys.find(live.user_key), None)
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asking = Message(role="assistant", content="", tool_calls=(call,))
    told = Message(role="tool", content="4", tool_call_id="call_1")
    question = Message(role="user", content="2+2")
    for id, messages, answer in [
        ("chatcmpl-1", (question,), {"text": "", "tool_calls": (call,), "finish_reason": "tool_calls"}),
        ("chatcmpl-2", (question, asking, told), {"text": "It is", "finish_reason": "stop", "partial": True}),
    ]:
        completion = Completion(
            id=f"{id}:0", response_id=id, choice=0, conversation_id="c", rater=rater, messages=messages,
            prompt_token_ids=(), completion_token_ids=(), logprobs=(), sampling={}, policy_version=None, created=1.0,
            **answer,
        )  # fmt: skip
        live.ledger.append_answer(completion.frame(model="m"), [completion])
    first, second = [each async for each in joe.chat.completions.list()]
    [choice] = first.choices
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    assert [each.model_dump() for each in choice.message.tool_calls] == [call]
    assert (first.ratchet["partial"], second.ratchet["partial"]) == (False, True)
    assert second.ratchet["parent_id"] == "chatcmpl-1:0"
    branch = (await live.http.get("/v1/conversations/c/messages", headers=own(live))).json()["data"]
    assert branch == [
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "It is"},
    ]
    nodes = (await live.http.get("/v1/conversations/c/tree", headers=own(live))).json()["nodes"]
    assert [node["new_messages"] for node in nodes] == [branch[:1], branch[2:3]]
    assert nodes[0]["tool_calls"] == [call]


async def test_sdk_walks_the_list_and_filters_it(live: Any, joe: Any) -> None:
    ids = [(await asked(joe, colour=colour)).id for colour in ("red", "blue", "red", "blue", "red")]
    ids.sort()  # ids made within one millisecond have no other order
    red = [id for id in ids if (await joe.chat.completions.retrieve(id)).metadata["colour"] == "red"]
    listing = joe.chat.completions.list
    for limit in (1, 2, 5, 100):
        assert [each.id async for each in listing(limit=limit)] == ids
        assert [each.id async for each in listing(limit=limit, order="desc")] == ids[::-1]
        assert [each.id async for each in listing(limit=limit, metadata={"colour": "red"})] == red
    both = {"colour": "red", "conversation_id": "d"}
    assert [each.id async for each in listing(metadata=both)] == []
    for model in ("policy", "policy-v0"):
        assert [each.id async for each in listing(model=model)] == ids
    assert [each.id async for each in listing(model="policy-v1")] == []
    page = await listing(limit=2)
    assert (page.model_extra or {})["first_id"] == ids[0]
    assert page.has_more


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "after=conv_1", "user="])
async def test_bad_queries_name_their_parameter(live: Any, query: str) -> None:
    response = await live.http.get(f"/v1/chat/completions?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == query.split("=")[0]


async def test_sdk_lists_the_messages(live: Any, joe: Any) -> None:
    messages = [{"role": "system", "content": "be kind"}, USER, {"role": "assistant", "content": "yes?"}, USER]
    id = (await asked(joe, *messages)).id
    for limit in (1, 3, 20):
        found = [each async for each in joe.chat.completions.messages.list(id, limit=limit)]
        assert [(each.id, each.role, each.content) for each in found] == [
            (f"{id}-{index}", message["role"], message["content"]) for index, message in enumerate(messages)
        ]
    found = [each.id async for each in joe.chat.completions.messages.list(id, limit=3, order="desc")]
    assert found == [f"{id}-{index}" for index in (3, 2, 1, 0)]
    with pytest.raises(openai.BadRequestError):
        await joe.chat.completions.messages.list(id, after="elsewhere-0")


async def test_the_synchronous_sdk_does_the_same(live: Any, joe: Any) -> None:
    id = (await asked(joe)).id

    def walk() -> None:
        with openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.user_key, max_retries=0) as sdk:
            assert [each.id for each in sdk.chat.completions.list()] == [id]
            assert sdk.chat.completions.update(id, metadata={"a": "b"}).metadata == {"a": "b"}
            assert [each.content for each in sdk.chat.completions.messages.list(id)] == ["hi"]
            assert sdk.chat.completions.delete(id).deleted
            with pytest.raises(openai.NotFoundError):
                sdk.chat.completions.retrieve(id)

    await asyncio.to_thread(walk)


async def test_metadata_is_replaced_and_nothing_else_can_be_changed(live: Any, joe: Any) -> None:
    id = (await asked(joe, colour="red")).id
    changed = await joe.chat.completions.update(id, metadata={"a": "b"})
    assert changed.id == id
    assert (await joe.chat.completions.retrieve(id)).metadata == {"a": "b"}
    assert (await joe.chat.completions.update(id, metadata=None)).metadata == {}
    for body, param in [
        ({"metadata": {"a": "b"}, "model": "x"}, "model"),
        ({}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"consent": "never", "feedback": "up"}}, "metadata.consent"),
    ]:
        response = await live.http.post(f"/v1/chat/completions/{id}", json=body, headers=own(live))
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert (await joe.chat.completions.retrieve(id)).metadata == {}
    assert live.ledger.watermark() == "0"


async def test_consent_is_taken_back_by_metadata(live: Any, joe: Any) -> None:
    id = (await asked(joe)).id
    rating = {"type": "rating", "completion_id": id, "value": 1}
    await live.http.post("/v1/feedback", json=rating, headers=own(live))

    async def exported() -> int:
        return len((await live.http.get("/v1/feedback/export?format=ratchet")).text.splitlines())

    assert await exported() == 1
    await joe.chat.completions.update(id, metadata={"consent": "false"})
    assert await exported() == 0


@pytest.mark.parametrize(
    ("said", "value"), [("up", 1), ("down", -1), ("1", 1), ("-1", -1), ("0", 0), ("0.25", 0.25), (".5", 0.5)]
)
async def test_metadata_that_says_feedback_is_a_vote(live: Any, joe: Any, said: str, value: float) -> None:
    id = (await asked(joe)).id
    metadata = {"feedback": said, "feedback_reason": "accurate", "feedback_comment": "thanks"}
    for _ in range(2):
        changed = await joe.chat.completions.update(id, metadata=metadata)
        assert changed.metadata == metadata
    assert ratings(live) == [(f"{id}:0", value)]
    [feedback] = live.ledger.standing(live.ledger.watermark())
    assert (feedback.judgement.reasons, feedback.judgement.comment) == (("accurate",), "thanks")
    assert feedback.rater == live.gateway.rater(live.gateway.keys.find(live.user_key), None)
    assert len(list(live.ledger.feedback_between("0"))) == 1, "the same again is the same"


async def test_a_changed_vote_is_a_revision_of_that_choice(live: Any, joe: Any) -> None:
    id = (await asked(joe, n=2)).id
    await joe.chat.completions.update(id, metadata={"feedback": "up"})
    await joe.chat.completions.update(id, metadata={"feedback": "down", "feedback_choice": "1"})
    await joe.chat.completions.update(id, metadata={"feedback": "down"})
    assert ratings(live) == [(f"{id}:0", -1), (f"{id}:1", -1)]


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({"feedback": "sideways"}, "metadata.feedback"),
        ({"feedback": "2"}, "metadata.feedback"),
        ({"feedback": "nan"}, "metadata.feedback"),
        ({"feedback": "0_1"}, "metadata.feedback"),
        ({"feedback": "-0.5"}, "metadata.feedback"),
        ({"feedback": ""}, "metadata.feedback"),
        ({"feedback": "up", "feedback_choice": "1"}, "metadata.feedback_choice"),
        ({"feedback": "up", "feedback_choice": "00"}, "metadata.feedback_choice"),
        ({"feedback": "up", "feedback_reason": "x" * 65}, "metadata.feedback_reason"),
        ({"feedback": "up", "feedback_comment": " "}, "metadata.feedback_comment"),
    ],
)
async def test_a_bad_vote_changes_nothing(live: Any, joe: Any, metadata: dict[str, str], param: str) -> None:
    id = (await asked(joe)).id
    with pytest.raises(openai.BadRequestError) as refused:
        await joe.chat.completions.update(id, metadata=metadata)
    assert refused.value.param == param
    assert (await joe.chat.completions.retrieve(id)).metadata == {"conversation_id": "c"}
    assert live.ledger.watermark() == "0"


async def test_deleted_is_gone_with_all_that_was_said_of_it(live: Any, joe: Any) -> None:
    first, second = await asked(joe), await asked(joe)
    await joe.chat.completions.update(first.id, metadata={"feedback": "up"})
    await joe.chat.completions.update(second.id, metadata={"feedback": "down"})
    deleted = await joe.chat.completions.delete(first.id)
    assert deleted.model_dump() == {
        "id": first.id, "deleted": True, "object": "chat.completion.deleted", "restarted": [], "learning": [],
    }  # fmt: skip
    for call in (joe.chat.completions.retrieve, joe.chat.completions.delete, joe.chat.completions.messages.list):
        with pytest.raises(openai.NotFoundError) as missing:
            await call(first.id)
        assert missing.value.code == "completion_not_found"
    assert [each.id async for each in joe.chat.completions.list()] == [second.id]
    assert ratings(live) == [(f"{second.id}:0", -1)]


async def test_somebody_elses_looks_like_none_at_all(live: Any, joe: Any, ann: dict[str, str]) -> None:
    id = (await asked(joe, conversation="joes")).id
    calls = [
        ("GET", "chat/completions/{}", None),
        ("GET", "chat/completions/{}/messages", None),
        ("POST", "chat/completions/{}", {"metadata": {"feedback": "up"}}),
        ("DELETE", "chat/completions/{}", None),
        ("GET", "conversations/{}", None),
        ("GET", "conversations/{}/tree", None),
        ("GET", "conversations/{}/messages", None),
        ("PUT", "conversations/{}", {"title": "mine"}),
        ("DELETE", "conversations/{}", None),
    ]
    for method, path, body in calls:
        target, other = ("joes", "nobodys") if path.startswith("conv") else (id, "chatcmpl-0")
        answers = [
            await live.http.request(method, "/v1/" + path.format(name), json=body, headers=ann)
            for name in (target, other)
        ]
        assert [answer.status_code for answer in answers] == [404, 404], (method, path)
        theirs, nobodys = (answer.json()["error"] for answer in answers)
        assert theirs["message"].replace(target, other) == nobodys["message"]
        assert {**theirs, "message": ""} == {**nobodys, "message": ""}
    for path in ("chat/completions", "conversations", "chat/completions?user=joe"):
        assert (await live.http.get(f"/v1/{path}", headers=ann)).json()["data"] == []
    assert (await live.http.get("/v1/me/export", headers=ann)).text == ""
    head = await live.http.put("/v1/conversations/a", json={"head": f"{id}:0"}, headers=ann)
    assert head.status_code == 404
    assert (await live.http.delete("/v1/me", headers=ann)).json()["completions"] == 0
    assert (await joe.chat.completions.retrieve(id)).id == id
    assert live.ledger.watermark() == "0"


async def test_operators_look_at_all_and_change_only_for_those_they_name(live: Any, joe: Any) -> None:
    joes, anns = await asked(joe), (await live.chat("hi", user="ann")).json()["id"]
    assert (await live.sdk.chat.completions.retrieve(joes.id)).id == joes.id
    assert [each.role async for each in live.sdk.chat.completions.messages.list(joes.id)] == ["user"]
    assert [each.id async for each in live.sdk.chat.completions.list()] == []
    for name in ({}, {"user": "ann"}):
        with pytest.raises(openai.NotFoundError):
            await live.sdk.chat.completions.update(joes.id, metadata={"a": "b"}, extra_query=name)
        with pytest.raises(openai.NotFoundError):
            await live.sdk.chat.completions.delete(joes.id, extra_query=name)
    as_ann = {"user": "ann"}
    assert [each.id async for each in live.sdk.chat.completions.list(extra_query=as_ann)] == [anns]
    await live.sdk.chat.completions.update(anns, metadata={"feedback": "up"}, extra_query=as_ann)
    [feedback] = live.ledger.standing(live.ledger.watermark())
    assert feedback.rater == live.gateway.rater(live.gateway.keys.find(live.admin_key), "ann")
    with pytest.raises(openai.NotFoundError):
        await live.sdk.chat.completions.delete(anns, extra_query={"user": "bob"})
    assert (await live.sdk.chat.completions.delete(anns, extra_query=as_ann)).deleted


async def test_a_tree_of_regenerated_edited_and_continued_turns(live: Any, joe: Any) -> None:
    """The client sends the whole history each time, as all of them do."""
    first = await asked(joe)
    said = {"role": "assistant", "content": first.choices[0].message.content}
    well, odd = {"role": "user", "content": "well?"}, {"role": "user", "content": "odd?"}
    second = await asked(joe, {"role": "system", "content": "today"}, USER, said, well)
    again = await asked(joe, {"role": "system", "content": "today"}, USER, said, well)
    edited = await asked(joe, USER, said, odd)
    tree = (await live.http.get("/v1/conversations/c/tree", headers=own(live))).json()
    a, b, c, d = (f"{each.id}:0" for each in (first, second, again, edited))
    assert tree["head"] == d
    assert [
        (node["completion_id"], node["parent_id"], node["new_messages"], node["siblings"]) for node in tree["nodes"]
    ] == [(a, None, [USER], []), (b, a, [well], [c]), (c, a, [well], [b]), (d, a, [odd], [])]
    assert {key: value for key, value in tree["nodes"][1].items() if key not in ("created", "siblings")} == {
        "completion_id": b, "response_id": second.id, "choice": 0, "parent_id": a, "new_messages": [well],
        "content": "w0-0 w0-1 ", "tool_calls": [], "policy_version": 0, "finish_reason": "stop", "partial": False,
    }  # fmt: skip
    branch = (await live.http.get(f"/v1/conversations/c/messages?head={a}", headers=own(live))).json()
    assert branch["data"] == [USER, said]
    headless = (await live.http.get("/v1/conversations/c/messages", headers=own(live))).json()
    assert (headless["head"], headless["data"]) == (d, [USER, said, odd, said])
    onward = await asked(joe, *headless["data"], {"role": "user", "content": "more"})
    assert (await joe.chat.completions.retrieve(onward.id)).ratchet["parent_id"] == d
    await joe.chat.completions.delete(edited.id)
    nodes = (await live.http.get("/v1/conversations/c/tree", headers=own(live))).json()["nodes"]
    assert nodes[-1]["parent_id"] == a
    assert nodes[-1]["new_messages"] == [odd, said, {"role": "user", "content": "more"}]


async def test_conversations_are_listed_changed_and_deleted(live: Any, joe: Any) -> None:
    names = ["c", "a/b", "ends/tree/x", "🦀 d"]
    first = [await asked(joe, {"role": "user", "content": f"about {name}"}, conversation=name) for name in names]
    walked: list[str] = []
    while True:
        after = f"&after={walked[-1]}" if walked else ""
        page = (await live.http.get(f"/v1/conversations?limit=3{after}", headers=own(live))).json()
        walked += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
    assert walked == names[::-1]
    for name, answer in zip(names, first, strict=True):
        place = f"/v1/conversations/{name}"
        got = (await live.http.get(place, headers=own(live))).json()
        assert (got["object"], got["id"], got["title"]) == ("conversation", name, f"about {name}")
        assert (got["allow_training"], got["head"]) == (True, f"{answer.id}:0")
        other = await asked(joe, conversation=name)
        changes = {"title": " new ", "allow_training": False, "head": f"{answer.id}:0"}
        changed = (await live.http.put(place, json=changes, headers=own(live))).json()
        assert {**changed, "updated": got["updated"]} == {**got, **changes, "title": "new"}
        post = await live.http.post(place, json={"head": f"{other.id}:0"}, headers=own(live))
        assert (post.json()["head"], post.json()["title"]) == (f"{other.id}:0", "new")
        deleted = (await live.http.delete(place, headers=own(live))).json()
        nothing: dict[str, list[int]] = {"restarted": [], "learning": []}
        assert deleted == {"object": "conversation.deleted", "id": name, "deleted": True, **nothing}
        assert (await live.http.get(place, headers=own(live))).status_code == 404
    assert [each.id async for each in joe.chat.completions.list()] == []
    gone = await live.http.get("/v1/conversations?after=c", headers=own(live))
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "conversation_not_found")


async def test_a_search_tells_where_to_go_on_also_after_a_page_without_any(
    live: Any, joe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback.archive.SCAN", 1)
    monkeypatch.setattr("feedback.archive.MOST_LOOKED_AT", 2)
    for name, text in (("a", "Green tea"), ("b", "Coffee"), ("c", "Coffee")):
        await asked(joe, {"role": "user", "content": text}, conversation=name)
    first = (await live.http.get("/v1/conversations?q=tea", headers=own(live))).json()
    assert (first["data"], first["has_more"]) == ([], True)
    for after in (first["last_id"], "b"):
        query = {"q": "tea", "after": after}
        second = (await live.http.get("/v1/conversations", params=query, headers=own(live))).json()
        assert ([each["id"] for each in second["data"]], second["has_more"]) == (["a"], False)


async def test_a_page_of_conversations_goes_on_after_one_that_is_gone_or_was_used(live: Any, joe: Any) -> None:
    for name in "abcd":
        await asked(joe, conversation=name)

    async def page(**query: Any) -> tuple[str, str]:
        got = (await live.http.get("/v1/conversations", params=query, headers=own(live))).json()
        return "".join(each["id"] for each in got["data"]), got["last_id"]

    first, place = await page(limit=2)
    assert first == "dc"
    assert (await page(limit=2, after=place))[0] == (await page(limit=2, after="c"))[0] == "ba"
    await asked(joe, conversation="c")
    assert (await page(limit=2, after=place))[0] == "ba", "it stands first now"
    await live.http.delete("/v1/conversations/c", headers=own(live))
    assert (await page(limit=2, after=place))[0] == "ba"


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"title": ""}, 400, "title"),
        ({"title": 5}, 400, "title"),
        ({"allow_training": "yes"}, 400, "allow_training"),
        ({"rater": "me"}, 400, "rater"),
        ({"head": 1}, 400, "head"),
        ({"head": "chatcmpl-0:0"}, 404, "head"),
        ({"head": "elsewhere", "title": "x"}, 404, "head"),
    ],
)
async def test_a_bad_change_names_its_field(live: Any, joe: Any, change: Any, status: int, param: str) -> None:
    await asked(joe)
    elsewhere = await asked(joe, conversation="d")
    change = {name: f"{elsewhere.id}:0" if value == "elsewhere" else value for name, value in change.items()}
    before = (await live.http.get("/v1/conversations/c", headers=own(live))).json()
    response = await live.http.put("/v1/conversations/c", json=change, headers=own(live))
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert (await live.http.get("/v1/conversations/c", headers=own(live))).json() == before


async def test_nobody_learns_who_wrote_what_before_the_vote(live: Any, joe: Any) -> None:
    answer = await asked(joe, n=2)
    left, right = answer.ratchet["completion_ids"]
    rater = live.gateway.rater(live.gateway.keys.find(live.user_key), None)
    slots = tuple(Slot(completion_id=id, arm="policy") for id in (left, right))
    live.gateway.archive.add_offer(
        Offer(id=answer.id, rater=rater, conversation_id="c", slots=slots, propensity=0.5, created=1.0)
    )

    async def told() -> set[Any]:
        tree = (await live.http.get("/v1/conversations/c/tree", headers=own(live))).json()["nodes"]
        export = (await live.http.get("/v1/me/export", headers=own(live))).text.splitlines()
        completions = [json.loads(line) for line in export if "chat.completion" in line]
        completions.append((await live.http.get(f"/v1/chat/completions/{answer.id}", headers=own(live))).json())
        return {*(node["policy_version"] for node in tree), *(c["ratchet"]["policy_version"] for c in completions)}

    assert await told() == {None}
    vote = Comparison(left=left, right=right, winner="left")
    live.ledger.append_feedback(Feedback(id=new_id("fb_"), judgement=vote, rater=rater, split="train", created=1.0))
    assert await told() == {0}


async def test_everything_of_ones_own_can_be_taken_away_and_erased(live: Any, joe: Any, ann: dict[str, str]) -> None:
    first, second = await asked(joe), await asked(joe, conversation="d", n=2)
    theirs = (await live.http.post("/v1/chat/completions", json=live.body("hi"), headers=ann)).json()["id"]
    await joe.chat.completions.update(first.id, metadata={"feedback": "up"})
    await joe.chat.completions.update(first.id, metadata={"feedback": "down"})
    response = await live.http.get("/v1/me/export", headers=own(live))
    assert response.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in response.text.splitlines()]
    kinds = [(line["object"], line.get("id")) for line in lines if line["object"] != "feedback"]
    assert kinds == [
        ("conversation", "c"), ("chat.completion", first.id), ("conversation", "d"), ("chat.completion", second.id),
    ]  # fmt: skip
    assert [len(line["choices"]) for line in lines if "choices" in line] == [1, 2]
    assert all(line["messages"] == [USER] for line in lines if "choices" in line)
    said = [(line["judgement"]["value"], line["revision"], line["replaces"], line["status"]) for line in lines[4:]]
    assert said == [(1, 1, None, "replaced"), (-1, 2, lines[4]["id"], "accepted")]
    erased = (await live.http.delete("/v1/me", headers=own(live))).json()
    assert erased == {
        "object": "me.deleted", "deleted": True, "conversations": 2, "completions": 3, "feedback": 2,
        "learned": {"rounds": [], "policies": []}, "restarted": [],
    }  # fmt: skip
    assert (await live.http.get("/v1/me/export", headers=own(live))).text == ""
    kept = await live.http.get(f"/v1/chat/completions/{theirs}", headers=ann)
    assert kept.status_code == 200


async def test_erasing_a_person_names_the_open_round_that_starts_again(live: Any, joe: Any) -> None:
    id = (await asked(joe)).id
    rounds = live.gateway.rounds
    round_id, _ = rounds.request(trigger="operator", actor="test")
    token = rounds.claim(round_id, owner="worker", lease_s=60)
    assert note_sources(live.ledger.redis, round_id, token, responses=[id], feedback=[])
    assert (await live.http.delete("/v1/me", headers=own(live))).json()["restarted"] == [round_id]
    told = (await live.http.get(f"/v1/rounds/{round_id}")).json()
    assert (told["state"], told["restarts"], told["reason"]) == (
        "queued", 1, "data was erased; the round starts again",
    )  # fmt: skip
    assert (await live.http.delete("/v1/me", headers=own(live))).json()["restarted"] == []
    id = (await asked(joe)).id
    token = rounds.claim(round_id, owner="worker", lease_s=60)
    live.ledger.redis.hset(key(round_id), "restarts", MOST_RESTARTS)
    assert note_sources(live.ledger.redis, round_id, token, responses=[id], feedback=[])
    erased = (await live.http.delete("/v1/me", headers=own(live))).json()
    assert (erased["restarted"], erased["learned"]) == ([], {"rounds": [round_id], "policies": []})


async def test_without_the_ledger_the_answer_is_503(live: Any, joe: Any, valkey: Any) -> None:
    id = (await asked(joe)).id
    valkey.kill()
    for method, path, body in [
        ("GET", "chat/completions", None),
        ("GET", f"chat/completions/{id}", None),
        ("POST", f"chat/completions/{id}", {"metadata": {"feedback": "up"}}),
        ("DELETE", f"chat/completions/{id}", None),
        ("GET", "conversations/c/tree", None),
        ("PUT", "conversations/c", {"title": "x"}),
        ("GET", "me/export", None),
        ("DELETE", "me", None),
    ]:
        response = await live.http.request(method, f"/v1/{path}", json=body, headers=own(live))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "ledger_unavailable"), (method, path)


async def test_an_admin_exports_and_erases_what_belongs_to_a_key_that_is_gone(
    live: Any, joe: Any, ann: dict[str, str]
) -> None:
    id = (await asked(joe)).id
    await joe.chat.completions.update(id, metadata={"feedback": "up"})
    rater = (await live.http.get("/v1/me", headers=own(live))).json()["rater"]
    own_lines = (await live.http.get("/v1/me/export", headers=own(live))).text
    live.gateway.keys.revoke(live.gateway.keys.find(live.user_key).id)
    operator = {"authorization": f"Bearer {live.gateway.keys.create(name='op', role='operator')}"}
    for method, path in (("GET", "/v1/me/export"), ("DELETE", "/v1/me")):
        for query, headers, refusal in (
            ({"rater": rater}, ann, (403, "insufficient_role", None)),
            ({"rater": rater}, operator, (403, "insufficient_role", None)),
            ({"rater": rater, "user": "bob"}, {}, (400, None, "rater")),
            ({"rater": f"{rater}x"}, {}, (404, "rater_not_found", "rater")),
        ):
            answer = await live.http.request(method, path, params=query, headers=headers)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == refusal, (method, query)
    assert (await live.http.get("/v1/me/export", params={"rater": rater})).text == own_lines
    erased = (await live.http.delete("/v1/me", params={"rater": rater})).json()
    assert (erased["conversations"], erased["completions"], erased["feedback"]) == (1, 1, 1)
    assert (await live.http.get("/v1/me/export", params={"rater": rater})).status_code == 404
    assert ratings(live) == []


async def test_an_answer_under_way_does_not_outlive_its_erasure(live: Any, joe: Any, eventually: Any) -> None:
    live.engine.set(hold_at=2)
    stream = await joe.chat.completions.create(
        model="policy", messages=[USER], metadata={"conversation_id": "c"}, max_tokens=4, stream=True
    )
    shown = [await anext(stream) for _ in range(2)]
    assert (await live.http.delete("/v1/me", headers=own(live))).status_code == 200
    live.engine.set(hold_at=None)
    async for chunk in stream:
        shown.append(chunk)
    assert shown[-1].choices[0].finish_reason == "stop"
    await eventually(live.engine_is_free)
    assert (await live.http.get("/v1/me/export", headers=own(live))).text == ""


async def test_a_stored_answer_was_created_when_it_was_asked_for(live: Any, joe: Any) -> None:
    live.engine.set(tick=0.4)
    answer = await asked(joe)
    assert (await joe.chat.completions.retrieve(answer.id)).created == answer.created
