import { render, screen } from "@testing-library/react";
import { expect, test } from "vitest";
import { Markdown } from "./Markdown";

test("a long table is one table, as if it had been parsed in one piece", () => {
  const row = (at: number) => `| ${at} | **b${at}** |\n`;
  const table = (count: number) => "| n | b |\n|---|--:|\n" + Array.from({ length: count }, (_, at) => row(at)).join("");
  const { rerender } = render(<Markdown text={table(120)} />);
  const first = screen.getByRole("cell", { name: "b0" });
  expect(screen.getAllByRole("columnheader").map(({ textContent }) => textContent)).toEqual(["n", "b"]);
  expect(screen.getAllByRole("row").map(({ textContent }) => textContent)).toEqual([
    "nb",
    ...Array.from({ length: 120 }, (_, at) => `${at}b${at}`),
  ]);
  rerender(<Markdown text={table(170)} />);
  expect(screen.getByRole("cell", { name: "b0" })).toBe(first);
  expect(screen.getByRole("table").querySelectorAll("tr")).toHaveLength(171);
  expect(first.style.textAlign).toBe("right");
});
