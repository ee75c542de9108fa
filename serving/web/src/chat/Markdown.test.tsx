import { render, screen } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { Markdown } from "./Markdown";

vi.mock("react-markdown", () => ({
  default: ({ children }: { children: string }) => {
    if (children.includes("deep")) throw new RangeError("Maximum call stack size exceeded");
    return <em>{children}</em>;
  },
}));

afterEach(() => vi.restoreAllMocks());

test("a block that cannot be drawn is shown as it was written, and the others as ever", () => {
  vi.spyOn(console, "error").mockImplementation(() => undefined); // React tells of it
  const { rerender } = render(<Markdown text={"first\n\n> too deep\n\nlast"} />);
  expect(screen.getByText("> too deep").tagName).toBe("P");
  expect([screen.getByText("first"), screen.getByText("last")].map(({ tagName }) => tagName)).toEqual(["EM", "EM"]);
  rerender(<Markdown text={"first\n\n> shallow\n\nlast"} />);
  expect(screen.getByText("> shallow").tagName).toBe("EM");
});
