/** The reasons offered as chips. The API takes any tag of up to 64 characters, sixteen at most; these stay the same. */

export const PRAISE = ["accurate", "helpful", "clear", "concise", "well written"] as const;
export const BLAME = [
  "wrong",
  "not what I asked",
  "too long",
  "too short",
  "badly formatted",
  "refused without cause",
] as const;
export const REPORT = ["unsafe", "hateful", "private data", "illegal", "misleading", "spam"] as const;
export const MAX_REASONS = 16;
