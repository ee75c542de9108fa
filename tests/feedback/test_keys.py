import stat
from pathlib import Path

import pytest

from feedback.keys import KeyRing
from feedback.settings import Settings, load_secrets
from feedback.statistics import bootstrap_mean
from feedback.store import connect


@pytest.fixture
def keys(valkey_url: str) -> KeyRing:
    return KeyRing(connect(valkey_url), "pepper")


def test_a_key_is_known_by_its_text_and_never_stored(keys: KeyRing) -> None:
    plain = keys.create(name="app", role="user")
    found = keys.find(plain)
    assert found is not None and (found.name, found.role) == ("app", "user")
    assert keys.find(plain + "x") is None
    assert plain not in str(keys.redis.hgetall("keys"))
    assert keys.revoke(found.id)
    assert keys.find(plain) is None
    assert not keys.revoke(found.id)


def test_pseudonyms_are_stable_and_separate(keys: KeyRing) -> None:
    first = keys.find(keys.create(name="a", role="user"))
    second = keys.find(keys.create(name="b", role="user"))
    assert first is not None and second is not None
    assert keys.pseudonym(first, "ann") == keys.pseudonym(first, "ann")
    assert len({keys.pseudonym(k, u) for k in (first, second) for u in ("ann", "bob", None)}) == 6


def test_the_evaluation_share_is_fixed_and_about_right(keys: KeyRing) -> None:
    raters = [f"rater_{i}" for i in range(2000)]
    held = [r for r in raters if keys.split(r, 0.1) == "eval"]
    assert held == [r for r in raters if keys.split(r, 0.1) == "eval"]
    assert 150 <= len(held) <= 250
    assert all(keys.split(r, 0.0) == "train" for r in raters)


def test_an_operator_without_a_user_always_trains(keys: KeyRing) -> None:
    found = [keys.find(keys.create(name=str(i), role="admin")) for i in range(40)]
    admins = [key for key in found if key is not None]
    assert {keys.split(keys.pseudonym(key, None), 0.5) for key in admins} == {"train"}
    assert {keys.split(keys.pseudonym(key, "ann"), 0.5) for key in admins} == {"train", "eval"}


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = load_secrets(home)
    assert load_secrets(home) == first
    assert stat.S_IMODE((home / "secrets.json").stat().st_mode) == 0o600
    url = Settings(home=home, redis_port=7400).resolved_redis_url()
    assert url == f"redis://:{first.redis_password}@127.0.0.1:7400/0"


def test_bootstrap_mean_against_the_normal_interval() -> None:
    values = [float(i % 10) for i in range(1000)]  # mean 4.5, standard deviation 2.8723
    mean, low, high = bootstrap_mean(values)
    half = 1.96 * 2.8723 / 1000**0.5
    assert mean == 4.5
    assert low == pytest.approx(4.5 - half, abs=0.02)
    assert high == pytest.approx(4.5 + half, abs=0.02)
    with pytest.raises(ValueError):
        bootstrap_mean([])
