/**
 * Markdown cut into blocks that can be shown one by one: while an answer grows only its last block changes, so the
 * others need not be parsed again. What is cut stays cut, so nothing jumps when the answer is finished.
 */

export type Block =
  | { kind: "text"; source: string }
  | { kind: "code"; source: string; language: string; open: boolean }
  /** A long table: `rows` are pieces of it, of which only the last grows. */
  | { kind: "table"; source: string; head: string; rows: string[] };

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const LIST = /^\s*([-*+]|\d{1,9}[.)])\s/;

export function blocksOf(markdown: string): Block[] {
  const blocks: Block[] = [];
  let text: string[] = [];
  let math = false;
  const close = () => {
    const source = text.join("\n").trimEnd();
    if (source.trim()) blocks.push(blockOf(withDollars(source)));
    text = [];
    math = false;
  };
  const lines = markdown.split("\n");
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    const fence = math ? null : FENCE.exec(line);
    if (fence) {
      close();
      const end = endOfFence(lines, at + 1, fence[1]!);
      const source = lines.slice(at + 1, end).join("\n");
      blocks.push({ kind: "code", source, language: fence[2]!, open: end === lines.length });
      at = end;
      continue;
    }
    if (opensMath(line)) math = !math;
    if (line.trim() === "" && !math && !goesOn(text, lines[at + 1])) close();
    else text.push(line);
  }
  close();
  return blocks;
}

const DELIMITERS = /^ {0,3}\|( *:?-+:? *\|)+ *$/;
const ROWS = 50;

function blockOf(source: string): Block {
  const [names = "", delimiters = "", ...rows] = source.split("\n");
  const long = rows.length > ROWS && DELIMITERS.test(delimiters) && cells(names) === cells(delimiters);
  // A row may begin without its bar, but then it may be something else.
  if (!long || ![names, ...rows].every((row) => /^ {0,3}\|/.test(row))) return { kind: "text", source };
  const pieces = Array.from({ length: Math.ceil(rows.length / ROWS) }, (_, at) => rows.slice(at * ROWS, (at + 1) * ROWS));
  return { kind: "table", source, head: `${names}\n${delimiters}`, rows: pieces.map((piece) => piece.join("\n")) };
}

const cells = (row: string): number => row.trim().replace(/\\\|/g, "").replace(/\|$/, "").split("|").length;

function endOfFence(lines: string[], from: number, fence: string): number {
  const ends = new RegExp(`^ {0,3}\\${fence[0]}{${fence.length},}\\s*$`);
  for (let at = from; at < lines.length; at++) if (ends.test(lines[at]!)) return at;
  return lines.length;
}

/** Whether displayed mathematics begins or ends in a line, and does not do both. */
function opensMath(line: string): boolean {
  return (line.match(/\$\$|\\\[|\\\]/g) ?? []).length % 2 === 1;
}

/** A list goes on over blank lines, and what is indented belongs to what is above it. */
function goesOn(text: string[], next: string | undefined): boolean {
  if (next === undefined || text.length === 0) return false;
  return /^( {2,}|\t)\S/.test(next) || (LIST.test(text[0]!) && LIST.test(next));
}

/**
 * \( \), \[ \] and those single dollars that are meant as mathematics, all as remark-math reads them: $$. Prices stay
 * prices: a formula has no blank inside its dollars, no digit after them, and more in it than a number.
 */
export function withDollars(source: string): string {
  const pieces = source.split(/(`+[^`]*`+)/);
  return pieces.map((piece, index) => (index % 2 ? piece : converted(piece))).join("");
}

// Bounded: of many beginnings without an end, each would be searched to the end of the text.
function converted(text: string): string {
  return text
    .replace(/\\\[([\s\S]{1,2000}?)\\\]/g, (_, inner: string) => `\n$$\n${inner.trim()}\n$$\n`)
    .replace(/\\\((.{1,2000}?)\\\)/g, (_, inner: string) => `$$${inner.trim()}$$`)
    .replace(/(?<![\\$\w])\$(?![\s$])([^$\n]*?[^\s$\\])\$(?![\d$])/g, (whole, inner: string) =>
      /[A-Za-z\\^_=+]/.test(inner) && !/^\d[\d.,]*\s/.test(inner) ? `$$${inner}$$` : whole,
    );
}
