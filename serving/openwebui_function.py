"""
title: Thumbs for Ratchet
description: Hands each thumb on an answer of Ratchet's to its POST /v1/feedback, where it trains.
version: 1.0.0
required_open_webui_version: 0.10.0
license: Apache-2.0
"""
# Runs in Open WebUI's process, which brings all that is imported here: nothing of ours imports this file, and it
# imports nothing of ours. The lines above are for Open WebUI.

import asyncio
import logging
from typing import Any

from open_webui.models.feedbacks import Feedbacks
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

RATED = ("feedback.created", "feedback.updated")
THUMBS = (1, -1)
# Of a minute together, as the client waits between them.
RETRIES = 10

log = logging.getLogger(__name__)


class Event:
    """Open WebUI tells only that a rating changed: what stands is read anew each time, one after the other."""

    class Valves(BaseModel):
        url: str = Field(default="http://127.0.0.1:8000/v1", description="the connection's, to Ratchet")
        key: str = Field(default="", description="the connection's; another key knows nothing of its people's answers")

    def __init__(self) -> None:
        self.valves = self.Valves()
        self._turn = asyncio.Lock()

    async def event(self, event: dict[str, Any]) -> None:
        if event["event"] not in RATED:
            return
        async with self._turn:
            given = await Feedbacks.get_feedback_by_id(event["subject"]["id"])
            if given is not None and (rating := rating_of(given.data or {})):
                await self._send(given.meta["message_id"], {**rating, "user": given.user_id})

    async def _send(self, message: str, rating: dict[str, Any]) -> None:
        """Of several answers in one message, as around a tool's call, the last one is meant."""
        key, url = self.valves.key, self.valves.url
        async with AsyncOpenAI(api_key=key, base_url=url, max_retries=RETRIES, timeout=30) as ratchet:
            found = await ratchet.chat.completions.list(
                metadata={"message_id": message}, order="desc", limit=1, extra_query={"user": rating["user"]}
            )
            if not found.data:  # of another connection, or asked without the header that names the message
                log.info("Ratchet has no answer for message %s", message)
            for answer in found.data:
                await ratchet.post("/feedback", body={**rating, "completion_id": answer.id}, cast_to=object)


def rating_of(data: dict[str, Any]) -> dict[str, Any] | None:
    """A thumb with its reason and comment in our words; None without a thumb."""
    if data.get("rating") not in THUMBS:
        return None
    rating = {"type": "rating", "value": data["rating"]}
    if reason := (data.get("reason") or "").strip():
        rating["reasons"] = [reason[:64]]
    if comment := (data.get("comment") or "").strip():
        rating["comment"] = comment
    return rating
