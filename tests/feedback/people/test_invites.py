"""Invites: each makes one key, whoever comes at once, and none is kept as it was sent."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from pydantic import ValidationError

from feedback.people.invites import INVITES, LASTS_S, Invites, link
from feedback.people.keys import KeyRing
from feedback.people.sessions import Sessions
from tests.feedback.conftest import Clock


@pytest.fixture
def invites(keys: KeyRing) -> Invites:
    return Invites(Sessions(keys))


def test_an_invite_makes_a_key_and_a_session_once(keys: KeyRing, invites: Invites, clock: Clock) -> None:
    token, invite = invites.create(name="ann", role="rater")
    assert (invite.name, invite.role, invite.expires) == ("ann", "rater", clock.now + LASTS_S)
    assert invites.list() == [invite]
    assert token not in str(keys.redis.hgetall(INVITES))
    new = invites.accept(token)
    assert new is not None
    assert Sessions(keys).find(new.token) == new
    assert keys.list() == [new.key]
    assert (new.key.name, new.key.role, new.key.expires) == ("ann", "rater", None)
    assert invites.accept(token) is None
    assert (invites.list(), keys.list()) == ([], [new.key])


def test_of_twenty_at_once_one_is_let_in(keys: KeyRing, invites: Invites, monkeypatch: pytest.MonkeyPatch) -> None:
    token, _ = invites.create(name="ann")
    script, all_have_read = invites._accept, Barrier(20, timeout=60)

    def accept_together(**call: Any) -> Any:
        all_have_read.wait()
        return script(**call)

    monkeypatch.setattr(invites, "_accept", accept_together)
    with ThreadPoolExecutor(20) as pool:
        came = [new for new in pool.map(invites.accept, [token] * 20) if new is not None]
    assert len(came) == 1
    assert keys.list() == [came[0].key]
    assert len(keys.redis.keys("session:*")) == 1


def test_a_late_or_withdrawn_or_made_up_invite_makes_nothing(keys: KeyRing, invites: Invites, clock: Clock) -> None:
    late, _ = invites.create(name="late", expires=clock.now + 60)
    back, withdrawn = invites.create(name="withdrawn")
    assert invites.withdraw(withdrawn.id)
    assert not invites.withdraw(withdrawn.id)
    clock.now += 60
    assert [invites.accept(token) for token in (late, back, "inv_madeup", "")] == [None] * 4
    assert keys.list() == []
    assert keys.redis.hlen(INVITES) == 1
    assert invites.list() == []
    assert keys.redis.hlen(INVITES) == 0, "who cannot come any more is forgotten"


def test_a_rotated_key_of_an_invite_is_anybodys_key(keys: KeyRing, invites: Invites) -> None:
    new = invites.accept(invites.create(name="ann")[0])
    assert new is not None
    plain = keys.rotate(new.key.id)
    rotated = keys.find(plain)
    assert rotated is not None and rotated.id == new.key.id
    assert Sessions(keys).find(new.token) is None


@pytest.mark.parametrize("name", ["", "a\x00b", "a" * 101])
def test_names_are_those_of_keys(invites: Invites, name: str) -> None:
    with pytest.raises(ValidationError):
        invites.create(name=name)


def test_a_link_hides_its_token_from_servers() -> None:
    assert link("http://127.0.0.1:8000", "inv_x") == "http://127.0.0.1:8000/join#inv_x"
