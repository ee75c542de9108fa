import { render, screen } from "@testing-library/react";
import { expect, test } from "vitest";
import type { Status, Traffic } from "../../api/status";
import { Health } from "./Health";

const AT_REST: Traffic = { in_flight: 0, places: 1024, waiting: 0, streams_open: 0, refused: 0, first_token_s: null };

const IDLE: Status["workers"] = { alive: 1, queued: 0, oldest_wait_s: null, reason: null };

function shown(
  traffic: Partial<Traffic>,
  last_swap: Status["last_swap"] = null,
  engines: Status["engines"] = [],
  workers: Partial<Status["workers"]> = {},
) {
  const facts: Status = {
    engines,
    last_swap,
    traffic: { ...AT_REST, ...traffic },
    ledger: { writable: true, reason: null, completions: 0, judgements: 0, memory_bytes: 0 },
    workers: { ...IDLE, ...workers },
    round: null,
    next_round: null,
    learning_frozen: false,
    releases_frozen: false,
    release: null,
    self_test: null,
    reasons: {},
    version: null,
  };
  render(<Health facts={facts} />);
  return (name: string) => screen.getByText(name).parentElement?.textContent;
}

test("how busy the gateway is stands among its health", () => {
  const of = shown({ in_flight: 12, waiting: 3, streams_open: 7, refused: 1500, first_token_s: 0.18333 });
  expect(of("chats under way")).toBe("chats under way12 of 1,024 7 streamed, 3 waiting; 1,500 refused since the start");
  expect(of("first token")).toBe("first token180 msmedian since the start");
  expect(screen.queryByText("full")).toBeNull();
});

test("a gateway without a place left says so, and one that has not answered yet has no time", () => {
  const of = shown({ in_flight: 8, places: 8 });
  expect(of("chats under way")).toMatch(/^chats under way8 of 8 full/);
  expect(of("first token")).toMatch(/none yet/);
});

test.each([
  [{}, "workersalivenothing waits"],
  [{ queued: 1200 }, "workersalive1,200 in the queue"],
  [{ queued: 1, oldest_wait_s: 754 }, "workersalivethe open round has waited for 13 min"],
  [{ alive: 0, oldest_wait_s: 5 }, "workersnonethe open round has waited for 5 s"],
  [{ queued: null }, "workersalive"],
])("of the workers' queue is told what waits and for how long: %o", (workers, words) => {
  expect(shown({}, null, [], workers)("workers")).toBe(words);
});

const SWAP = { from_version: null, to_version: 0, ok: true, reason: "", held_s: 11.52, time: 1767225600 };

test("at the first start nobody's answer stood still", () => {
  const of = shown({}, SWAP);
  expect(of("started with")).toMatch(/policy-v0.*the first since the gateway started$/);
  expect(screen.queryByText(/stood still/)).toBeNull();
});

test("a swap in place of another says for how long answers stood still", () => {
  expect(shown({}, { ...SWAP, from_version: 0, to_version: 1 })("last swap")).toMatch(/stood still for 12 s$/);
});

const REFUSED = "ClientConnectorError: Cannot connect to host 127.0.0.1:8001 ssl:default [Connect call failed]";
const dead = (reason: string) => [{ arm: "stable", policy_version: null, reason, url_kind: "supervised" as const }];

test("of an engine that does not serve a sentence is told, and what a library said of it unfolds", () => {
  shown({}, null, dead(`the engine is down: ${REFUSED}`));
  const [said, details] = screen.getByText("the engine is down").childNodes;
  expect(said!.textContent).toBe("the engine is down");
  expect(details!.nodeName).toBe("DETAILS");
  expect(details!.textContent).toBe(`Details${REFUSED}`);
});

test("nothing unfolds where words are all that there is", () => {
  shown({}, { ...SWAP, ok: false, reason: "policy-v3: files differ from the manifest" }, dead("the engine does not generate"));
  expect(screen.getByText("the engine does not generate")).toBeTruthy();
  expect(screen.getByText(/, policy-v3: files differ from the manifest$/)).toBeTruthy();
  expect(document.querySelector("details")).toBeNull();
});
