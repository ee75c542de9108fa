/** What changed between two texts, by word. */

export interface Piece {
  kind: "same" | "added" | "removed";
  text: string;
}

// Beyond it the middle is shown as replaced at once: a table of that many cells would hold up typing.
const MAX_CELLS = 4_000_000;

/** Words, each run of white space, and each mark by itself, so that a comma more is a comma more. */
export const wordsOf = (text: string): string[] => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

/** Joined, "same" and "removed" pieces give the text before, "same" and "added" ones that after. */
export function wordDiff(before: string, after: string): Piece[] {
  const old = wordsOf(before);
  const now = wordsOf(after);
  let start = 0;
  while (start < old.length && start < now.length && old[start] === now[start]) start++;
  let end = 0;
  const room = Math.min(old.length, now.length) - start;
  while (end < room && old[old.length - 1 - end] === now[now.length - 1 - end]) end++;
  const middle = between(old.slice(start, old.length - end), now.slice(start, now.length - end));
  return merged([...same(old.slice(0, start)), ...middle, ...same(old.slice(old.length - end))]);
}

const same = (words: string[]): Piece[] => words.map((text) => ({ kind: "same", text }));

/** By the longest common subsequence; `lengths` is (old + 1) x (now + 1), of what is common from there to the end. */
function between(old: string[], now: string[]): Piece[] {
  const width = now.length + 1;
  if ((old.length + 1) * width > MAX_CELLS) {
    return [
      { kind: "removed", text: old.join("") },
      { kind: "added", text: now.join("") },
    ];
  }
  const lengths = new Uint32Array((old.length + 1) * width);
  const at = (i: number, j: number): number => lengths[i * width + j]!;
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = now.length - 1; j >= 0; j--) {
      lengths[i * width + j] = old[i] === now[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const pieces: Piece[] = [];
  for (let i = 0, j = 0; i < old.length || j < now.length;) {
    if (i < old.length && j < now.length && old[i] === now[j]) {
      pieces.push({ kind: "same", text: old[i]! });
      i++;
      j++;
    } else if (i < old.length && (j === now.length || at(i + 1, j) >= at(i, j + 1))) {
      pieces.push({ kind: "removed", text: old[i++]! });
    } else {
      pieces.push({ kind: "added", text: now[j++]! });
    }
  }
  return pieces;
}

function merged(pieces: Piece[]): Piece[] {
  const joined: Piece[] = [];
  for (const { kind, text } of pieces) {
    const last = joined.at(-1);
    if (last?.kind === kind) last.text += text;
    else if (text) joined.push({ kind, text });
  }
  return joined;
}
