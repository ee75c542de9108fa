import { expect, test } from "vitest";
import { blocksOf, withDollars } from "./blocks";

const kinds = (markdown: string) => blocksOf(markdown).map((block) => [block.kind, block.source]);

test("paragraphs, fences and lists are blocks", () => {
  const markdown = "One\ntwo\n\n```py\nx = 1\n\ny = 2\n```\n\n- a\n\n- b\n\n  more of b\n\nEnd";
  expect(kinds(markdown)).toEqual([
    ["text", "One\ntwo"],
    ["code", "x = 1\n\ny = 2"],
    ["text", "- a\n\n- b\n\n  more of b"],
    ["text", "End"],
  ]);
});

test("a fence is open until its own end comes", () => {
  expect(blocksOf("````\n```\nx")).toEqual([{ kind: "code", source: "```\nx", language: "", open: true }]);
  expect(blocksOf("~~~js\nx\n~~~")).toEqual([{ kind: "code", source: "x", language: "js", open: false }]);
});

test("as an answer grows its finished blocks stay as they were", () => {
  const markdown = "# A\n\ntext $x$ more\n\n```\ncode\n```\n\n1. a\n2. b\n\nend of it\n\n$$\na\n\nb\n$$\n\nlast";
  let before: string[] = [];
  for (let length = 1; length <= markdown.length; length++) {
    const now = blocksOf(markdown.slice(0, length)).map((block) => block.source);
    expect(now.slice(0, Math.max(0, before.length - 2))).toEqual(before.slice(0, -2));
    before = now;
  }
  expect(before).toHaveLength(7);
});

test("a long table grows at its end alone; what is no table, or may be more than one, stays whole", () => {
  const rows = (count: number) => Array.from({ length: count }, (_, at) => `| ${at} | $x_1$ |`).join("\n");
  const head = "| a \\| b | c |\n|---|:-:|";
  const [long, longer] = [102, 103].map((count) => blocksOf(`${head}\n${rows(count)}\n\nEnd`)[0]!);
  if (long?.kind !== "table" || longer?.kind !== "table") throw new Error("no table");
  expect([long.head, ...long.rows].join("\n")).toBe(`${head}\n${rows(102).replaceAll("$", "$$$$")}`);
  expect(long.rows.map((piece) => piece.split("\n").length)).toEqual([50, 50, 2]);
  expect(longer.rows.slice(0, 2)).toEqual(long.rows.slice(0, 2));
  const whole = [
    `${head}\n${rows(50)}`,
    `${head}\n${rows(60)}\n> said`,
    `| a |\n|---|---|\n${rows(60)}`,
    `${head.replace("---", "-x-")}\n${rows(60)}`,
  ];
  expect(whole.map((markdown) => blocksOf(markdown)[0]!.kind)).toEqual(["text", "text", "text", "text"]);
});

test("mathematics is told from prices and code", () => {
  expect(withDollars("costs $5 and $10")).toBe("costs $5 and $10");
  expect(withDollars("from $5 to x$")).toBe("from $5 to x$");
  expect(withDollars("let $x_1 = 2$ be")).toBe("let $$x_1 = 2$$ be");
  expect(withDollars("\\(a+b\\) `$y$`")).toBe("$$a+b$$ `$y$`");
  expect(withDollars("\\[\na\n\\]")).toBe("\n$$\na\n$$\n");
});

test("many beginnings of formulas without an end are read in no time", () => {
  const text = "\\[ ".repeat(80_000) + "\\( ".repeat(80_000);
  const began = performance.now();
  expect(withDollars(text)).toBe(text);
  expect(performance.now() - began).toBeLessThan(15_000);
}, 120_000);
