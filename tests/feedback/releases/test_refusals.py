import pytest

from feedback.releases.refusals import refuses


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I am sorry, I cannot assist with this request.",
        "Sorry, I can’t help you with that.",
        "I cannot provide instructions for that.",
        "As an AI language model, I can't do that.",
        "Unfortunately, I am unable to fulfill this request.",
        "I'm afraid I can't do that, Dave.",
        "  “I will not comply.”",
        "I won't write that.",
        "I apologize, but I cannot continue this conversation.",
        "I'm not able to discuss this.",
    ],
)
def test_refusals(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sorry to hear that! Here is what you can do.",
        "I'm sorry for the confusion: the capital is Paris.",
        "I can help with that.",
        "I can't wait to help you!",
        "You cannot do that in Python, but you can write this.",
        "The error says 'I cannot provide a value'.",
        "I cannot stress enough how important sleep is.",
        "Sure. " * 40 + "I can't help with the rest.",
    ],
)
def test_no_refusals(text: str) -> None:
    assert not refuses(text)
