import { act, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { beforeEach, expect, test, vi } from "vitest";
import { ApiError } from "../../api/client";
import { Act, Say } from "./Act";
import { Loaded } from "./Loaded";
import { draw, tipsOf, wholeTicks } from "./drawing";
import { Plot, type Axis } from "./Plot";
import { Paged as PagedList } from "./Paged";
import { Table } from "./Table";
import { usePages, type Paged } from "./usePages";
import { SignedOut, usePolled } from "./usePolled";
import { since } from "./When";
import { figure } from "./words";

beforeEach(() => {
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
  vi.useRealTimers();
  said.mockClear();
});

interface ShownProps {
  load: (signal: AbortSignal) => Promise<string>;
  of?: string;
  everyMs?: number | null;
}

function Shown({ load, of, everyMs = 1000 }: ShownProps) {
  const polled = usePolled(load, everyMs, of);
  return <Loaded polled={polled}>{(value) => <p>{value}</p>}</Loaded>;
}

const passing = async (ms: number) => act(() => vi.advanceTimersByTimeAsync(ms));
const away = () => Promise.reject(new ApiError(0, "gone", "unreachable"));

test("what is asked once is asked again soon if that may help, and only then", async () => {
  vi.useFakeTimers();
  const load = vi.fn().mockImplementationOnce(away).mockImplementationOnce(away).mockResolvedValueOnce("one");
  render(<Shown load={load} everyMs={null} />);
  await passing(1999);
  expect(load).toHaveBeenCalledTimes(1);
  await passing(1);
  expect(load).toHaveBeenCalledTimes(2);
  await passing(4000);
  expect(screen.getByText("one")).toBeTruthy();
  await passing(120_000);
  expect(load).toHaveBeenCalledTimes(3);
});

test("what there is not is not asked for again", async () => {
  vi.useFakeTimers();
  const load = vi.fn(() => Promise.reject(new ApiError(404, "no such round", "round_not_found")));
  render(<Shown load={load} everyMs={null} />);
  await passing(120_000);
  expect(load).toHaveBeenCalledTimes(1);
});

test("a slow question that fails is tried again before its usual time", async () => {
  vi.useFakeTimers();
  const load = vi.fn().mockImplementationOnce(away).mockResolvedValue("one");
  render(<Shown load={load} everyMs={30_000} />);
  await passing(2000);
  expect(screen.getByText("one")).toBeTruthy();
});

test("what is polled is renewed, kept while the server is away, and marked as old", async () => {
  vi.useFakeTimers();
  const load = vi.fn().mockResolvedValueOnce("one").mockImplementationOnce(away).mockResolvedValueOnce("three");
  render(<Shown load={load} />);
  await passing(0);
  expect(screen.getByText("one")).toBeTruthy();
  await passing(1000);
  expect(screen.getByText("one")).toBeTruthy();
  expect(screen.getByRole("alert").textContent).toMatch(/^This is from just now\. The server cannot be reached/);
  await passing(1999); // after a failure it waits longer
  expect(load).toHaveBeenCalledTimes(2);
  await passing(1);
  expect(screen.getByText("three")).toBeTruthy();
  expect(screen.queryByRole("alert")).toBeNull();
});

test("a first try that fails says so and can be repeated", async () => {
  const load = vi.fn().mockImplementationOnce(away).mockResolvedValue("there");
  render(<Shown load={load} />);
  fireEvent.click(await screen.findByText("Try again"));
  await screen.findByText("there");
});

test("a server that hangs is no server that is well: it is said, with the time of what is shown", async () => {
  vi.useFakeTimers();
  const signals: AbortSignal[] = [];
  const hanging = (signal: AbortSignal) => (signals.push(signal), new Promise<string>(() => {}));
  const load = vi.fn<(signal: AbortSignal) => Promise<string>>().mockResolvedValueOnce("one").mockImplementation(hanging);
  render(<Shown load={load} />);
  await passing(0);
  await passing(1000 + 14_999);
  expect(screen.queryByRole("alert")).toBeNull();
  await passing(1);
  expect(screen.getByText("one")).toBeTruthy();
  const told = screen.getByRole("alert").textContent;
  expect(told).toMatch(/^This is from 16 seconds ago\. The server does not answer\./);
  expect(signals[0]!.aborted).toBe(true);
  await passing(2000); // and it is asked again
  expect(load).toHaveBeenCalledTimes(3);
});

test("a list whose server hangs says so, and can be asked again", async () => {
  vi.useFakeTimers();
  const signals: AbortSignal[] = [];
  const hanging = (_: unknown, signal: AbortSignal) => (signals.push(signal), new Promise<Paged<string>>(() => {}));
  const load = vi.fn(hanging).mockImplementationOnce(hanging).mockResolvedValue({ items: ["one"], next: null });
  function List() {
    return <PagedList pages={usePages(load)} empty="None.">{(items) => <p>{items.join()}</p>}</PagedList>;
  }
  render(<List />);
  await passing(14_999);
  expect(screen.queryByRole("alert")).toBeNull();
  await passing(1);
  expect(screen.getByRole("alert").textContent).toMatch(/^The server does not answer\./);
  expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
  fireEvent.click(screen.getByText("Try again"));
  await passing(0);
  expect(screen.getByText("one")).toBeTruthy();
});

test("a list that is about something else now, or was left, gives up what it asked for", async () => {
  const given: { signal: AbortSignal; tell: (page: Paged<string>) => void }[] = [];
  const load = (_: unknown, signal: AbortSignal) =>
    new Promise<Paged<string>>((tell) => given.push({ signal, tell }));
  function List({ of }: { of: string }) {
    return <PagedList pages={usePages(load, of)} empty="None.">{(items) => <p>{items.join()}</p>}</PagedList>;
  }
  const { rerender, unmount } = render(<List of="1" />);
  rerender(<List of="2" />);
  expect(given.map(({ signal }) => signal.aborted)).toEqual([true, false]);
  await act(async () => given[0]!.tell({ items: ["of one"], next: null }));
  expect(screen.queryByText("of one")).toBeNull();
  unmount();
  expect(given.map(({ signal }) => signal.aborted)).toEqual([true, true]);
});

test("an answer that was overtaken is not shown", async () => {
  let tell = (_: string) => {};
  const slow = () => new Promise<string>((resolve) => (tell = resolve));
  const load = vi.fn().mockImplementationOnce(slow).mockResolvedValue("new");
  render(<Shown load={load} />);
  document.dispatchEvent(new Event("visibilitychange")); // the page is seen again
  await screen.findByText("new");
  await act(async () => tell("old"));
  expect(screen.queryByText("old")).toBeNull();
});

test("an answer about something else is never shown in its place", async () => {
  let tell = (_: string) => {};
  const slow = () => new Promise<string>((resolve) => (tell = resolve));
  const { rerender } = render(<Shown load={slow} of="1" />);
  const first = tell;
  rerender(<Shown load={() => Promise.resolve("of two")} of="2" />);
  first("of one");
  await screen.findByText("of two");
  expect(screen.queryByText("of one")).toBeNull();
});

test("who is no longer signed in is told at once", async () => {
  const out = vi.fn();
  const load = () => Promise.reject(new ApiError(401, "Expired."));
  render(<SignedOut value={out}>{<Shown load={load} />}</SignedOut>);
  await waitFor(() => expect(out).toHaveBeenCalledTimes(1));
});

const said = vi.fn();

function deed(doing: (reason: string) => Promise<unknown>, reason?: "required") {
  const done = vi.fn();
  render(
    <Say value={said}>
      <Act of="1" name="Promote" title="Promote policy-v2?" act={doing} onDone={done} {...(reason ? { reason } : {})}>
        <p>It serves everybody.</p>
      </Act>
    </Say>,
  );
  fireEvent.click(screen.getByText("Promote"));
  return done;
}

const confirm = () => fireEvent.submit(screen.getByText("It serves everybody.").closest("form")!);

test("a deed is done with its reason, once confirmed", async () => {
  const doing = vi.fn(() => Promise.resolve());
  const done = deed(doing);
  expect(doing).not.toHaveBeenCalled();
  fireEvent.change(screen.getByLabelText(/Reason/), { target: { value: " better " } });
  confirm();
  await waitFor(() => expect(done).toHaveBeenCalledTimes(1));
  expect(doing).toHaveBeenCalledWith("better");
  expect(screen.queryByText("It serves everybody.")).toBeNull();
  expect(said.mock.calls).toEqual([[""], ["Promote: done."]]); // emptied first, or the same words are heard once
});

test("a deed is of what it was when it was opened, and once that changed it does nothing", () => {
  const doing = vi.fn(() => Promise.resolve());
  const frozen = (now: boolean) => (
    <Act of={String(now)} name={now ? "Thaw" : "Freeze"} title={now ? "Thaw it?" : "Freeze it?"} act={doing}>
      <p>{now ? "It goes on." : "It stops."}</p>
    </Act>
  );
  const { rerender } = render(frozen(false));
  fireEvent.click(screen.getByText("Freeze"));
  rerender(frozen(true));
  const form = screen.getByText("It stops.").closest("form")!;
  expect(screen.getByText("Freeze it?")).toBeTruthy();
  expect(screen.queryByText("It goes on.")).toBeNull();
  const submit = screen.getByText("Freeze", { selector: "[type=submit]" }) as HTMLButtonElement;
  expect(submit.disabled).toBe(true);
  expect(screen.getByRole("alert", { hidden: true }).textContent).toBe(
    "This changed while you read it; nothing was done. Close it and look again.",
  );
  fireEvent.submit(form);
  expect(doing).not.toHaveBeenCalled();
  fireEvent.click(screen.getByText("Cancel"));
  fireEvent.click(screen.getByText("Thaw"));
  fireEvent.submit(screen.getByText("It goes on.").closest("form")!);
  expect(doing).toHaveBeenCalledTimes(1);
});

test("what changes because of the deed under way is no reason to call it undone", async () => {
  let tell = () => {};
  const doing = () => new Promise<void>((resolve) => (tell = resolve));
  const at = (of: string) => (
    <Act of={of} name="Pass" title="Pass it?" act={doing}>
      <p>It is passed.</p>
    </Act>
  );
  const { rerender } = render(at("1"));
  fireEvent.click(screen.getByText("Pass"));
  fireEvent.submit(screen.getByText("It is passed.").closest("form")!);
  rerender(at("2"));
  expect(screen.queryByRole("alert", { hidden: true })).toBeNull();
  await act(async () => tell());
  expect(screen.queryByText("It is passed.")).toBeNull();
});

test.each([true, false])("where its button goes the focus goes to the view, the dialog open: %s", async (open) => {
  const view = (there: boolean) => (
    <main tabIndex={-1}>
      {there && (
        <Act of="1" name="Withdraw" title="Withdraw it?" act={() => Promise.resolve()}>
          <p>It is useless then.</p>
        </Act>
      )}
    </main>
  );
  const { rerender } = render(view(true));
  const button = screen.getByText("Withdraw");
  button.focus();
  if (open) {
    fireEvent.click(button);
    screen.getByLabelText(/Reason/).focus();
  }
  rerender(view(false));
  await waitFor(() => expect(document.activeElement).toBe(screen.getByRole("main")));
});

/** An order that stands as long as it can be given. */
function ordered(doing: () => Promise<unknown>) {
  const view = (there: boolean) => (
    <Say value={said}>
      {there && (
        <Act of="1" name="Stop" title="Stop it?" act={doing}>
          <p>It stops.</p>
        </Act>
      )}
    </Say>
  );
  const { rerender } = render(view(true));
  fireEvent.click(screen.getByText("Stop"));
  said.mockClear();
  return { end: () => rerender(view(false)), submit: () => fireEvent.submit(screen.getByText("It stops.").closest("form")!) };
}

test("a confirmation that is taken away says that nothing was done", () => {
  const { end } = ordered(() => Promise.resolve());
  end();
  expect(said.mock.calls).toEqual([["This changed while you read it; nothing was done.", true]]);
});

test("a confirmation that was closed before says nothing when its button goes", () => {
  const { end } = ordered(() => Promise.resolve());
  fireEvent.click(screen.getByText("Cancel"));
  end();
  expect(said).not.toHaveBeenCalled();
});

test("why a deed was refused is still said when the refusal takes the confirmation away", async () => {
  const { end, submit } = ordered(() => Promise.reject(new ApiError(409, "It has ended.", "conflict")));
  submit();
  await screen.findByRole("alert", { hidden: true });
  end();
  expect(said.mock.calls).toEqual([["Somebody else was quicker, and this was not done: It has ended.", true]]);
});

test.each([
  [null, [["Stop: done."]]],
  [new ApiError(503, "Not now."), [["It is not known whether this was done: look before you repeat it. Not now.", true]]],
])("what was under way when its confirmation was taken away says how it ended: %o", async (error, says) => {
  let tell = () => {};
  const { end, submit } = ordered(
    () => new Promise<void>((resolve, reject) => (tell = () => (error ? reject(error) : resolve()))),
  );
  submit();
  end();
  expect(said).not.toHaveBeenCalled();
  await act(async () => tell());
  expect(said.mock.calls).toEqual(says);
});

test("a deed that needs a reason waits for one", () => {
  deed(() => Promise.resolve(), "required");
  const confirming = () => screen.getByText("Promote", { selector: "[type=submit]" }) as HTMLButtonElement;
  expect(confirming().disabled).toBe(true);
  fireEvent.change(screen.getByLabelText(/Reason/), { target: { value: "x" } });
  expect(confirming().disabled).toBe(false);
});

test("a conflict says that somebody was quicker, and what is shown is renewed", async () => {
  const done = deed(() => Promise.reject(new ApiError(409, "policy-v3 serves.", "conflict")));
  confirm();
  expect((await screen.findByRole("alert", { hidden: true })).textContent).toBe(
    "Somebody else was quicker, and this was not done: policy-v3 serves.",
  );
  expect(done).toHaveBeenCalledTimes(1);
});

test("another refusal is not somebody else's doing, but what is shown is renewed", async () => {
  const done = deed(() => Promise.reject(new ApiError(409, "It is the last admin key.", "last_admin")));
  confirm();
  expect((await screen.findByRole("alert", { hidden: true })).textContent).toBe("It is the last admin key.");
  expect(done).toHaveBeenCalledTimes(1);
});

test("a mistake stays in the dialog, to be mended", async () => {
  const done = deed(() => Promise.reject(new ApiError(400, "No such step.")));
  confirm();
  expect((await screen.findByRole("alert", { hidden: true })).textContent).toBe("No such step.");
  expect(done).not.toHaveBeenCalled();
});

test.each([
  [new ApiError(503, "Not now."), "Not now."],
  [new ApiError(0, "The answer broke off."), "The answer broke off."],
])("what may have been done is not called undone: %o", async (error, says) => {
  const done = deed(() => Promise.reject(error));
  confirm();
  expect((await screen.findByRole("alert", { hidden: true })).textContent).toBe(
    `It is not known whether this was done: look before you repeat it. ${says}`,
  );
  expect(done).toHaveBeenCalledTimes(1); // so that there is something to look at
});

test("a plot is drawn, and told in numbers", async () => {
  const points = [
    { x: 1, y: 0.25, low: 0.125, high: 0.5 },
    { x: 2, y: 0.5 },
  ];
  const series = [
    { name: "KL", points },
    { name: "score", points: [{ x: 2, y: -1 }] },
  ];
  const { container } = render(<Plot title="Curves" series={series} x={{ name: "step" }} y={{ name: "nats" }} />);
  await waitFor(() => expect(container.querySelector("svg [data-mark=line] path")).toBeTruthy());
  const details = container.querySelector("details")!;
  details.open = true;
  fireEvent(details, new Event("toggle"));
  const rows = [...(await screen.findByRole("table")).querySelectorAll("tr")];
  expect(rows.map((row) => [...row.children].map((cell) => cell.textContent))).toEqual([
    ["step", "KL", "score"],
    ["1", "0.25 (0.125 to 0.5)", ""],
    ["2", "0.5", "-1"],
  ]);
});

test("a plot is drawn anew only where it changed, and its lines differ by more than their colour", async () => {
  const of = (y: number) => {
    const points = [{ x: 1, y }, { x: 2, y: 0.5 }]; // prettier-ignore
    const series = ["better", "worse", "what counts"].map((name) => ({ name, points }));
    return <Plot title="Evidence" series={series} x={{ name: "votes" }} y={{ name: "log e" }} />;
  };
  const { container, rerender } = render(of(0));
  const drawn = () => container.querySelector(".c-drawn svg")!;
  await waitFor(() => expect(drawn()).toBeTruthy());
  const dashes = [...drawn().querySelectorAll("[data-mark=line]")].map((line) => line.getAttribute("stroke-dasharray"));
  expect(new Set(dashes).size).toBe(3);
  const first = drawn();
  rerender(of(0));
  expect(drawn()).toBe(first);
  rerender(of(1));
  expect(drawn()).not.toBe(first);
});

test("a table names its rows, or says why there are none", () => {
  const columns = [
    { name: "round", cell: (row: number) => `round ${row}` },
    { name: "steps", cell: (row: number) => row * 2 },
  ];
  const table = (rows: number[]) => (
    <Table label="Rounds" columns={columns} rows={rows} id={(row) => row} empty="No round yet." />
  );
  const { rerender } = render(table([7]));
  expect(screen.getByRole("rowheader", { name: "round 7" })).toBeTruthy();
  // What a card says beside it.
  expect(screen.getByRole("cell", { name: "14" }).dataset["label"]).toBe("steps");
  rerender(table([]));
  expect(screen.getByText("No round yet.")).toBeTruthy();
});

test.each([
  [1, 2, 4, [1, 2]],
  [1, 60, 8, [10, 20, 30, 40, 50, 60]],
  [0, 11, 4, [0, 5, 10]],
  [3, 403, 5, [100, 200, 300, 400]],
  [7, 7, 4, [7]],
])("from %d to %d, of at most about %d, the ticks are %j", (low, high, most, ticks) =>
  expect(wholeTicks(low, high, most)).toEqual(ticks),
);

test.each([
  [-2, "just now"],
  [-59, "59 seconds ago"],
  [-60, "1 minute ago"],
  [-3599.9, "1 hour ago"],
  [-86400 * 50, "2 months ago"],
  [120, "in 2 minutes"],
])("%d seconds are %s", (seconds, words) => expect(since(seconds)).toBe(words));

test.each([
  [1234567, "1,234,567"],
  [12345, "12,345"],
  [0.123456, "0.1235"],
  [0.5, "0.5"],
  [1e-9, "1.000e-9"],
])("%d is shown as %s", (value, shown) => expect(figure(value)).toBe(shown));

test("one tip tells what all series have at a place", () => {
  const [x, y] = [{ name: "votes" }, { name: "log e" }];
  const better = { name: "better", points: [{ x: 1, y: 0.5 }, { x: 2, y: 2 }] };
  const worse = { name: "worse", points: [{ x: 1, y: 0.75 }] };
  expect(tipsOf([better, worse], x, y)).toEqual([
    { x: 1, y: 0.75, says: "votes: 1\nbetter: 0.5\nworse: 0.75" },
    { x: 2, y: 2, says: "votes: 2\nbetter: 2" },
  ]);
  expect(tipsOf([worse], x, y)).toEqual([{ x: 1, y: 0.75, says: "votes: 1\nlog e: 0.75" }]);
  const drawn = draw({ title: "Evidence", series: [better, worse], x, y }, 400);
  expect(drawn.querySelectorAll("[data-mark=tip]")).toHaveLength(1);
});

test("the name of a level stands in the legend and not over the curves", () => {
  const shown = { title: "Win rate", series: [{ name: "rate", points: [{ x: 1, y: 0.5 }] }], x: { name: "n" }, y: { name: "y" } };
  const rules = [{ name: "as good as stable", y: 0.5 }];
  const { container } = render(<Plot {...shown} rules={rules} />);
  expect(container.querySelector(".c-legend")!.textContent).toBe("as good as stable");
  expect(draw({ ...shown, rules }, 400).textContent).not.toContain("as good as stable");
});

test("an axis of shares is drawn in percent", () => {
  const series = [{ name: "rate", points: [{ x: 0.5, y: 0.25 }] }];
  const share: Axis = { name: "share", kind: "share", domain: [0, 1] };
  const drawn = draw({ title: "Rate", series, x: share, y: share }, 400);
  const ticks = [...drawn.querySelectorAll("text")].map(({ textContent }) => textContent);
  expect(ticks.filter((tick) => tick === "100%")).toHaveLength(2);
  expect(ticks).not.toContain("1.0");
});
