import { fireEvent, render, screen, within } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import type { Session } from "../../api/client";
import type { AuditLine } from "../../api/oversight";
import { gateway, json } from "../../rating/gateway_double";
import { Audit } from "./Audit";

const line = (id: string, kind: AuditLine["kind"], what: string, action: string): AuditLine => ({
  id,
  time: 1767225600,
  kind,
  what,
  action,
  actor: "ann",
  reason: "<i>why</i>",
  became: null,
});

afterEach(() => vi.unstubAllGlobals());

it("lists deeds newest first, goes on after the last, and asks for one kind", async () => {
  const asked = gateway({
    "GET /v1/audit": [
      json({ data: [line("3", "policy", "policy-v3", "promote"), line("2", "rater", "rater_x", "quarantine")], has_more: true }),
      json({ data: [line("1", "release", "release 7", "abort")], has_more: false }),
      json({ data: [line("2", "rater", "rater_x", "quarantine")], has_more: false }),
      json({ data: [line("4", "key", "key_1", "rotate")], has_more: false }),
    ],
  });
  const { container } = render(<Audit session={{ role: "operator" } as Session} id={null} />);
  expect((await screen.findByRole("link", { name: "policy-v3" })).getAttribute("href")).toBe("/console/policies/3");
  fireEvent.click(screen.getByRole("button", { name: "Show more" }));
  expect((await screen.findByRole("link", { name: "release 7" })).getAttribute("href")).toBe("/console/releases/7");
  const deeds = () => screen.getAllByRole("row").slice(1).map((row) => within(row).getAllByRole("cell")[1]!.textContent);
  expect(deeds()).toEqual(["promote", "quarantine", "abort"]);
  expect(container.querySelector("i")).toBeNull();
  fireEvent.click(screen.getByRole("button", { name: "Raters" }));
  await screen.findByText("Raters", { selector: "[aria-pressed=true]" });
  await vi.waitFor(() => expect(deeds()).toEqual(["quarantine"]));
  fireEvent.click(screen.getByRole("button", { name: "Keys" }));
  await vi.waitFor(() => expect(deeds()).toEqual(["rotate"]));
  expect(asked.map(({ path }) => path)).toEqual([
    "/v1/audit?limit=50",
    "/v1/audit?limit=50&before=2",
    "/v1/audit?limit=50&kind=rater",
    "/v1/audit?limit=50&kind=key",
  ]);
});

it.each([
  ["key_0199c2aabbccddee", "change", "ann, user, rater; given: role, limits", "key of ann, user…ccddee", "changerater; given: role, limits"],
  ["invite_7", "invite", "bea, user", "invite of bea…vite_7", "inviteuser"],
])("%s is told by whose it is, and its id is short", async (what, action, became, name, deed) => {
  gateway({ "GET /v1/audit": [json({ data: [{ ...line("1", "key", what, action), became }], has_more: false })] });
  render(<Audit session={{ role: "operator" } as Session} id={null} />);
  const [shown, done] = within((await screen.findAllByRole("row"))[1]!).getAllByRole("cell");
  expect([shown!.textContent, done!.textContent]).toEqual([name, deed]);
  expect(within(shown!).getByTitle(what)).toBeTruthy();
});
