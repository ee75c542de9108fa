"""An installation where people judge: a careful one, one who reads nothing, and one who writes what should hurt."""

from typing import Any, NamedTuple

import httpx

from feedback.people.keys import KeyRing
from feedback.people.raters import Raters
from tests.serving.live import Live

HURT = "<img src=x onerror=\"hurt='{0}'\"><script>hurt='{0}'</script>"
QUESTION = "Why is the sky blue, and why is it red in the evening?"


class Person(NamedTuple):
    """Somebody with a key, and their pseudonym."""

    http: httpx.AsyncClient
    rater: str

    async def says(self, **judgement: Any) -> str:
        answer = await self.http.post("/v1/feedback", json=judgement)
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["id"])

    async def asks(self, live: Live, text: str, n: int = 1) -> list[str]:
        answer = await self.http.post("/v1/chat/completions", json=live.body(text, n=n))
        return list(answer.json()["ratchet"]["completion_ids"])

    async def compares(self, live: Live, text: str, winner: str, **more: Any) -> str:
        offer = await self.http.post("/v1/comparisons", json=live.body(text, model="auto"))
        return await self.says(type="comparison", comparison_id=offer.json()["id"], winner=winner, **more)


async def person(live: Live, name: str, role: Any = "user") -> Person:
    """Whoever gets a key of that name."""
    key = KeyRing(live.ledger.redis, "pepper").create(name=name, role=role)
    http = httpx.AsyncClient(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=60)
    return Person(http, (await http.get("/v1/me")).json()["rater"])


class People(NamedTuple):
    careful: Person
    careless: Person
    hurtful: Person


async def judged(live: Live) -> People:
    """One of each kind of judgement, with a revision, and somebody who chose left ten times of ten."""
    live.engine.set(says={QUESTION: "Because air scatters blue light most.", "tea?": "It is red."})
    careful, careless = await person(live, "ann"), await person(live, "max")
    hurtful = await person(live, HURT.format("name"))
    for _ in range(10):
        await careless.compares(live, "tea?", "left")
    await careful.compares(live, QUESTION, "right", shown_at=1767225600.0, answered_at=1767225612.0)
    three = await careful.asks(live, QUESTION, n=3)
    await careful.says(type="ranking", candidates=three, ranking="C > A = B")
    [one] = await careful.asks(live, "tea?")
    await careful.says(type="rating", completion_id=one, value=1)
    await careful.says(type="rating", completion_id=one, value=-1, reasons=["wrong"], comment="Tea is not red.")
    await careful.says(type="demonstration", completion_id=one, content="It is green.", based_on_edit=True)
    [bad] = await hurtful.asks(live, HURT.format("prompt"))
    await hurtful.says(type="rating", completion_id=bad, value=-1, comment=HURT.format("comment"))
    await hurtful.says(type="flag", completion_id=bad, reasons=[HURT.format("x")[:64]], comment=HURT.format("flag"))
    Raters(live.ledger.redis).quarantine(hurtful.rater, actor=HURT.format("actor"), reason=HURT.format("reason"))
    return People(careful, careless, hurtful)
