"""How long hands take: the keystroke-level model of Card, Moran and Newell, "The keystroke-level model for user
performance time with interactive systems", CACM 23(7), 1980. Without M, what people think before they do it."""

from collections.abc import Iterable

# Seconds, for an average skilled typist: a key or a mouse button, pointing, and a hand from keys to mouse or back.
SECONDS = {"K": 0.2, "P": 1.1, "H": 0.4}
# To drag is to point, press, point and let go. Keys that are held, as in a chord, count like others.
OPERATORS = {"key": "K", "click": "PK", "drag": "PKPK"}


def operators(inputs: Iterable[str]) -> str:
    """What hands do for these inputs, from the keys on, where the question was sent from."""
    done, at_keys = "", True
    for each in inputs:
        if at_keys != (each == "key"):
            done, at_keys = done + "H", not at_keys
        done += OPERATORS[each]
    return done


def hand_s(inputs: Iterable[str]) -> float:
    return sum(SECONDS[operator] for operator in operators(inputs))
