/** A judgement in words, as its author reads it later. */

import type { KeptFeedback } from "../api/client";

const RANKING_WORDS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"];

function ratingWords({ value, metric }: Record<string, unknown>): string {
  const mark = value === 1 ? "Thumb up" : value === -1 ? "Thumb down" : `Mark ${Number(value).toFixed(2)}`;
  return metric ? `${mark} for ${String(metric)}` : mark;
}

function comparisonWords({ winner }: Record<string, unknown>): string {
  const words: Record<string, string> = {
    left: "The left answer is better",
    right: "The right answer is better",
    tie: "Two answers are equally good",
    both_bad: "Both answers are bad",
  };
  return words[String(winner)] ?? "Comparison";
}

/** Which answers, by the order shown: "Ranking of 3: second > first = third". */
function rankingWords(judgement: Record<string, unknown>): string {
  const candidates = judgement.candidates as string[];
  const name = (id: string): string => {
    const index = candidates.indexOf(id);
    return RANKING_WORDS[index] ?? `no. ${index + 1}`;
  };
  const order = (judgement.ranking as string[][]).map((group) => group.map(name).join(" = ")).join(" > ");
  const none = judgement.none_acceptable ? "; none is acceptable" : "";
  return `Ranking of ${candidates.length}: ${order}${judgement.partial ? " > the rest" : ""}${none}`;
}

export function titleOf({ judgement }: KeptFeedback): string {
  switch (judgement.type) {
    case "rating":
      return ratingWords(judgement);
    case "comparison":
      return comparisonWords(judgement);
    case "ranking":
      return rankingWords(judgement);
    case "demonstration":
      return judgement.based_on_edit ? "Corrected answer" : "Better answer";
    case "flag":
      return "Report";
    case "comment":
      return "Comment";
  }
}

/** The words and tags that came with it. */
export function detailsOf({ judgement }: KeptFeedback): string[] {
  const { reasons, comment, content } = judgement as { reasons?: string[]; comment?: string | null; content?: string };
  return [reasons?.length ? reasons.join(", ") : "", comment ?? "", content ?? ""].filter(Boolean);
}
