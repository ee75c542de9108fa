"""What the document says of each route; kept apart so that the routes stay readable."""

from typing import Any

from feedback.people.keys import KeyChange, NewKey
from serving.document import judgements as judged
from serving.document import kept, operations, releases, schema
from serving.document.openapi import MEANINGS, documented

_MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
EVENTS = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "One server-sent event.",
            "properties": {"data": {"type": "string", "description": "a chat.completion.chunk; at last [DONE]"}},
            "required": ["data"],
        },
        "example": 'data: {"object":"chat.completion.chunk","choices":[]}\n\ndata: [DONE]\n\n',
    }
}
LINES = {
    "application/x-ndjson": {
        "schema": {"type": "string", "description": "JSON objects, one a line"},
        "example": '{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello."}]}\n',
    }
}
PLOT = {
    "image/svg+xml": {
        "schema": {"type": "string"}, "example": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 64"></svg>',
    }
}  # fmt: skip
_METADATA = {
    "name": "metadata", "in": "query", "style": "deepObject", "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    "description": "`metadata[name]=value`, several times if all must fit", "example": {"topic": "sky"},
}  # fmt: skip

CHAT = documented(
    "Chat with the policy",
    tag="chat",
    returns=schema.ChatCompletion,
    body=schema.ChatRequest,
    examples={
        "chat": {"model": "policy", "messages": _MESSAGES, "max_tokens": 64},
        "stream": {"model": "policy", "messages": _MESSAGES, "max_tokens": 64, "stream": True},
        "stream to go on with": {
            "model": "policy",
            "messages": _MESSAGES,
            "stream": True,
            "stream_options": {"resumable": True},
        },
        "in a conversation": {
            "model": "policy",
            "messages": _MESSAGES,
            "metadata": {"conversation_id": "sky", "consent": "false"},
        },
        "candidates to rank": {"model": "policy", "messages": _MESSAGES, "max_tokens": 64, "n": 4},
    },  # fmt: skip
    also=EVENTS,
    errors=(404, 504),
)
RESUME = documented("Go on with a stream after Last-Event-ID", tag="chat", also=EVENTS, errors=(404,))
CANCEL = documented("Stop an answer, keep what was shown", tag="chat", returns=schema.Cancelled, errors=(404,))
MODELS = documented("What can be chatted with", tag="chat", returns=schema.ModelList)
MODEL = documented("One of the models", tag="chat", returns=schema.Model, errors=(404,))

CHATS = documented(
    "Stored chats, page by page", tag="stored", returns=kept.CompletionList, parameters=(_METADATA,), errors=(404,)
)
CHATTED = documented("One stored chat", tag="stored", returns=schema.ChatCompletion, errors=(404,))
MESSAGES = documented("What a stored chat answers", tag="stored", returns=kept.MessageList, errors=(404,))
ANNOTATE = documented(
    "New metadata, which may be a vote",
    tag="stored",
    returns=schema.ChatCompletion,
    body=kept.NewMetadata,
    examples={
        "metadata": {"metadata": {"topic": "sky"}},
        "thumb": {"metadata": {"feedback": "down", "feedback_reason": "wrong", "feedback_comment": "It is not."}},
        "mark of a choice": {"metadata": {"feedback": "0.7", "feedback_choice": "0"}},
    },
    errors=(404, 409, 422),
)
DELETE_CHAT = documented(
    "Erase a stored chat and its feedback", tag="stored", returns=kept.DeletedAnswers, errors=(404,)
)

CONVERSATIONS = documented(
    "Conversations, last used first", tag="conversations", returns=kept.ConversationList, errors=(404,)
)
CONVERSATION = documented("One conversation", tag="conversations", returns=kept.ConversationCard, errors=(404,))
TREE = documented("A conversation with all its branches", tag="conversations", returns=kept.Tree, errors=(404,))
BRANCH = documented("A branch, ready to be sent again", tag="conversations", returns=kept.Branch, errors=(404,))
CHANGE_CONVERSATION = documented(
    "Set title, allow_training or head",
    tag="conversations",
    returns=kept.ConversationCard,
    body=kept.ConversationChange,
    examples={
        "title": {"title": "The sky"},
        "out of training": {"allow_training": False},
        "another branch": {"head": "chatcmpl-0199c2:1"},
    },
    errors=(404,),
)
DELETE_CONVERSATION = documented(
    "Erase a conversation and its feedback", tag="conversations", returns=kept.DeletedAnswers, errors=(404,)
)

JUDGE = documented(
    "Say what an answer is worth",
    tag="feedback",
    returns=judged.Accepted,
    done=(200, 201),
    body=judged.judgement_schema(),
    examples=judged.EXAMPLES,
    errors=(404, 409, 422),
)
ALIAS = documented(
    "A judgement in TensorZero's words",
    tag="feedback",
    returns=judged.MetricKept,
    body=judged.Metric,
    examples={
        "thumb": {"inference_id": judged.FIRST, "metric_name": "rating", "value": True},
        "mark for one metric": {"inference_id": judged.FIRST, "metric_name": "tone", "value": 0.7},
        "comment": {"inference_id": judged.FIRST, "metric_name": "comment", "value": "Too short."},
    },
    errors=(404, 409, 422),
)
FEEDBACKS = documented("Judgements, page by page", tag="feedback", returns=judged.FeedbackList, errors=(403,))
TAKE_BACK = documented("Undo a judgement", tag="feedback", returns=kept.Deleted, errors=(403, 404, 409))
COMPARE = documented(
    "Several answers side by side, blind",
    tag="comparisons",
    returns=schema.Compared,
    body=schema.ToCompare,
    examples={
        "two answers": {"model": "auto", "k": 2, "messages": _MESSAGES, "max_tokens": 64},
        "a pair that comes again": {"repeat": True},
    },
    also=EVENTS,
    errors=(404, 504),
)
COMPARISON = documented("What was laid side by side", tag="comparisons", returns=schema.ShownComparison, errors=(404,))
FEEDBACK = documented("One judgement", tag="feedback", returns=judged.FeedbackWithHistory, errors=(404,))
EXPORT = documented("What people said, as lines of a training format", tag="feedback", also=LINES, errors=(403,))

CREATE_KEY = documented(
    "Make a key, shown this once",
    tag="keys",
    returns=kept.ShownKey,
    done=(201,),
    body=kept.key_schema(NewKey),
    examples={
        "person": {"name": "ann"},
        "application with limits": {
            "name": "notes", "role": "operator", "expires": 4102444800,
            "limits": {"requests_per_minute": 60, "tokens_per_day": 100_000, "streams": 4, "feedback_per_day": 500},
        },
    },
    errors=(403,),
)  # fmt: skip
KEYS = documented("Keys, oldest first", tag="keys", returns=kept.KeyList, errors=(403,))
KEY = documented("One key", tag="keys", returns=kept.CountedKey, errors=(403, 404))
CHANGE_KEY = documented(
    "Change a key's name, role, limits or expiry",
    tag="keys",
    returns=kept.Key,
    body=kept.key_schema(KeyChange),
    examples={"role": {"role": "rater"}, "a limit": {"limits": {"streams": 2}}},
    errors=(403, 404, 409),
)
ROTATE_KEY = documented("A new text for a key", tag="keys", returns=kept.ShownKey, errors=(403, 404))
REVOKE_KEY = documented("Revoke a key", tag="keys", returns=kept.Deleted, errors=(403, 404, 409))

ME = documented("The caller's own key", tag="me", returns=kept.Me)
TAKE_ALONG = documented("Everything that is kept of a person", tag="me", also=LINES, errors=(403, 404))
FORGET_ME = documented("Erase everything of a person", tag="me", returns=kept.DeletedMe, errors=(404,))

POLICIES = documented("All policy versions", tag="policies", returns=operations.PolicyList, errors=(403,))
LEADERBOARD = documented(
    "Policy versions by what people prefer, with intervals",
    tag="policies",
    returns=operations.Leaders,
    also=PLOT,
    errors=(403, 404),
)
ROLLBACK = documented(
    "Back to an earlier policy",
    tag="policies",
    returns=operations.PointedPolicy,
    body=operations.Rollback,
    examples={"the one before": {}, "a certain one": {"to": "policy-v2", "reason": "it rambles"}},
    optional=True,
    errors=(403, 404, 409),
)
PROMOTE = documented(
    "Make a policy the one that serves",
    tag="policies",
    returns=operations.PointedPolicy,
    body=operations.Promotion,
    examples={"promotion": {"reason": "looks good"}},
    optional=True,
    errors=(403, 404, 409),
)

START_RELEASE = documented(
    "Release a candidate, in place of the one under way",
    tag="releases",
    returns=releases.ShownRelease,
    done=(201,),
    body=releases.ReleaseWish,
    examples={
        "as the installation has it": {"candidate": "policy-v7", "reason": "fewer words"},
        "with steps": {
            "candidate": "policy-v7", "mode": "assisted", "replaces": None,
            "strategy": {"steps": [{"set_weight": 5}, {"pause": "30m"}, {"set_weight": 25}, {"analysis": True}]},
            "analysis": {"alpha": 0.05, "max_votes": 2000},
        },
        "with other rules": {"candidate": 7, "plan": {"raters": "all", "limits": {"errors": 2.0}, "deadline": "2d"}},
    },
    errors=(403, 404, 409),
)  # fmt: skip
RELEASES = documented("Releases, newest first", tag="releases", returns=releases.ReleaseList, errors=(403,))
RELEASE = documented(
    "A release by its number, or `current`: its steps, votes and history",
    tag="releases", returns=releases.ReleaseWithHistory, errors=(403, 404),
)  # fmt: skip
RELEASES_FROZEN = documented(
    "May releases start by themselves?", tag="releases", returns=releases.FrozenReleases, errors=(403,)
)
FREEZE_RELEASES = documented(
    "Let no release start or promote by itself, or let them again",
    tag="releases",
    returns=releases.FrozenReleases,
    body=operations.Freeze,
    examples={"freeze": {"frozen": True, "reason": "we look into it"}, "unfreeze": {"frozen": False}},
    errors=(403,),
)
SELF_TEST = documented("Does stable tie with itself?", tag="releases", returns=releases.ShownSelfTest, errors=(403,))
RESET_SELF_TEST = documented(
    "Begin the test of votes anew, and end its alarm",
    tag="releases",
    returns=releases.ShownSelfTest,
    body=releases.ResetSelfTest,
    examples={"the fault is found": {"reset": True}},
    errors=(403,),
)


def _order(summary: str, body: type[releases.ReleaseOrder], examples: dict[str, schema.Schema]) -> dict[str, Any]:
    """What operators do to an open release; `current` is a number too."""
    shown = releases.ShownRelease
    return documented(
        summary, tag="releases", returns=shown, body=body, examples=examples, optional=True, errors=(403, 404, 409)
    )


PROMOTE_RELEASE = _order(
    "Pass the step under way; one that is proposed serves",
    releases.ReleasePromotion,
    {"next step": {}, "all steps": {"full": True, "reason": "we need it now", "revision": 4}},
)
_ANY_REASON: dict[str, schema.Schema] = {"at any revision": {"reason": "people complain"}, "at this": {"revision": 4}}
PAUSE_RELEASE = _order("Take no further step for now", releases.ReleaseOrder, _ANY_REASON)
RESUME_RELEASE = _order("Go on with a paused release", releases.ReleaseOrder, _ANY_REASON)
ABORT_RELEASE = _order("End a release, nothing decided", releases.ReleaseOrder, _ANY_REASON)
ROLL_BACK_RELEASE = _order("End a release: the candidate is worse", releases.ReleaseOrder, _ANY_REASON)

OPEN_ROUND = documented(
    "Start a training round, unless one is open", tag="rounds", returns=operations.Round, done=(200, 201), errors=(403,)
)
ROUNDS = documented("Training rounds, newest first", tag="rounds", returns=operations.RoundList, errors=(403,))
ROUND = documented("One training round", tag="rounds", returns=operations.Round, errors=(403, 404))
FREEZE = documented(
    "Stop learning, or go on",
    tag="rounds",
    returns=operations.Frozen,
    body=operations.Freeze,
    examples={"freeze": {"frozen": True, "reason": "we look into it"}},
    errors=(403,),
)

HEALTH = documented("Is the process alive?", tag="health", returns=schema.Health)
READY = documented("Can it serve?", tag="health", returns=schema.Readiness)
READY["responses"][503] = {"description": MEANINGS[503], "model": schema.Readiness}
METRICS = documented(
    "What Prometheus scrapes",
    tag="health",
    also={"text/plain": {"schema": {"type": "string"}, "example": "ratchet_ready 1.0\n"}},
)
