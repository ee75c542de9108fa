import { fireEvent, render, screen } from "@testing-library/react";
import { expect, test, vi } from "vitest";
import { useHotkeys } from "../rating/useHotkeys";
import { isTyping } from "./useKeys";

const KINDS = ["text", "search", "number", "checkbox", "radio"];

function Page({ voted }: { voted: () => void }) {
  useHotkeys({ a: voted, " ": voted, arrowup: voted }, true);
  return (
    <>
      {KINDS.map((kind) => (
        <input key={kind} type={kind} aria-label={kind} />
      ))}
      <textarea aria-label="words" />
      <select aria-label="choice" />
      <button>button</button>
    </>
  );
}

/** How many votes these keys are, pressed in the control of that name. */
function votes(name: string, keys: string[]): number {
  const voted = vi.fn();
  render(<Page voted={voted} />);
  const control = name === "button" ? screen.getByText(name) : screen.getByLabelText(name);
  for (const key of keys) fireEvent.keyDown(control, { key });
  return voted.mock.calls.length;
}

test.each(["text", "search", "number", "words", "choice"])("no key is a vote in %s", (name) => {
  expect(votes(name, ["a", " ", "ArrowUp"])).toBe(0);
});

test.each(["checkbox", "radio"])("a letter is a vote on a %s, whose own keys stay its own", (name) => {
  expect(votes(name, ["a", " ", "ArrowUp"])).toBe(1);
});

test("every key is a vote elsewhere, and nobody types where nothing has the focus", () => {
  expect(votes("button", ["a", " ", "ArrowUp"])).toBe(3);
  expect([isTyping(null), isTyping(document.body)]).toEqual([false, false]);
});
