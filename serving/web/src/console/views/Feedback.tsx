import { Link } from "../../app/Link";
import { consolePath, go, useSearch } from "../../app/route";
import type { ViewProps } from "../Console";
import "../people.css";
import { Export } from "../feedback/Export";
import { Filters } from "../feedback/Filters";
import { chosenIn, searchOf, wantedBy } from "../feedback/chosen";
import { Judgements } from "../feedback/Judgements";
import { Review } from "../feedback/Review";
import { Whole } from "../feedback/Whole";

const REVIEW = "review";

/** What everybody said, those to look at because of who said it, or one judgement by its id. */
export function Feedback({ id }: ViewProps) {
  return (
    <>
      <nav aria-label="Judgements" className="p-tabs">
        <Tab to={consolePath("feedback")} here={id === null}>
          All judgements
        </Tab>
        <Tab to={consolePath("feedback", REVIEW)} here={id === REVIEW}>
          Quarantine review
        </Tab>
      </nav>
      {id === null ? <Browser /> : id === REVIEW ? <Review /> : <Whole id={id} />}
    </>
  );
}

function Tab({ to, here, children }: { to: string; here: boolean; children: string }) {
  return (
    <Link to={to} aria-current={here ? "page" : undefined}>
      {children}
    </Link>
  );
}

function Browser() {
  const chosen = chosenIn(useSearch());
  const wanted = wantedBy(chosen);
  return (
    <>
      <Filters
        chosen={chosen}
        onChoose={(next) => go(consolePath("feedback") + searchOf(next), { replace: true })}
      />
      {wanted !== null && (
        <>
          <Judgements label="Judgements" wanted={wanted} />
          <Export wanted={wanted} />
        </>
      )}
    </>
  );
}
