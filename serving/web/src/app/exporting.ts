/** A conversation as a file: all its branches as JSON, or the branch that is shown as Markdown. */
import { conversations, type Tree } from "../api/client";
import { blocksOf } from "../chat/blocks";
import { asked, branchTo, indexed } from "../chat/tree";

export async function exportConversation(id: string, title: string, as: "json" | "markdown"): Promise<void> {
  const tree = await conversations.tree(id);
  const name = title.replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 60) || "conversation";
  if (as === "json") save(`${name}.json`, JSON.stringify({ title, ...tree }, null, 2), "application/json");
  else save(`${name}.md`, markdownOf(title, tree), "text/markdown");
}

export function markdownOf(title: string, tree: Tree): string {
  const turns = branchTo(indexed(tree.nodes), tree.head).map((node) => {
    const writer = node.policy_version === null ? "Answer" : `policy-v${node.policy_version}`;
    return `## You\n\n${asked(node)}\n\n## ${writer}\n\n${node.content}${fenceLeftOpen(node.content)}${node.partial ? "\n\n*(stopped)*" : ""}\n`;
  });
  return [`# ${title}\n`, ...turns].join("\n");
}

/** What ends the code in which an answer was stopped: all that follows would be code, too. */
function fenceLeftOpen(content: string): string {
  const last = blocksOf(content).at(-1);
  if (last?.kind !== "code" || !last.open) return "";
  const opening = content.slice(0, content.length - last.source.length).trimEnd().split("\n").at(-1)!;
  return `\n${/`{3,}|~{3,}/.exec(opening)![0]}`;
}

function save(name: string, text: string, type: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
