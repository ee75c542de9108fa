import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";

/** Enough of a pseudonym to tell raters apart at a glance; the whole of it on hover and behind the link. */
export function shortRater(rater: string): string {
  const at = rater.lastIndexOf("_") + 1;
  const rest = [...rater.slice(at)];
  return rest.length > 10 ? `${rater.slice(0, at)}${rest.slice(0, 8).join("")}…` : rater;
}

export const Rater = ({ rater }: { rater: string }) => (
  <Link to={consolePath("raters", rater)} title={rater} className="p-code">
    {shortRater(rater)}
  </Link>
);
