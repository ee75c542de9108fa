import { useState, type FormEvent } from "react";
import { explain, session, type Session } from "../api/client";

interface SignInProps {
  problem: string | null;
  onSignedIn: (session: Session) => void;
}

export function SignIn({ problem, onSignedIn }: SignInProps) {
  const [key, setKey] = useState("");
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState(problem);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setFailure(null);
    try {
      onSignedIn(await session.withKey(key.trim()));
    } catch (error) {
      setFailure(explain(error));
      setBusy(false);
    }
  };

  return (
    <main className="sign-in">
      <form onSubmit={submit}>
        <h1>Ratchet</h1>
        <p className="muted">A chat service whose model learns from the people who use it.</p>
        <label htmlFor="key">API key</label>
        <input
          id="key"
          type="password"
          autoComplete="current-password"
          spellCheck={false}
          required
          autoFocus
          value={key}
          onChange={(event) => setKey(event.target.value)}
          aria-describedby={failure ? "sign-in-failure" : undefined}
          placeholder="rk-…"
        />
        {failure && (
          <p id="sign-in-failure" className="failure" role="alert">
            {failure}
          </p>
        )}
        <button type="submit" className="primary" disabled={busy || !key.trim()}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
        <p className="muted small">
          No key? Whoever runs this service makes one with <code>ratchet keys create</code>, or a link to sign in with{" "}
          <code>ratchet user invite</code>.
        </p>
      </form>
    </main>
  );
}
