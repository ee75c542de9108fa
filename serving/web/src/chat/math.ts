/** Formulas, loaded when the first one is shown. */
import "katex/dist/katex.min.css";
import rehypeKatex from "rehype-katex";
import type { Options } from "react-markdown";

type Plugins = NonNullable<Options["rehypePlugins"]>;

// No \href and the like: what a model writes may not do anything.
export const plugins: Plugins = [[rehypeKatex, { trust: false, strict: "ignore", throwOnError: false, maxExpand: 200 }]];
