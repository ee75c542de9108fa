import { useState } from "react";
import { explain, type Session } from "../api/client";
import { Menu } from "./Menu";
import { chooseSingleKeys, singleKeys } from "./single_keys";
import { chooseTheme, chosenTheme, type Theme } from "./theme";

interface SettingsMenuProps {
  session: Session;
  onHelp: () => void;
  onData: () => void;
  onSignOut: () => Promise<void>;
}

const THEMES: [Theme, string][] = [
  ["auto", "Auto"],
  ["light", "Light"],
  ["dark", "Dark"],
];

export function SettingsMenu({ session, onHelp, onData, onSignOut }: SettingsMenuProps) {
  const [open, setOpen] = useState(false);
  const [theme, setTheme] = useState(chosenTheme);
  const [single, setSingle] = useState(singleKeys);
  const [failure, setFailure] = useState<unknown>(null);
  const signOut = () => {
    setFailure(null);
    onSignOut().catch(setFailure);
  };
  const after = (act: () => void) => () => {
    setOpen(false);
    act();
  };
  return (
    <footer className="settings">
      <button type="button" className="person" aria-expanded={open} onClick={() => setOpen(!open)}>
        <span className="name">{session.name || "You"}</span>
        <span className="muted small">{session.single_user ? "on this machine" : session.role}</span>
      </button>
      {open && (
        <Menu onClose={() => setOpen(false)}>
          <div className="themes" role="group" aria-label="Theme">
            {THEMES.map(([value, label]) => (
              <button
                key={value}
                type="button"
                aria-pressed={theme === value}
                onClick={() => (chooseTheme(value), setTheme(value))}
              >
                {label}
              </button>
            ))}
          </div>
          <button
            type="button"
            role="switch"
            aria-checked={single}
            onClick={() => (chooseSingleKeys(!single), setSingle(!single))}
          >
            Single-key shortcuts <span className="muted">{single ? "on" : "off"}</span>
          </button>
          <button type="button" onClick={after(onHelp)}>
            Keyboard shortcuts
          </button>
          <button type="button" onClick={after(onData)}>
            My data
          </button>
          {!session.single_user && (
            <button type="button" onClick={after(signOut)}>
              Sign out
            </button>
          )}
        </Menu>
      )}
      {failure !== null && (
        <p className="failure small" role="alert">
          You are still signed in. {explain(failure)}
        </p>
      )}
    </footer>
  );
}
