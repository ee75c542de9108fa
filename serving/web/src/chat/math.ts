/** Formulas, loaded when the first one is shown. */
import "katex/dist/katex.min.css";
import rehypeKatex from "rehype-katex";
import type { Options } from "react-markdown";

type Plugins = NonNullable<Options["rehypePlugins"]>;

// No \href and the like, and nothing larger than the page: what a model writes may not do anything.
const SAFE = { trust: false, strict: "ignore", throwOnError: false, maxExpand: 200, maxSize: 20 } as const;
export const plugins: Plugins = [[rehypeKatex, SAFE]];
