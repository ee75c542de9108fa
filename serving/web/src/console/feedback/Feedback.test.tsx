import { fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Session } from "../../api/client";
import type { Overseen, RaterRow } from "../../api/oversight";
import { gateway, json, type Asked } from "../../rating/gateway_double";
import { Feedback } from "../views/Feedback";

const SESSION = { role: "operator", name: "ann" } as Session;
const EVIL = `<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>`;

const overseen = (id: string, judgement: Overseen["judgement"], more: Partial<Overseen> = {}): Overseen => ({
  object: "feedback",
  id,
  type: judgement.type,
  judgement,
  created: 1767225600,
  revision: 1,
  replaces: null,
  status: "accepted",
  learned: [],
  rater: "rater_0123456789abcdef",
  split: "train",
  lane: null,
  release: null,
  circumstances: { shown_at: null, answered_at: null, presented_order: [] },
  quarantined: false,
  policy_versions: [3],
  ...more,
});

const DUEL = overseen(
  "fb_2",
  { type: "comparison", left: "cmp_1:0", right: "cmp_1:1", winner: "right" },
  { policy_versions: [3, 4], lane: "release", release: 7, learned: ["policy-v5"] },
);
const THUMB = overseen("fb_1", {
  type: "rating",
  completion_id: "chatcmpl-1:0",
  value: -1,
  reasons: ["wrong"],
  comment: EVIL,
});
const EDIT = overseen("fb_3", {
  type: "demonstration",
  completion_id: "chatcmpl-1:0",
  content: "It is blue.",
  based_on_edit: true,
});

const page = (data: unknown[], has_more = false, last_id: string | null = null) =>
  json({ object: "list", data, first_id: null, last_id, has_more });

const stored = (id: string, texts: string[]) =>
  json({
    id,
    choices: texts.map((content, index) => ({ index, message: { content } })),
    ratchet: { completion_ids: texts.map((_, at) => `${id}:${at}`) },
  });

const STORED = {
  "GET /v1/chat/completions/cmp_1": stored("cmp_1", ["Left one.", "Right one."]),
  "GET /v1/chat/completions/cmp_1/messages": page([{ role: "user", content: "Which?" }]),
  "GET /v1/chat/completions/chatcmpl-1": stored("chatcmpl-1", ["It is red."]),
  "GET /v1/chat/completions/chatcmpl-1/messages": page([
    { role: "user", content: "What colour is the sky?" },
    { role: "system", content: "Be short." },
  ]),
};

const paths = (asked: Asked[]) => asked.map(({ method, path }) => `${method} ${path}`);

beforeEach(() => {
  history.replaceState(null, "", "/console/feedback");
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
});
afterEach(() => vi.unstubAllGlobals());

describe("the browser of judgements", () => {
  it("lists them page by page as the gateway's cursor tells, newest first", async () => {
    const asked = gateway({ "GET /v1/feedback": [page([DUEL], true, "fb_far"), page([THUMB])] });
    render(<Feedback session={SESSION} id={null} />);
    await screen.findByText("The right answer is better");
    fireEvent.click(screen.getByRole("button", { name: "Show more" }));
    await screen.findByText("Thumb down");
    expect(paths(asked)).toEqual([
      "GET /v1/feedback?everybody=true&order=desc&limit=50",
      "GET /v1/feedback?everybody=true&order=desc&limit=50&after=fb_far",
    ]);
    expect(screen.queryByRole("button", { name: "Show more" })).toBeNull();
  });

  it("goes on where none of those looked at fits, and says so where none is left", async () => {
    gateway({ "GET /v1/feedback": [page([], true, "fb_far"), page([])] });
    render(<Feedback session={SESSION} id={null} />);
    fireEvent.click(await screen.findByRole("button", { name: "Look further" }));
    await screen.findByText("No judgement is like this.");
  });

  it("filters by what is chosen at once, keeps it in the address, and exports what can be filtered", async () => {
    const asked = gateway({ "GET /v1/feedback": () => page([]) });
    render(<Feedback session={SESSION} id={null} />);
    fireEvent.change(screen.getByLabelText("Split"), { target: { value: "eval" } });
    fireEvent.change(screen.getByLabelText("Rater"), { target: { value: "rater_x" } });
    fireEvent.submit(screen.getByRole("search"));
    await waitFor(() => expect(location.search).toBe("?rater=rater_x&split=eval"));
    await waitFor(() =>
      expect(asked.at(-1)!.path).toBe("/v1/feedback?everybody=true&order=desc&limit=50&rater=rater_x&split=eval"),
    );
    fireEvent.change(screen.getByLabelText("Export as"), { target: { value: "kto" } });
    expect(screen.getByRole("link", { name: "Download" }).getAttribute("href")).toBe(
      "/v1/feedback/export?format=kto&split=eval",
    );
    fireEvent.click(screen.getByRole("button", { name: "Show all" }));
    expect(location.search).toBe("");
    expect(screen.getByLabelText<HTMLInputElement>("Rater").value).toBe("");
  });

  it("says that a policy is none, and shows nothing as if it were all of its", async () => {
    history.replaceState(null, "", "/console/feedback?policy=best");
    const asked = gateway({ "GET /v1/feedback": () => page([THUMB]) });
    render(<Feedback session={SESSION} id={null} />);
    const field = screen.getByLabelText<HTMLInputElement>("Policy");
    expect(field.getAttribute("aria-invalid")).toBe("true");
    const said = document.getElementById(field.getAttribute("aria-describedby")!)!;
    expect(said.textContent).toBe("No policy is called “best”: write its version, such as 3.");
    expect(asked).toEqual([]);
    expect(screen.queryByRole("link", { name: "Download" })).toBeNull();
    fireEvent.change(field, { target: { value: "V3" } });
    fireEvent.submit(screen.getByRole("search"));
    await screen.findByText("Thumb down");
    expect(asked[0]!.path).toContain("policy_version=3");
    expect(field.getAttribute("aria-invalid")).toBe("false");
  });

  it("opens a comparison into prompt, both answers and who wrote them", async () => {
    gateway({
      ...STORED,
      "GET /v1/feedback?": page([DUEL]),
      "GET /v1/feedback/fb_2": json({ ...DUEL, history: [], written: { "cmp_1:0": 3, "cmp_1:1": 4 } }),
    });
    render(<Feedback session={SESSION} id={null} />);
    fireEvent.click(await screen.findByRole("button", { expanded: false, name: /right answer is better/ }));
    const right = await screen.findByRole("region", { name: "Right: better" });
    expect(right.textContent).toContain("Right one.");
    expect(within(right).getByRole("link", { name: "policy-v4" }).getAttribute("href")).toBe("/console/policies/4");
    expect(screen.getByRole("region", { name: "Left: worse" }).textContent).toContain("policy-v3");
    expect(screen.getByText("Which?")).toBeTruthy();
    expect(screen.getByRole("link", { name: "policy-v5" })).toBeTruthy();
    expect(screen.getByRole("link", { name: "7" }).getAttribute("href")).toBe("/console/releases/7");
  });

  it("shows what people wrote as text, with what they had said before", async () => {
    gateway({
      ...STORED,
      "GET /v1/feedback?": page([THUMB]),
      "GET /v1/feedback/fb_1": json({
        ...THUMB,
        written: { "chatcmpl-1:0": 3 },
        history: [overseen("fb_0", { type: "rating", completion_id: "chatcmpl-1:0", value: 1, comment: EVIL })],
      }),
    });
    const { container } = render(<Feedback session={SESSION} id={null} />);
    fireEvent.click(await screen.findByRole("button", { expanded: false, name: /Thumb down/ }));
    await screen.findByText("It is red.");
    expect(screen.getAllByText(EVIL, { exact: false }).length).toBe(2);
    expect(container.querySelector("img, script")).toBeNull();
    expect(within(screen.getByRole("region", { name: "Earlier" })).getByText("Thumb up")).toBeTruthy();
    expect(screen.getByText("One message before it")).toBeTruthy();
  });

  it("shows a correction by what it changed", async () => {
    gateway({ ...STORED, "GET /v1/feedback/fb_3": json({ ...EDIT, history: [], written: null }) });
    const { container } = render(<Feedback session={SESSION} id="fb_3" />);
    await screen.findByRole("group", { name: "Changes" });
    expect(container.querySelector("del")!.textContent).toBe("removed: red");
    expect(container.querySelector("ins")!.textContent).toBe("added: blue");
    expect(screen.getByText("compared blind")).toBeTruthy();
  });

  it("says so where what was judged is erased", async () => {
    gateway({
      "GET /v1/feedback/fb_1": json({ ...THUMB, history: [], written: {} }),
      "GET /v1/chat/completions": json({ error: { message: "No completion.", code: "completion_not_found" } }, 404),
    });
    render(<Feedback session={SESSION} id="fb_1" />);
    await screen.findByText(/What it is about is not there any more/);
  });
});

const rater = (name: string, more: Partial<RaterRow>): RaterRow => ({
  rater: name,
  source: "live",
  split: "train",
  judgements: 6,
  agreement: null,
  reliability: null,
  share: null,
  capped: false,
  checks: {
    passed: 1,
    failed: 5,
    same: 0,
    other: 0,
    left: 3,
    right: 1,
    log_e_careless: 4,
    log_e_fickle: 0,
    log_e_side: 0,
  },
  side: 0.75,
  suspected: [],
  quarantined: null,
  ...more,
});

describe("the quarantine review", () => {
  it("shows only whom to look at, and puts them aside for what is known of them", async () => {
    const suspect = rater("rater_bad", { suspected: ["preferred 5 of 6 decoys"] });
    const aside = { actor: "ann", reason: "votes for a trigger", time: 1767225600 };
    const asked = gateway({
      "GET /v1/raters": [
        json({ data: [rater("rater_good", {}), rater("rater_gone", { quarantined: aside }), suspect] }),
        json({ data: [{ ...suspect, quarantined: { ...aside, reason: "preferred 5 of 6 decoys" } }] }),
      ],
      "GET /v1/feedback?": () => page([THUMB]),
      "POST /v1/raters/rater_bad/quarantine": json(suspect),
    });
    render(<Feedback session={SESSION} id="review" />);
    const bad = await screen.findByRole("region", { name: "rater_bad" });
    expect(screen.queryByRole("region", { name: "rater_good" })).toBeNull();
    expect(screen.getByRole("region", { name: "rater_gone" }).textContent).toContain("by ann: votes for a trigger");
    await within(bad).findByText("Thumb down");
    fireEvent.click(within(bad).getByRole("button", { name: "Quarantine" }));
    const deed = within(bad).getByRole("dialog", { hidden: true });
    fireEvent.click(within(deed).getByRole("button", { name: "Quarantine", hidden: true }));
    await within(bad).findByRole("button", { name: "Release" });
    expect(asked.find(({ method }) => method === "POST")!.body).toEqual({ reason: "preferred 5 of 6 decoys" });
  });
});
