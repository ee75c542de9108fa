import { useCallback, useEffect, useRef, useState, type ComponentType, type ReactNode } from "react";
import type { Session } from "../api/client";
import { Boundary } from "../app/Boundary";
import type { InConsole } from "../app/route";
import "./console.css";
import { Secrets } from "./keys/Secrets";
import { isView, mayUse, NAMES, type ViewName } from "./navigation";
import { Say } from "./parts/Act";
import { SignedOut } from "./parts/usePolled";
import { Audit } from "./views/Audit";
import { Feedback } from "./views/Feedback";
import { Keys } from "./views/Keys";
import { Leaderboard } from "./views/Leaderboard";
import { Overview } from "./views/Overview";
import { Policies } from "./views/Policies";
import { Raters } from "./views/Raters";
import { Releases } from "./views/Releases";
import { RewardModel } from "./views/RewardModel";
import { Rounds } from "./views/Rounds";

export interface ViewProps {
  session: Session;
  /** What the address names beside the view, such as a round's number. Another one mounts the view anew. */
  id: string | null;
}

const VIEWS: Record<ViewName, ComponentType<ViewProps>> = {
  overview: Overview,
  rounds: Rounds,
  policies: Policies,
  releases: Releases,
  leaderboard: Leaderboard,
  "reward-model": RewardModel,
  feedback: Feedback,
  raters: Raters,
  keys: Keys,
  audit: Audit,
};

interface ConsoleProps {
  session: Session;
  at: InConsole;
  menu: ReactNode;
  onSignedOut: () => void;
}

export default function Console({ session, at, menu, onSignedOut }: ConsoleProps) {
  const title = isView(at.view) ? NAMES[at.view] : "Console";
  const main = useRef<HTMLElement>(null);
  const [said, setSaid] = useState({ words: "", loud: false });
  const say = useCallback((words: string, loud = false) => setSaid({ words, loud }), []);
  const place = `${at.view}/${at.id}`;
  const before = useRef(place);
  useEffect(() => {
    // Whoever went elsewhere begins there, at its top; who has just arrived is left alone.
    if (before.current === place) return;
    before.current = place;
    say("");
    main.current!.scrollTop = 0;
    main.current!.focus({ preventScroll: true });
  }, [place, say]);
  useEffect(() => {
    document.title = `${title}${at.id === null ? "" : ` ${at.id}`} · Ratchet`;
  }, [title, at.id]);
  return (
    <main className="console" id="console" ref={main} tabIndex={-1}>
      <header>
        {menu}
        <h1>{title}</h1>
      </header>
      <p role="status" className={said.loud ? "c-told c-problem" : "quiet"}>
        {said.words}
      </p>
      <SignedOut value={onSignedOut}>
        <Say value={say}>
          <div className="c-view">
            <Secrets />
            <Shown session={session} at={at} />
          </div>
        </Say>
      </SignedOut>
    </main>
  );
}

function Shown({ session, at: { view, id } }: Pick<ConsoleProps, "session" | "at">) {
  if (!isView(view)) return <p>There is no such view.</p>;
  if (!mayUse(session, view)) {
    const who = mayUse(session) ? "admins" : "operators and admins";
    return (
      <p>
        This is for {who}; you are signed in as {session.name || "you"}, {session.role}.
      </p>
    );
  }
  const View = VIEWS[view];
  const place = `${view}/${id}`;
  return (
    <Boundary key={place} of={place} fallback={<p role="alert">This view could not be shown.</p>}>
      <View session={session} id={id} />
    </Boundary>
  );
}
