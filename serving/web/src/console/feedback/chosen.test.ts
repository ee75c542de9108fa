import { describe, expect, it } from "vitest";
import { chosenIn, isFiltered, searchOf, wantedBy } from "./chosen";

describe("filters in the address", () => {
  it("come back as they were written, and nothing of what does not filter", () => {
    const search = searchOf({ type: "ranking", rater: "rater_a&b", aside: "only", split: "" });
    expect(search).toBe("?type=ranking&rater=rater_a%26b&aside=only");
    expect(chosenIn(search)).toMatchObject({ type: "ranking", rater: "rater_a&b", aside: "only", split: "" });
    expect(searchOf({})).toBe("");
    expect(isFiltered(chosenIn(""))).toBe(false);
    expect(isFiltered(chosenIn("?lane=gold"))).toBe(true);
  });

  it("ask the gateway by its own names, days as they begin and end here", () => {
    const chosen = chosenIn("?policy=policy-v3&aside=without&since=2026-03-01&until=2026-03-02&split=eval");
    expect(wantedBy(chosen)).toEqual({
      policy_version: 3,
      quarantined: false,
      split: "eval",
      since: new Date(2026, 2, 1).getTime() / 1000,
      until: new Date(2026, 2, 3).getTime() / 1000,
    });
  });

  it("ask nothing by what is no day", () => {
    expect(wantedBy(chosenIn("?since=yesterday&rater=%20&policy=%20"))).toEqual({});
  });

  it.each(["3", "v3", "policy-3", "policy-v3", " Policy-V3 "])("know a policy as people write it: %s", (policy) => {
    expect(wantedBy(chosenIn(searchOf({ policy })))).toEqual({ policy_version: 3 });
  });

  it.each(["best", "3.5", "-1", "policy-v", "1234567890"])("mean nothing by a policy that is none: %s", (policy) => {
    expect(wantedBy(chosenIn(searchOf({ policy, type: "rating" })))).toBeNull();
  });
});
