import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from pydantic import ValidationError
from redis import Redis

from feedback.people.keys import KEYS, ApiKey, KeyChange, KeyRing, LastAdmin, Limits, UnknownKey
from feedback.settings import Settings, load_secrets
from feedback.store import connect


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def found(keys: KeyRing, plain: str) -> ApiKey:
    key = keys.find(plain)
    assert key is not None
    return key


def test_a_key_is_known_by_its_text_and_never_stored(keys: KeyRing) -> None:
    plain = keys.create(name="app", role="user")
    key = found(keys, plain)
    assert (key.name, key.role) == ("app", "user")
    assert keys.find(plain + "x") is None
    assert plain not in str(keys.redis.hgetall("keys"))
    assert keys.revoke(key.id)
    assert keys.find(plain) is None
    assert not keys.revoke(key.id)


def test_a_key_stored_before_there_were_limits_still_works(keys: KeyRing) -> None:
    plain = keys.create(name="old", role="rater")
    [(place, text)] = keys.redis.hgetall(KEYS).items()
    old = {name: json.loads(text)[name] for name in ("id", "name", "role", "created")}
    keys.redis.hset(KEYS, place, json.dumps(old))
    key = found(keys, plain)
    assert (key.expires, key.limits, key.last_rotated) == (None, Limits(), None)
    assert found(keys, keys.rotate(key.id)).id == key.id


def test_a_key_works_until_the_moment_it_expires(keys: KeyRing, clock: Clock) -> None:
    plain = keys.create(name="guest", role="user", expires=clock.now + 60)
    key = found(keys, plain)
    clock.now += 59.9
    assert keys.find(plain) == key
    clock.now += 0.1
    assert keys.find(plain) is None
    assert keys.list() == [key], "it can still be seen, and revived"
    keys.update(key.id, KeyChange(expires=clock.now + 1))
    assert found(keys, plain).id == key.id


def test_rotation_replaces_the_text_and_keeps_the_person(keys: KeyRing, clock: Clock) -> None:
    first = keys.create(name="ann", role="user", limits=Limits(streams=2))
    before = found(keys, first)
    clock.now += 5
    second = keys.rotate(before.id)
    after = found(keys, second)
    assert keys.find(first) is None
    assert after == before.model_copy(update={"last_rotated": clock.now})
    assert keys.pseudonym(after, None) == keys.pseudonym(before, None)
    assert second not in str(keys.redis.hgetall(KEYS))


def test_a_change_touches_what_it_names_and_nothing_else(keys: KeyRing, clock: Clock) -> None:
    limits = Limits(requests_per_minute=5, tokens_per_day=100)
    plain = keys.create(name="ann", role="user", expires=clock.now + 60, limits=limits)
    before = found(keys, plain)
    change = KeyChange.model_validate({"limits": {"requests_per_minute": None, "streams": 3}})
    after = keys.update(before.id, change)
    assert after == before.model_copy(update={"limits": Limits(tokens_per_day=100, streams=3)})
    after = keys.update(before.id, KeyChange.model_validate({"name": "anna", "expires": None}))
    assert (after.name, after.expires, after.role, after.limits) == (
        "anna",
        None,
        "user",
        Limits(tokens_per_day=100, streams=3),
    )
    assert found(keys, plain) == after == keys.get(before.id)


def test_a_key_that_is_not_there_is_unknown(keys: KeyRing) -> None:
    for call in (keys.get, keys.rotate, lambda id: keys.update(id, KeyChange())):
        with pytest.raises(UnknownKey, match="there is no key key_x"):
            call("key_x")


@pytest.mark.parametrize(
    "body",
    [
        {"limits": {"streams": 0}}, {"limits": {"streams": -1}}, {"limits": {"streams": True}},
        {"limits": {"streams": "3"}},
        {"limits": {"streams": 1.5}}, {"limits": {"steams": 1}}, {"limits": None}, {"name": ""}, {"name": None},
        {"name": "a\x1b[31m"}, {"name": "a\nb"}, {"name": "x" * 101}, {"role": "king"}, {"expires": float("nan")},
        {"expires": float("inf")}, {"expires": 1e300}, {"expires": "soon"}, {"expires": True},
        {"id": "key_mine"}, {"created": 1.0},
    ],
)  # fmt: skip
def test_what_a_key_cannot_be_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KeyChange.model_validate(body)


def test_the_last_living_admin_is_spared_where_it_is_asked(keys: KeyRing, clock: Clock) -> None:
    root = found(keys, keys.create(name="root", role="admin"))
    other = found(keys, keys.create(name="other", role="admin", expires=clock.now + 60))
    keys.create(name="joe", role="user")
    clock.now += 60  # now the other one is dead, and does not count
    with pytest.raises(LastAdmin):
        keys.revoke(root.id, spare_admin=True)
    with pytest.raises(LastAdmin):
        keys.update(root.id, KeyChange(role="operator"), spare_admin=True)
    assert keys.get(root.id) == root
    assert keys.update(root.id, KeyChange(name="root2"), spare_admin=True).role == "admin"
    keys.update(other.id, KeyChange(expires=clock.now + 60))
    assert keys.revoke(root.id, spare_admin=True)
    assert keys.revoke(other.id), "whoever has the machine may revoke them all"


def test_of_many_who_revoke_each_other_one_admin_is_left(keys: KeyRing) -> None:
    admins = [found(keys, keys.create(name=f"a{i}", role="admin")) for i in range(8)]

    def revoke(key: ApiKey) -> bool:
        try:
            return keys.revoke(key.id, spare_admin=True)
        except LastAdmin:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(revoke, admins)) == 7
    assert len(keys.list()) == 1


def test_of_many_rotations_at_once_one_text_is_left(keys: KeyRing) -> None:
    key = found(keys, keys.create(name="ann", role="user"))
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: keys.rotate(key.id), range(8)))
    assert len([text for text in texts if keys.find(text)]) == 1
    assert keys.redis.hlen(KEYS) == 1


class Rings(RuleBasedStateMachine):
    """Whatever happens to keys, exactly the newest texts of those that were neither revoked nor outlived work."""

    redis: Redis
    ids: Bundle[str] = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.redis.flushall()
        self.keys = KeyRing(self.redis, "pepper", self.clock)
        self.text: dict[str, str] = {}
        self.until: dict[str, float | None] = {}
        self.dead: set[str] = set()

    @rule(target=ids, lasts=st.none() | st.integers(1, 5), role=st.sampled_from(["user", "admin"]))
    def create(self, lasts: int | None, role: Any) -> str:
        until = None if lasts is None else self.clock.now + lasts
        plain = self.keys.create(name="k", role=role, expires=until)
        id = found(self.keys, plain).id
        self.text[id], self.until[id] = plain, until
        return id

    @rule(id=ids)
    def rotate(self, id: str) -> None:
        self.dead.add(self.text[id])
        self.text[id] = self.keys.rotate(id)

    @rule(id=ids, lasts=st.none() | st.integers(1, 5))
    def extend(self, id: str, lasts: int | None) -> None:
        self.until[id] = None if lasts is None else self.clock.now + lasts
        self.keys.update(id, KeyChange(expires=self.until[id]))

    @rule(id=consumes(ids))
    def revoke(self, id: str) -> None:
        assert self.keys.revoke(id)
        assert not self.keys.revoke(id)
        self.dead.add(self.text.pop(id))

    @rule(target=ids, id=consumes(ids))
    def revoke_unless_last_admin(self, id: str) -> Any:
        living = [key for key in self.keys.list() if key.role == "admin" and key.living(self.clock.now)]
        try:
            self.keys.revoke(id, spare_admin=True)
        except LastAdmin:
            assert [key.id for key in living] == [id]
            return id
        assert [key.id for key in living] != [id]
        self.dead.add(self.text.pop(id))
        return multiple()

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def exactly_the_living_work(self) -> None:
        for id, plain in self.text.items():
            until, key = self.until[id], self.keys.find(plain)
            living = until is None or self.clock.now < until
            assert (key.id if key else None) == (id if living else None)
        assert all(self.keys.find(plain) is None for plain in self.dead)
        assert [key.id for key in self.keys.list()] == sorted(self.text)


def test_any_sequence_of_changes_keeps_exactly_the_living_keys_valid(valkey_url: str) -> None:
    Rings.redis = connect(valkey_url)
    modest = settings(max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Rings, settings=modest)  # type: ignore[no-untyped-call]


def test_pseudonyms_are_stable_and_separate(keys: KeyRing) -> None:
    first = found(keys, keys.create(name="a", role="user"))
    second = found(keys, keys.create(name="b", role="user"))
    assert keys.pseudonym(first, "ann") == keys.pseudonym(first, "ann")
    assert len({keys.pseudonym(k, u) for k in (first, second) for u in ("ann", "bob", None)}) == 6


def test_the_evaluation_share_is_fixed_and_about_right(keys: KeyRing) -> None:
    raters = [f"rater_{i}" for i in range(2000)]
    held = [r for r in raters if keys.split(r, 0.1) == "eval"]
    assert held == [r for r in raters if keys.split(r, 0.1) == "eval"]
    assert 150 <= len(held) <= 250
    assert all(keys.split(r, 0.0) == "train" for r in raters)


def test_an_operator_without_a_user_always_trains(keys: KeyRing) -> None:
    admins = [found(keys, keys.create(name=str(i), role="admin")) for i in range(40)]
    assert {keys.split(keys.pseudonym(key, None), 0.5) for key in admins} == {"train"}
    assert {keys.split(keys.pseudonym(key, "ann"), 0.5) for key in admins} == {"train", "eval"}


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = load_secrets(home)
    assert load_secrets(home) == first
    assert stat.S_IMODE((home / "secrets.json").stat().st_mode) == 0o600
    url = Settings(home=home, redis_port=7400).resolved_redis_url()
    assert url == f"redis://:{first.redis_password}@127.0.0.1:7400/0"


def test_imported_raters_keep_the_split_they_were_given(keys: KeyRing) -> None:
    trains, judges = keys.imported("file|ann", "train"), keys.imported("file|ann", "eval")
    assert {keys.split(trains, share) for share in (0.0, 0.5, 0.9)} == {"train"}
    assert {keys.split(judges, share) for share in (0.0, 0.5, 0.9)} == {"eval"}
    assert keys.imported("file|ann", "train") == trains
    assert keys.imported("file|bob", "train") != trains
    assert "ann" not in trains


def test_salts_are_of_one_purpose_and_one_installation(keys: KeyRing) -> None:
    salts = {keys.salt("export"), keys.salt("other"), KeyRing(keys.redis, "other pepper").salt("export")}
    assert len(salts) == 3
    assert keys.salt("export") == keys.salt("export")
