import { useState } from "react";
import { ApiError, explain, session, type Session } from "../api/client";

interface JoiningProps {
  session: Session;
  invite: string;
  onIn: (session: Session) => void;
}

/** Somebody is signed in and has opened an invitation: they are asked who they want to be. */
export function Joining({ session: here, invite, onIn }: JoiningProps) {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<string | null>(null);
  const name = here.name || "somebody else";
  const join = async () => {
    setBusy(true);
    try {
      onIn(await session.withInvite(invite));
    } catch (error) {
      setFailure(invitation(error));
      setBusy(false);
    }
  };
  return (
    <main className="sign-in">
      <form onSubmit={(event) => (event.preventDefault(), void join())}>
        <h1>Ratchet</h1>
        <p>You are signed in as {name}. Join as the invited person?</p>
        {failure && (
          <p className="failure" role="alert">
            {failure}
          </p>
        )}
        <button type="submit" className="primary" disabled={busy}>
          Join
        </button>
        <button type="button" autoFocus onClick={() => onIn(here)}>
          Stay {name}
        </button>
      </form>
    </main>
  );
}

export function invitation(error: unknown): string {
  if (error instanceof ApiError && error.passing) return explain(error);
  return "This invitation was used already, or has expired. Ask for a new one, or sign in with an API key.";
}
