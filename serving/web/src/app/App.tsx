import { useEffect, useState } from "react";
import { ApiError, explain, session, type Session } from "../api/client";
import { forgetSaid } from "../chat/said";
import { Shell } from "./Shell";
import { SignIn } from "./SignIn";
import { go } from "./route";

type State = { kind: "asking" } | { kind: "out"; problem: string | null } | { kind: "in"; session: Session };

export function App() {
  const [state, setState] = useState<State>({ kind: "asking" });
  useEffect(() => {
    let wanted = true;
    void arrive().then((next) => wanted && setState(next));
    return () => {
      wanted = false;
    };
  }, []);

  if (state.kind === "asking") return <p className="arriving">Ratchet</p>;
  if (state.kind === "out") {
    return <SignIn problem={state.problem} onSignedIn={(signedIn) => setState({ kind: "in", session: signedIn })} />;
  }
  const signOut = async () => {
    await session.end().catch(() => undefined);
    forgetSaid();
    go("/");
    setState({ kind: "out", problem: null });
  };
  return <Shell session={state.session} onSignOut={signOut} onSignedOut={() => setState(EXPIRED)} />;
}

const EXPIRED: State = { kind: "out", problem: "You were signed out. Sign in again: what you were writing is kept." };

// React asks twice in development, but an invite can be used once.
let arriving: Promise<State> | null = null;
const arrive = (): Promise<State> => (arriving ??= arrived());

/** By an invite in the address, else by the cookie, else as the only user there is. */
async function arrived(): Promise<State> {
  const invite = location.pathname === "/join" ? location.hash.slice(1) : "";
  if (invite) {
    go("/", { replace: true }); // which also takes the invite out of the history
    try {
      return { kind: "in", session: await session.withInvite(invite) };
    } catch (error) {
      return { kind: "out", problem: invitation(error) };
    }
  }
  try {
    return { kind: "in", session: await session.current() };
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) return { kind: "out", problem: explain(error) };
  }
  try {
    return { kind: "in", session: await session.singleUser() };
  } catch {
    return { kind: "out", problem: null };
  }
}

function invitation(error: unknown): string {
  if (error instanceof ApiError && error.passing) return explain(error);
  return "This invitation was used already, or has expired. Ask for a new one, or sign in with an API key.";
}
