"""One list of what was done to policies, releases, raters, freezes, keys and rounds, on a real Valkey."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from feedback.audit import STREAMS, Entry, audit
from feedback.freezes import FreezeLine, is_frozen, set_frozen
from feedback.freezes import key as freeze_key
from feedback.people import raters
from feedback.people.invites import Invites
from feedback.people.key_audit import KeyLine
from feedback.people.keys import KeyChange, KeyRing, LastAdmin, Limits, UnknownKey
from feedback.people.raters import Raters
from feedback.people.sessions import Sessions
from feedback.policies import registry
from feedback.policies.registry import PolicyRegistry
from feedback.releases.book import ReleaseBook
from feedback.releases.plan import Plan
from feedback.rounds.book import RoundBook
from feedback.rounds.cancelling import RoundLine, cancel
from feedback.store import connect
from tests.feedback.policies.test_registry import publish


@pytest.fixture
def redis(valkey_url: str) -> Redis:
    return connect(valkey_url)


def told(entries: list[Entry]) -> list[tuple[str, str, str, str, str]]:
    return [(each.kind, each.what, each.action, each.actor, each.reason) for each in entries]


def of_keys(redis: Redis) -> list[tuple[str, str, str, str | None]]:
    """Oldest first."""
    found = audit(redis, only="key").entries
    return [(each.what, each.action, each.actor, each.became) for each in reversed(found)]


def test_everything_stands_in_one_list_newest_first(redis: Redis, tmp_path: Path) -> None:
    policies = PolicyRegistry(redis, tmp_path)
    publish(policies, 2)
    policies.point_stable(0, expected=None, actor="ann", reason="first")
    RoundBook(redis).freeze(True, actor="bob", reason="holiday")
    book = ReleaseBook(policies)
    begun = book.start(
        1, Plan(), mode="manual", whose="all", since="0", actor="cay", reason="try", seen=None
    )  # fmt: skip
    paused = book.move(begun, begun.paused_now(1.0), actor="dan", reason="lunch")
    moved = book.move(paused, paused.model_copy(update={"paused_at": None}), actor="dan", reason="go")
    proposed = book.move(moved, moved.model_copy(update={"proposed": True}), actor="ratchet", reason="done")
    book.end(proposed, "rolled_back", actor="eve", reason="worse")
    Raters(redis).quarantine("rater_x", actor="fay", reason="bot")
    book.freeze(True, actor="gil", reason="look")
    rounds = RoundBook(redis)
    cancel(redis, rounds.request(trigger="operator", actor="ian")[0], actor="ian", reason="test")
    KeyRing(redis, "pepper").create(name="bot", role="user", actor="hal")
    [bot] = KeyRing(redis, "pepper").list()
    found = audit(redis).entries
    by_kind = {kind: [line[1:] for line in told(found) if line[0] == kind] for kind in STREAMS}
    assert by_kind == {  # of one millisecond nobody knows which kind came first
        "freeze": [("releases", "freeze", "gil", "look"), ("learning", "freeze", "bob", "holiday")],
        "rater": [("rater_x", "quarantine", "fay", "bot")],
        "release": [
            ("release 1", "rolled_back", "eve", "worse"), ("release 1", "propose", "ratchet", "done"),
            ("release 1", "move", "dan", "go"), ("release 1", "pause", "dan", "lunch"),
            ("release 1", "start", "cay", "try"),
        ],
        "policy": [
            ("policy-v1", "rolled_back", "eve", "worse"), ("policy-v1", "canary", "cay", "try"),
            ("policy-v0", "promote", "ann", "first"), *[(f"policy-v{n}", "publish", "test", "made") for n in (1, 0)],
        ],
        "key": [(bot.id, "create", "hal", "")],
        "round": [("round 1", "cancel", "ian", "test")],
    }  # fmt: skip
    for kind in STREAMS:
        assert audit(redis, only=kind).entries == [each for each in found if each.kind == kind]
    assert audit(redis, limit=2, only="release") == (audit(redis, only="release").entries[:2], True)
    assert [each.became for each in found if each.kind == "release"][:2] == [
        "rolled back", "proposed, step 1 of 2, policy-v1 at 0%",
    ]  # fmt: skip
    assert all(each.became is None for each in found if each.kind not in ("release", "key"))


def test_a_freeze_has_a_line_of_its_own_once(redis: Redis) -> None:
    assert not is_frozen(redis, "learning")
    assert not set_frozen(redis, "learning", False, actor="ann", reason="it is not")
    assert set_frozen(redis, "learning", True, actor="ann", reason="why")
    assert not set_frozen(redis, "learning", True, actor="bob", reason="again")
    assert (is_frozen(redis, "learning"), is_frozen(redis, "releases")) == (True, False)
    assert set_frozen(redis, "learning", False, actor="bob", reason="on")
    assert told(audit(redis).entries) == [
        ("freeze", "learning", "unfreeze", "bob", "on"), ("freeze", "learning", "freeze", "ann", "why"),
    ]  # fmt: skip
    redis.set(freeze_key("releases"), "1")
    assert is_frozen(redis, "releases")


def test_what_is_done_to_a_key_has_a_line_without_the_key(redis: Redis) -> None:
    ring = KeyRing(redis, "pepper")
    first = ring.create(name="ann", role="admin", actor="op")
    [key] = ring.list()
    second = ring.rotate(key.id, actor="bob")
    with pytest.raises(LastAdmin):
        ring.update(key.id, KeyChange(role="user"), spare_admin=True, actor="eve")
    ring.update(key.id, KeyChange(role="rater", limits=Limits(streams=2)), actor="cay")
    assert ring.revoke(key.id, actor="dan")
    assert not ring.revoke(key.id, actor="eve")
    with pytest.raises(UnknownKey):
        ring.rotate(key.id, actor="eve")
    assert of_keys(redis) == [
        (key.id, "create", "op", "ann, admin"), (key.id, "rotate", "bob", "ann, admin"),
        (key.id, "change", "cay", "ann, rater; given: limits, role"), (key.id, "revoke", "dan", "ann, rater"),
    ]  # fmt: skip
    written = str(redis.xrange("keys:audit"))
    assert not [plain for plain in (first, second) if plain in written or ring.place(plain) in written]


def test_an_invite_has_its_lines_and_so_has_the_key_that_it_made(redis: Redis) -> None:
    ring = KeyRing(redis, "pepper")
    invites = Invites(Sessions(ring))
    token, used = invites.create(name="ann", role="rater", actor="op")
    _, back = invites.create(name="bea", actor="op")
    assert invites.withdraw(back.id, actor="bob")
    assert not invites.withdraw(back.id, actor="eve")
    assert invites.accept(token) is not None and invites.accept(token) is None
    [key] = ring.list()
    assert of_keys(redis) == [
        (used.id, "invite", "op", "ann, rater"), (back.id, "invite", "op", "bea, user"),
        (back.id, "withdraw", "bob", "bea, user"), (key.id, "create", used.id, "ann, rater"),
    ]  # fmt: skip
    assert token not in str(redis.xrange("keys:audit"))


@pytest.mark.parametrize("before", ["", "5-0", "5-0-keys", "x-0-policy", "5-0-policy ", "٣-0-policy", "-1-0-rater"])
def test_what_is_no_id_is_refused(redis: Redis, before: str) -> None:
    with pytest.raises(ValueError, match="not the id"):
        audit(redis, before)


LINES: dict[str, dict[str, Any]] = {
    registry.AUDIT: {"version": 3, "from": "", "action": "pin", "actor": "a", "reason": "r", "time": 1.5},
    raters.AUDIT: {
        "data": json.dumps({"rater": "x", "action": "release", "actor": "a", "reason": "r", "time": 1.5})
    },
    "freezes:audit": {
        "data": FreezeLine(what="learning", action="freeze", actor="a", reason="r", time=1.5).model_dump_json()
    },
    "rounds:audit": {
        "data": RoundLine(round=4, action="cancel", actor="a", reason="r", time=1.5).model_dump_json()
    },
    "keys:audit": {
        "data": KeyLine(id="key_1", name="n", role="user", action="rotate", actor="a", time=1.5).model_dump_json()
    },
}  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    written=st.sets(st.tuples(st.sampled_from([*LINES]), st.integers(1, 5), st.integers(0, 2)), max_size=20),
    limit=st.integers(1, 6),
)
def test_pages_join_to_the_whole_list_also_within_one_moment(
    redis: Redis, written: set[tuple[str, int, int]], limit: int
) -> None:
    redis.flushdb()
    for stream, moment, number in sorted(written, key=lambda line: line[1:]):
        redis.xadd(stream, LINES[stream], id=f"{moment}-{number}")
    whole = audit(redis, limit=100).entries
    assert len({each.id for each in whole}) == len(written) == len(whole)
    places = [tuple(map(int, each.id.split("-")[:2])) for each in whole]
    assert places == sorted(places, reverse=True)
    found: list[Entry] = []
    more = bool(whole)
    while more:
        page = audit(redis, found[-1].id if found else None, limit)
        assert len(page.entries) <= limit
        found, more = found + page.entries, page.more
        assert len(found) <= len(whole), "nothing comes twice"
    assert found == whole
