/** The names of the console's views, which the sidebar shows before any of them is loaded. */
import type { Role, Session } from "../api/client";
import { Link } from "../app/Link";
import { consolePath } from "../app/route";

export const NAMES = {
  overview: "Overview",
  rounds: "Rounds",
  policies: "Policies",
  releases: "Releases",
  leaderboard: "Leaderboard",
  "reward-model": "Reward model",
  feedback: "Feedback",
  raters: "Raters",
  keys: "Keys",
  audit: "Audit trail",
} as const;

export type ViewName = keyof typeof NAMES;

const ADMINS: ReadonlySet<ViewName> = new Set(["keys"]);

export const isView = (name: string): name is ViewName => Object.hasOwn(NAMES, name);

/** Whether the gateway would answer the requests of any view, or of that one. */
export function mayUse({ role }: { role: Role }, view?: ViewName): boolean {
  return role === "admin" || (role === "operator" && !(view && ADMINS.has(view)));
}

interface NavigationProps {
  session: Session;
  current: string;
  onOpen: () => void;
}

export function Navigation({ session, current, onOpen }: NavigationProps) {
  const shown = (Object.keys(NAMES) as ViewName[]).filter((view) => mayUse(session, view));
  return (
    <nav aria-label="Console" className="conversations">
      <ul>
        {shown.map((view) => (
          <li key={view} className={view === current ? "current" : undefined}>
            <Link to={consolePath(view)} onOpen={onOpen} aria-current={view === current ? "page" : undefined}>
              {NAMES[view]}
            </Link>
          </li>
        ))}
      </ul>
    </nav>
  );
}
