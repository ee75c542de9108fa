import { acknowledge, useSecrets } from "../../app/secrets";
import { Secret } from "./Secret";

/** Above every view, until each is acknowledged. */
export const Secrets = () =>
  useSecrets().map((shown) => <Secret key={shown.text} shown={shown} onKept={() => acknowledge(shown)} />);
