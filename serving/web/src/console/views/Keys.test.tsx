import { fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Session } from "../../api/client";
import type { Key } from "../../api/oversight";
import { failure, gateway, json } from "../../rating/gateway_double";
import { forgetSecrets } from "../../app/secrets";
import { Secrets } from "../keys/Secrets";
import { Keys } from "./Keys";

const EVIL = "<b onclick=x>Mallory</b>";
const NO_LIMITS = { requests_per_minute: null, tokens_per_day: null, streams: null, feedback_per_day: null };
const key = (id: string, name: string, more: Partial<Key> = {}): Key => ({
  object: "key",
  id,
  name,
  role: "user",
  created: 1767225600,
  expires: null,
  limits: NO_LIMITS,
  last_rotated: null,
  usage: null,
  ...more,
});
const OWN = key("key_1", "root", { role: "admin" });
const OTHER = key("key_2", EVIL, {
  expires: 1767225601,
  limits: { ...NO_LIMITS, tokens_per_day: 100_000 },
  usage: { day: "2026-01-01", requests: 1, tokens: 240, feedback: 0, streams: 0 },
});
const SESSION = { role: "admin", name: "root" } as Session;

const page = (data: unknown[]) => json({ object: "list", data, first_id: null, last_id: null, has_more: false });
const ROUTES = {
  "GET /v1/keys": () => page([OWN, OTHER]),
  "GET /v1/invites": () => page([{ id: "invite_1", name: "Kim", role: "rater", created: 1767225600, expires: 4e9 }]),
  "GET /v1/me": json({ id: "key_1" }),
};

const Shown = () => (
  <>
    <Secrets />
    <Keys session={SESSION} id={null} />
  </>
);

beforeEach(() => {
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
});
afterEach(() => (vi.unstubAllGlobals(), forgetSecrets()));

const act = (row: HTMLElement, name: string) => {
  fireEvent.click(within(row).getByRole("button", { name }));
  fireEvent.click(within(within(row).getByRole("dialog", { hidden: true })).getByRole("button", { name, hidden: true }));
};

it("lists keys with limits and use, names as text, and marks one's own", async () => {
  gateway(ROUTES);
  const { container } = render(<Shown />);
  const own = (await screen.findByText("yours")).closest("tr")!;
  expect(own.textContent).toContain("root");
  const other = screen.getByText(EVIL).closest("tr")!;
  expect(other.textContent).toContain("100,000 tokens/day");
  expect(other.textContent).toContain("1 request, 240 tokens, 0 judgements");
  expect(within(other).getByText("expired")).toBeTruthy();
  expect(container.querySelector("b")).toBeNull();
  expect(await screen.findByText("Kim")).toBeTruthy();
});

it("makes a key with limits and an end, and shows it until it is kept", async () => {
  const asked = gateway({ ...ROUTES, "POST /v1/keys": json({ ...OTHER, name: "bot", key: "rk-secret" }, 201) });
  render(<Shown />);
  const form = screen.getByRole("form", { name: "New key" });
  fireEvent.change(within(form).getByLabelText("Name"), { target: { value: " bot " } });
  fireEvent.change(within(form).getByLabelText("Role"), { target: { value: "operator" } });
  fireEvent.change(within(form).getByLabelText("Expires"), { target: { value: "7" } });
  fireEvent.change(within(form).getByLabelText("Tokens a day"), { target: { value: "500" } });
  fireEvent.submit(form);
  const secret = await screen.findByRole("region", { name: "The key of bot" });
  expect(secret.textContent).toContain("rk-secret");
  expect(document.activeElement!.textContent).toBe("The key of bot");
  const { body } = asked.find(({ method }) => method === "POST")!;
  expect(body).toMatchObject({ name: "bot", role: "operator", limits: { tokens_per_day: 500 } });
  expect(Number(body!.expires) - Date.now() / 1000).toBeGreaterThan(7 * 86_400 - 60);
  fireEvent.click(within(secret).getByRole("button", { name: "I have it" }));
  expect(screen.queryByText("rk-secret")).toBeNull();
  expect(within(form).getByLabelText<HTMLInputElement>("Name").value).toBe("");
});

it("keeps what is told once until each is acknowledged, and lets nobody leave the page unasked", async () => {
  const asks = () => !window.dispatchEvent(new Event("beforeunload", { cancelable: true }));
  gateway({
    ...ROUTES,
    "POST /v1/keys": [
      json({ ...OTHER, id: "key_3", name: "one", key: "rk-one" }, 201),
      json({ ...OTHER, id: "key_4", name: "two", key: "rk-two" }, 201),
    ],
  });
  render(<Shown />);
  expect(asks()).toBe(false);
  const form = screen.getByRole("form", { name: "New key" });
  for (const name of ["one", "two"]) {
    fireEvent.change(within(form).getByLabelText("Name"), { target: { value: name } });
    fireEvent.submit(form);
    await screen.findByText(`rk-${name}`);
  }
  expect(asks()).toBe(true);
  fireEvent.click(within(screen.getByRole("region", { name: "The key of two" })).getByText("I have it"));
  expect(screen.queryByText("rk-two")).toBeNull();
  expect(screen.getByText("rk-one")).toBeTruthy();
  expect(asks()).toBe(true);
  fireEvent.click(screen.getByText("I have it"));
  expect(asks()).toBe(false);
});

it("shows of a key that is rotated again the text that works", async () => {
  const texts = ["rk-first", "rk-second"];
  gateway({ ...ROUTES, "POST /v1/keys/key_2/rotate": () => json({ ...OTHER, key: texts.shift() }) });
  render(<Shown />);
  act((await screen.findByText(EVIL)).closest("tr")!, "Rotate");
  await screen.findByText("rk-first");
  await waitFor(() => expect(screen.queryByRole("dialog", { hidden: true })).toBeNull());
  act(screen.getByText(EVIL).closest("tr")!, "Rotate");
  await screen.findByText("rk-second");
  expect(screen.queryByText("rk-first")).toBeNull();
});

/** The dialog of a row, with what its fields hold. */
const limitsOf = (row: HTMLElement) => {
  fireEvent.click(within(row).getByRole("button", { name: "Set limits" }));
  const dialog = within(row).getByRole("dialog", { hidden: true });
  const field = (label: string) => within(dialog).getByLabelText<HTMLInputElement>(label);
  return { dialog, field, type: (label: string, value: string) => fireEvent.change(field(label), { target: { value } }) };
};
const rowOf = async (name: string) => (await screen.findByText(name)).closest("tr")!;

it("changes of a key's limits those that were typed over, and lifts one that was emptied", async () => {
  const asked = gateway({ ...ROUTES, "POST /v1/keys/key_2": json(OTHER) });
  render(<Shown />);
  const { dialog, field, type } = limitsOf(await rowOf(EVIL));
  expect([field("Tokens a day").value, field("Answers at once").value]).toEqual(["100000", ""]);
  type("Tokens a day", "");
  type("Answers at once", "2");
  fireEvent.click(within(dialog).getByRole("button", { name: "Set limits", hidden: true }));
  await waitFor(() => expect(screen.queryByRole("dialog", { hidden: true })).toBeNull());
  const { path, body } = asked.find(({ method }) => method === "POST")!;
  expect([path, body]).toEqual(["/v1/keys/key_2", { limits: { tokens_per_day: null, streams: 2 } }]);
  const again = limitsOf(await rowOf(EVIL));
  expect(again.field("Tokens a day").value).toBe("100000"); // as it stands, not as it was typed
});

it("changes when a key expires, and nothing else of it", async () => {
  const asked = gateway({ ...ROUTES, "POST /v1/keys/key_2": () => json(OTHER) });
  render(<Shown />);
  const soon = Date.now() / 1000 + 30 * 86_400;
  for (const end of ["30", ""]) {
    const { dialog, type } = limitsOf(await rowOf(EVIL));
    type("Expires", end);
    fireEvent.click(within(dialog).getByRole("button", { name: "Set limits", hidden: true }));
    await waitFor(() => expect(screen.queryByRole("dialog", { hidden: true })).toBeNull());
  }
  const [later, never] = asked.flatMap(({ method, body }) => (method === "POST" ? [body!] : []));
  expect(Object.keys(later!)).toEqual(["expires"]);
  expect(Math.abs((later!["expires"] as number) - soon)).toBeLessThan(600);
  expect(never).toEqual({ expires: null });
});

it("says why a limit was not changed, keeps what was typed, and forgets it with the dialog", async () => {
  gateway({ ...ROUTES, "POST /v1/keys/key_2": failure(400, "limits.streams is too large") });
  render(<Shown />);
  const { dialog, field, type } = limitsOf(await rowOf(EVIL));
  type("Answers at once", "2000000000000");
  fireEvent.click(within(dialog).getByRole("button", { name: "Set limits", hidden: true }));
  await within(dialog).findByText("limits.streams is too large");
  expect(field("Answers at once").value).toBe("2000000000000");
  fireEvent.click(within(dialog).getByRole("button", { name: "Cancel", hidden: true }));
  expect(limitsOf(await rowOf(EVIL)).field("Answers at once").value).toBe("");
});

it("begins anew where somebody else changed the limits meanwhile", async () => {
  let row = OTHER;
  const asked = gateway({ ...ROUTES, "GET /v1/keys": () => page([OWN, row]), "POST /v1/keys/key_2": json(OTHER) });
  render(<Shown />);
  const { dialog, type } = limitsOf(await rowOf(EVIL));
  type("Answers at once", "2");
  row = key("key_2", EVIL, { limits: { ...NO_LIMITS, streams: 7 } });
  fireEvent(document, new Event("visibilitychange")); // whoever comes back to the page sees how it is now
  await within(dialog).findByText(/changed while you read it/);
  fireEvent.submit(dialog.querySelector("form")!);
  expect(asked.every(({ method }) => method === "GET")).toBe(true);
  fireEvent.click(within(dialog).getByRole("button", { name: "Cancel", hidden: true }));
  expect(limitsOf(await rowOf(EVIL)).field("Answers at once").value).toBe("7");
});

it("takes a key out of the list that is gone when its limits are changed", async () => {
  let rows = [OWN, OTHER];
  gateway({
    ...ROUTES,
    "GET /v1/keys": () => page(rows),
    "POST /v1/keys/key_2": () => ((rows = [OWN]), failure(404, "there is no key key_2")),
  });
  render(<Shown />);
  const { dialog, type } = limitsOf(await rowOf(EVIL));
  type("Answers at once", "2");
  fireEvent.click(within(dialog).getByRole("button", { name: "Set limits", hidden: true }));
  await waitFor(() => expect(screen.queryByText(EVIL)).toBeNull());
});

it("says why no key was made, and keeps what was typed", async () => {
  gateway({ ...ROUTES, "POST /v1/keys": failure(400, "name is bad") });
  render(<Shown />);
  const form = screen.getByRole("form", { name: "New key" });
  fireEvent.change(within(form).getByLabelText("Name"), { target: { value: "bot" } });
  fireEvent.submit(form);
  expect((await within(form).findByRole("alert")).textContent).toBe("name is bad");
  expect(within(form).getByLabelText<HTMLInputElement>("Name").value).toBe("bot");
});

it("asks what there is when it is not known whether a key was made", async () => {
  const asked = gateway({ ...ROUTES, "POST /v1/keys": failure(502, "a proxy gave up") });
  render(<Keys session={SESSION} id={null} />);
  const form = screen.getByRole("form", { name: "New key" });
  fireEvent.change(within(form).getByLabelText("Name"), { target: { value: "bot" } });
  fireEvent.submit(form);
  expect((await within(form).findByRole("alert")).textContent).toBe(
    "It is not known whether this was done: look before you repeat it. a proxy gave up",
  );
  const after = asked.slice(asked.findIndex(({ method }) => method === "POST") + 1);
  expect(after.map(({ method, path }) => `${method} ${path}`)).toContain("GET /v1/keys?limit=100");
});

it("signs in anew by one's own key that was rotated, before anything else is asked", async () => {
  const asked = gateway({
    ...ROUTES,
    "POST /v1/keys/key_1/rotate": json({ ...OWN, key: "rk-new" }),
    "POST /v1/session": json({ object: "session" }),
  });
  render(<Shown />);
  act((await screen.findByText("yours")).closest("tr")!, "Rotate");
  await screen.findByText("rk-new");
  const after = asked.slice(asked.findIndex(({ path }) => path.endsWith("/rotate")));
  expect(after[1]).toMatchObject({ method: "POST", path: "/v1/session", body: { key: "rk-new" } });
});

it("revokes after confirmation only, and tells of a refusal", async () => {
  const asked = gateway({ ...ROUTES, "DELETE /v1/keys/key_2": failure(409, "the last admin key") });
  render(<Shown />);
  act((await screen.findByText(EVIL)).closest("tr")!, "Revoke");
  await screen.findByText(/the last admin key/);
  expect(asked.filter(({ method }) => method === "DELETE").map(({ path }) => path)).toEqual(["/v1/keys/key_2"]);
});

it("invites by a link shown once, and withdraws it", async () => {
  const made = { id: "invite_2", name: "Lee", role: "user", created: 1, expires: 4e9, link: "https://x/join#inv_t" };
  const asked = gateway({
    ...ROUTES,
    "POST /v1/invites": json(made, 201),
    "DELETE /v1/invites/invite_1": json({ deleted: true }),
  });
  render(<Shown />);
  const form = screen.getByRole("form", { name: "New invite" });
  fireEvent.change(within(form).getByLabelText("Whom it is for"), { target: { value: "Lee" } });
  fireEvent.submit(form);
  await screen.findByText("https://x/join#inv_t");
  const { body } = asked.find(({ method }) => method === "POST")!;
  expect(body).toMatchObject({ name: "Lee", role: "user", url: location.origin });
  act((await screen.findByText("Kim")).closest("tr")!, "Withdraw");
  await waitFor(() => expect(asked.some(({ method }) => method === "DELETE")).toBe(true));
});
