import { fireEvent, render, screen, within } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import type { Session } from "../../api/client";
import type { Checks, RaterRow } from "../../api/oversight";
import { gateway, json } from "../../rating/gateway_double";
import { shortRater } from "../parts/Rater";
import { decoys, evidence, reliability, repeats, share, side, sideRange } from "../raters/words";
import { Raters } from "./Raters";

const CHECKS: Checks = {
  passed: 4,
  failed: 1,
  same: 2,
  other: 3,
  left: 12,
  right: 4,
  log_e_careless: -0.5,
  log_e_fickle: 0.1,
  log_e_side: 1.2,
};
const JOE: RaterRow = {
  rater: "rater_0123456789abcdef01234567",
  source: "live",
  split: "eval",
  judgements: 1234,
  agreement: 0.914,
  reliability: 0.8,
  share: 0.0123,
  capped: true,
  checks: CHECKS,
  side: 0.75,
  suspected: ["chose left 12 of 16 times"],
  quarantined: null,
};
const SESSION = { role: "operator", name: "ann" } as Session;

afterEach(() => vi.unstubAllGlobals());

it("says figures in words", () => {
  expect([share(0.914), share(0.0123), share(0.0001), share(0), share(null)]).toEqual([
    "91.4%",
    "1.2%",
    "< 0.1%",
    "0%",
    "",
  ]);
  expect([decoys(CHECKS), repeats(CHECKS), side(JOE)]).toEqual(["4 of 5", "2 of 5", "75% left (12 of 16)"]);
  expect([sideRange(JOE), sideRange({ ...JOE, side: null })]).toEqual(["95%: 51% to 90%", ""]);
  expect(decoys({ ...CHECKS, passed: 0, failed: 0 })).toBe("");
  expect(evidence(-0.5)).toBe("nothing speaks against it");
  expect(evidence(Math.log(20))).toBe("evidence against it: e = 20");
  expect(shortRater(JOE.rater)).toBe("rater_01234567…");
  expect(shortRater("ann")).toBe("ann");
});

it("lists raters with what is known against them, and a way to what they said", async () => {
  const kim = { ...JOE, rater: "rater_kim", suspected: [], side: null };
  gateway({ "GET /v1/raters": json({ data: [JOE, kim] }) });
  render(<Raters session={SESSION} id={null} />);
  const [joe, other] = (await screen.findAllByRole("row")).slice(1);
  expect(joe!.textContent).toContain("chose left 12 of 16 times");
  expect(within(joe!).getAllByRole("cell").slice(-2).map((cell) => cell.innerHTML.split(/<[^>]*>/).filter(Boolean))).toEqual([
    ["decoys passed over: 4 of 5", "same again: 2 of 5"],
    ["agreement 91.4%", "reliability 80%", "share 1.2% (capped)"],
  ]);
  expect(within(joe!).getByRole("rowheader").textContent).toBe("rater_01234567…a person, decides releases");
  expect(within(joe!).getByRole("link", { name: /1234 judgements/ }).getAttribute("href")).toBe(
    `/console/feedback?rater=${JOE.rater}`,
  );
  expect(within(other!).queryByText(/left/)).toBeNull();
  fireEvent.click(screen.getByLabelText("Only who is suspected or aside"));
  expect(screen.getAllByRole("row")).toHaveLength(2);
});

it("shows all of one, also of one of whom nothing stands", async () => {
  gateway({
    "GET /v1/raters": () => json({ data: [JOE] }),
    "GET /v1/feedback": () => json({ data: [], has_more: false, last_id: null }),
  });
  const { unmount } = render(<Raters session={SESSION} id={JOE.rater} />);
  await screen.findByText("capped: nobody teaches more");
  expect(screen.getByText("95%: 51% to 90%; chance chose the sides; evidence against it: e = 3.3")).toBeTruthy();
  unmount();
  render(<Raters session={SESSION} id="rater_none" />);
  await screen.findByText(/Nothing of theirs stands now/);
});

it("knows nothing of the reliability of who judged what nobody else did", () => {
  expect(reliability({ agreement: null, reliability: 1 })).toBe("unknown");
  expect(reliability({ agreement: null, reliability: null })).toBe("");
  expect(reliability({ agreement: 0.9, reliability: 1 })).toBe("100%");
});

it.each([null, "rater"])("says so in the table and of one: %s", async (id) => {
  const alone = { ...JOE, agreement: null, reliability: 1 };
  gateway({ "GET /v1/raters": () => json({ data: [alone] }), "GET /v1/feedback": () => json({ data: [], has_more: false }) });
  render(<Raters session={SESSION} id={id && alone.rater} />);
  await screen.findByText(id ? "weighed as 100%" : "reliability unknown");
});
