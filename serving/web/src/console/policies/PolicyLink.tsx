import { nameOf } from "../../api/policies";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";

export const PolicyLink = ({ version }: { version: number }) => (
  <Link className="c-name" to={consolePath("policies", version)}>
    {nameOf(version)}
  </Link>
);
