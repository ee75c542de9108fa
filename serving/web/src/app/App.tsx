import { useEffect, useState } from "react";
import { flushSync } from "react-dom";
import { ApiError, explain, session, type Session } from "../api/client";
import { forgetSaid } from "../chat/said";
import { invitation, Joining } from "./Joining";
import { forgetPerson, welcome } from "./person";
import { Shell } from "./Shell";
import { SignIn } from "./SignIn";
import { consoleIn, consolePath, go } from "./route";
import { afterSecrets, forgetSecrets } from "./secrets";

type State =
  | { kind: "asking" }
  | { kind: "out"; problem: string | null }
  | { kind: "in"; session: Session }
  /** Signed in, and invited as somebody else. */
  | { kind: "invited"; session: Session; invite: string };

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
  const enter = (signedIn: Session) => setState(inside(signedIn));
  if (state.kind === "out") return <SignIn problem={state.problem} onSignedIn={enter} />;
  if (state.kind === "invited") return <Joining {...state} onIn={enter} />;
  const signOut = async () => {
    await ended();
    go("/");
    // The page goes first, with all that still writes.
    flushSync(() => setState({ kind: "asking" }));
    forgetPerson();
    forgetSecrets();
    setState(await alone());
  };
  const expire = () => {
    const over = afterSecrets(() => {
      forgetSaid();
      setState(EXPIRED);
    });
    // What is to be acknowledged first stands there.
    if (!over && consoleIn(location.pathname) === null) go(consolePath("keys"));
  };
  return <Shell session={state.session} onSignOut={signOut} onSignedOut={expire} />;
}

function inside(session: Session): State {
  welcome(session);
  return { kind: "in", session };
}

const EXPIRED: State = { kind: "out", problem: "You were signed out. Sign in again: what you were writing is kept." };

/** Whoever is signed out by now is signed out. */
async function ended(): Promise<void> {
  try {
    await session.end();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
  }
}

// React asks twice in development, but an invite can be used once.
let arriving: Promise<State> | null = null;
const arrive = (): Promise<State> => (arriving ??= arrived());

/** By an invite in the address, else by the cookie, else as the only user there is. */
async function arrived(): Promise<State> {
  const invite = location.pathname === "/join" ? location.hash.slice(1) : "";
  if (invite) {
    go("/", { replace: true }); // which also takes the invite out of the history
  }
  try {
    const here = await session.current();
    const signedIn = inside(here);
    // Nobody becomes another person by a link alone: what they write then would be that person's to read.
    return invite ? { kind: "invited", session: here, invite } : signedIn;
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) return { kind: "out", problem: explain(error) };
  }
  if (invite) {
    try {
      return inside(await session.withInvite(invite));
    } catch (error) {
      return { kind: "out", problem: invitation(error) };
    }
  }
  return alone();
}

/** As the only user there is, else as nobody. */
async function alone(): Promise<State> {
  try {
    return inside(await session.singleUser());
  } catch {
    return { kind: "out", problem: null };
  }
}
