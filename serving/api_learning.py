"""What rounds and policy versions show in full, for the API's document."""

from typing import Literal

from pydantic import BaseModel, Field

from feedback.rounds import CoursePoint
from serving.api_schema import example
from serving.openapi import documented


class Course(BaseModel):
    object: Literal["round.course"]
    round: int
    data: list[CoursePoint] = Field(description="oldest first; of a long stage 400 steps, evenly spread")

    model_config = example({
        "object": "round.course", "round": 4,
        "data": [{
            "stage": "ppo", "step": 3, "total": 40, "time": 1767225600.5,
            "metrics": {"objective/score": 0.1, "objective/kl": 0.8},
        }],
    })  # fmt: skip


COURSE = documented("The figures of a round's steps as they came", tag="rounds", returns=Course, errors=(403, 404))
