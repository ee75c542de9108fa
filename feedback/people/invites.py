"""Links by which people sign in for the first time: each makes one key and is used once."""

import hmac
import json
import secrets
from typing import Any

from feedback.people.key_audit import AUDIT, INSTALLATION, line, note
from feedback.people.keys import KEYS, ApiKey, Name, Role, new_plain
from feedback.people.sessions import Sessions, SignedIn, until
from feedback.records import Record, new_id

INVITES = "invites"
LASTS_S = 7 * 86_400.0

# Of two at once one finds it as it was read. Key and session are there as soon as it is gone.
_ACCEPT = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('SET', KEYS[3], ARGV[5], 'EXAT', ARGV[6])
redis.call('XADD', KEYS[4], '*', 'data', ARGV[7])
return 1
"""

# Not one that somebody used meanwhile.
_WITHDRAW = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', 'data', ARGV[2])
return 1
"""


class NewInvite(Record):
    """Whom it is for, and what they may do."""

    name: Name
    role: Role = "user"


class Invite(NewInvite):
    """What is known of a link that nobody has used yet; times are Unix seconds."""

    id: str
    created: float
    expires: float


class Invites:
    """The open invites of one installation, by their tokens, of which only an HMAC is kept."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions, self.keys = sessions, sessions.keys
        self.redis: Any = sessions.redis
        self._pepper = self.keys.salt("invites")
        self._accept = self.redis.register_script(_ACCEPT)
        self._withdraw = self.redis.register_script(_WITHDRAW)

    def create(
        self, *, name: str, role: Role = "user", expires: float | None = None, actor: str = INSTALLATION
    ) -> tuple[str, Invite]:
        """An invite and its token, which is seen this once. Raises ValueError on a bad name."""
        now, new = self.keys.clock(), NewInvite(name=name, role=role)
        ends = now + LASTS_S if expires is None else expires
        token = f"inv_{secrets.token_urlsafe(32)}"
        invite = Invite(id=new_id("invite_"), created=now, expires=ends, **dict(new))
        with self.redis.pipeline() as pipe:
            pipe.hset(INVITES, self._place(token), invite.model_dump_json())
            note(pipe, line("invite", invite, actor, now))
            pipe.execute()
        return token, invite

    def accept(self, token: str) -> SignedIn | None:
        """Use an invite up: its key and a first session; None if it was used, withdrawn or late, or never was.

        In the audit the invite is who made the key.
        """
        place, now = self._place(token), self.keys.clock()
        raw = self.redis.hget(INVITES, place)
        invite = Invite.model_validate_json(raw) if raw else None
        if invite is None or invite.expires <= now:
            return None
        # Nobody ever sees the key's text; it has one so that rotation can replace it by one that somebody does.
        at = self.keys.place(new_plain())
        new = self.sessions.new(at, ApiKey(id=new_id("key_"), name=invite.name, role=invite.role, created=now))
        args = [place, raw, at, new.key.model_dump_json(), new.session.model_dump_json(), until(new.session)]
        args.append(line("create", new.key, invite.id, now))
        accepted = self._accept(keys=[INVITES, KEYS, self.sessions.name(new.token), AUDIT], args=args)
        return new if accepted else None

    def list(self) -> list[Invite]:
        """Those that can still be used, oldest first; the others are forgotten."""
        now, opened = self.keys.clock(), self._opened()
        late = [place for place, invite in opened.items() if invite.expires <= now]
        if late:
            self.redis.hdel(INVITES, *late)
        return sorted((opened[place] for place in opened.keys() - late), key=lambda invite: invite.id)

    def withdraw(self, id: str, *, actor: str = INSTALLATION) -> bool:
        """False when there is no such invite any more."""
        now, found = self.keys.clock(), [held for held in self._opened().items() if held[1].id == id]
        return any(
            self._withdraw(keys=[INVITES, AUDIT], args=[place, line("withdraw", invite, actor, now)])
            for place, invite in found
        )

    def _opened(self) -> dict[str, Invite]:
        return {place: Invite.model_validate(json.loads(raw)) for place, raw in self.redis.hgetall(INVITES).items()}

    def _place(self, token: str) -> str:
        return hmac.digest(self._pepper, token.encode(), "sha256").hex()


def link(url: str, token: str) -> str:
    """What a person opens. Behind the `#` no server and no log ever sees it."""
    return f"{url}/join#{token}"
