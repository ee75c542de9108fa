"""Completions of the ledger that may train, each with its tokens."""

from collections.abc import Callable, Collection, Iterable, Sequence

from feedback.archive import Archive
from feedback.judgements import Feedback
from feedback.records import Completion, Message
from feedback.store import Ledger

CHUNK = 500

Ids = tuple[int, ...]
#: An answer to messages as the token ids of prompt and completion; raises ValueError where the template cannot say it.
Encode = Callable[[Sequence[Message], str], tuple[Ids, Ids]]


def heard(ledger: Ledger, watermark: str, quarantined: Collection[str]) -> list[Feedback]:
    """What people say as of `watermark`, without checks of raters, and of those in quarantine nothing."""
    return [each for each in ledger.standing(watermark) if not each.is_check and each.rater not in quarantined]


class Answers:
    """Reads completions that may train and can be attributed to one policy or to none, each with its tokens."""

    def __init__(self, ledger: Ledger, encode: Encode) -> None:
        self._ledger, self._encode = ledger, encode
        self._encoded: dict[str, Completion] = {}
        self.unencodable: set[str] = set()

    def usable(self, ids: Iterable[str]) -> dict[str, Completion]:
        """Those among `ids`."""
        ordered = sorted(ids)
        found: dict[str, Completion] = {}
        for start in range(0, len(ordered), CHUNK):
            known = self._permitted(self._ledger.completions(tuple(ordered[start : start + CHUNK])))
            tokens = {id: self._with_tokens(completion) for id, completion in known.items()}
            found |= {id: c for id, c in tokens.items() if c and c.prompt_token_ids and c.completion_token_ids}
        return found

    def _permitted(self, known: dict[str, Completion]) -> dict[str, Completion]:
        """Without decoys, and those that their people keep out of training by now."""
        withheld = Archive(self._ledger).withheld(known.values())
        whole = {id: each for id, each in known.items() if each.version_changed_at is None and not each.decoy}
        return {id: each for id, each in whole.items() if id not in withheld}

    def _with_tokens(self, completion: Completion) -> Completion | None:
        imported = completion.policy_version is None and not completion.completion_token_ids
        if not imported or completion.id in self._encoded:
            return self._encoded.get(completion.id, completion)
        if completion.id in self.unencodable:
            return None
        try:
            if completion.tool_calls:
                raise ValueError("calls of tools cannot be encoded")
            prompt, answer = self._encode(completion.messages, completion.text)
        except ValueError:
            self.unencodable.add(completion.id)
            return None
        encoded = completion.model_copy(update={"prompt_token_ids": prompt, "completion_token_ids": answer})
        self._encoded[completion.id] = encoded
        return encoded
