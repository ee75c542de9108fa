"""Sessions: each ends with its key, however that ends, and no token is kept."""

from feedback.people.keys import KeyChange, KeyRing
from feedback.people.sessions import LASTS_S, Sessions, SignedIn
from feedback.records import new_id
from tests.conftest import wait_for
from tests.feedback.conftest import Clock


def signed_in(keys: KeyRing, *, expires: float | None = None) -> SignedIn:
    plain = keys.create(name="ann", role="rater", expires=expires)
    key = keys.find(plain)
    assert key is not None
    return Sessions(keys).begin(keys.place(plain), key)


def test_a_session_is_found_by_its_token_which_is_not_kept(keys: KeyRing, clock: Clock) -> None:
    new = signed_in(keys)
    found = Sessions(keys).find(new.token)
    assert found == new
    assert (found.key.name, found.session.expires) == ("ann", clock.now + LASTS_S)
    stored = {name: keys.redis.get(name) for name in keys.redis.keys("session:*")}
    assert len(stored) == 1
    assert new.token not in str(stored)
    assert new.token[len("rs_") :] not in str(stored)
    assert Sessions(keys).find(new.token + "x") is None
    assert Sessions(KeyRing(keys.redis, "another", clock)).find(new.token) is None


def test_it_is_over_after_a_month_and_redis_forgets_it(keys: KeyRing, clock: Clock) -> None:
    new = signed_in(keys)
    [name] = keys.redis.keys("session:*")
    assert 0 < keys.redis.expiretime(name) - new.session.expires <= 1
    clock.now += LASTS_S - 1
    assert Sessions(keys).find(new.token) is not None
    clock.now += 1
    assert Sessions(keys).find(new.token) is None


def test_it_is_over_when_its_key_expires_also_if_that_is_said_later(keys: KeyRing, clock: Clock) -> None:
    short, long = signed_in(keys, expires=clock.now + 60), signed_in(keys)
    assert short.session.expires == clock.now + 60
    keys.update(long.key.id, KeyChange(expires=clock.now + 30))
    clock.now += 29
    assert all(Sessions(keys).find(each.token) for each in (short, long))
    clock.now += 1
    assert Sessions(keys).find(long.token) is None
    clock.now += 30
    assert Sessions(keys).find(short.token) is None


def test_it_ends_with_its_key_and_shows_what_becomes_of_it(keys: KeyRing) -> None:
    first, second, third = (signed_in(keys) for _ in range(3))
    keys.update(first.key.id, KeyChange(role="operator"))
    found = Sessions(keys).find(first.token)
    assert found is not None and found.key.role == "operator"
    keys.revoke(first.key.id)
    keys.rotate(second.key.id)
    assert [Sessions(keys).find(each.token) is None for each in (first, second, third)] == [True, True, False]


def test_signing_out_ends_one_session_of_a_key(keys: KeyRing) -> None:
    plain = keys.create(name="ann", role="user")
    key = keys.find(plain)
    assert key is not None
    here, there = (Sessions(keys).begin(keys.place(plain), key) for _ in range(2))
    assert Sessions(keys).end(here.token)
    assert not Sessions(keys).end(here.token)
    assert Sessions(keys).find(here.token) is None
    assert Sessions(keys).find(there.token) == there


def test_the_first_admin_is_the_oldest_that_lives_and_made_if_need_be(keys: KeyRing, clock: Clock) -> None:
    keys.create(name="user", role="user")
    keys.create(name="late", role="admin", expires=clock.now)
    place, made = keys.first_admin()
    assert (made.name, made.role, keys.at(place)) == ("admin", "admin", made)
    # Ids tell by the millisecond which key is older.
    wait_for(lambda: new_id("key_")[:16] > made.id[:16], seconds=5, what="the next millisecond")
    keys.create(name="younger", role="admin")
    assert keys.first_admin() == (place, made)
