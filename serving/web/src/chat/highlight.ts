/** Colours for code, loaded when the first code is shown. */
import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import { createLowlight } from "lowlight";
import { createElement, type ReactNode } from "react";

const lowlight = createLowlight({
  bash, c, cpp, css, diff, go, java, javascript, json, python, rust, sql, typescript, xml, yaml,
});

// Longer code is shown plain: colours are not worth a frozen page.
const MAX_LENGTH = 50_000;

export function coloured(code: string, language: string): ReactNode {
  if (code.length > MAX_LENGTH || !lowlight.registered(language)) return code;
  return lowlight.highlight(language, code).children.map(shown);
}

type Hast = ReturnType<typeof lowlight.highlight>["children"][number];

function shown(node: Hast, index: number): ReactNode {
  if (node.type === "text") return node.value;
  if (node.type !== "element") return null;
  const names = node.properties["className"];
  return createElement(
    "span",
    { key: index, className: Array.isArray(names) ? names.join(" ") : undefined },
    ...node.children.map((child, at) => shown(child as Hast, at)),
  );
}
