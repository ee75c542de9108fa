/** What a model wrote, as safe elements: raw HTML in it stays text, and its links are checked by react-markdown. */
import { memo, useEffect, useMemo, useState, type ReactNode } from "react";
import ReactMarkdown, { type Components, type Options } from "react-markdown";
import remarkGfm from "remark-gfm";
import remarkMath from "remark-math";
import { Boundary } from "../app/Boundary";
import { blocksOf } from "./blocks";
import { CodeBlock } from "./CodeBlock";

export function Markdown({ text }: { text: string }) {
  const blocks = useMemo(() => blocksOf(text), [text]);
  return (
    <div className="markdown">
      {blocks.map((block, index) =>
        block.kind === "code" ? (
          <CodeBlock key={index} code={block.source} language={block.language} open={block.open} />
        ) : (
          <Boundary key={index} of={block.source} fallback={<p className="as-written">{block.source}</p>}>
            {block.kind === "table" ? <LongTable head={block.head} rows={block.rows} /> : <TextBlock source={block.source} />}
          </Boundary>
        ),
      )}
    </div>
  );
}

const REMARK: NonNullable<Options["remarkPlugins"]> = [remarkGfm, [remarkMath, { singleDollarTextMath: false }]];

interface TextBlockProps {
  source: string;
  components?: Components;
}

/** The same source is never parsed again. */
const TextBlock = memo(function TextBlock({ source, components = COMPONENTS }: TextBlockProps) {
  const rehype = useMath(source.includes("$$"));
  return (
    <ReactMarkdown remarkPlugins={REMARK} rehypePlugins={rehype} components={components}>
      {source}
    </ReactMarkdown>
  );
});

type Rehype = NonNullable<Options["rehypePlugins"]>;

let loaded: Rehype | null = null;

function useMath(wanted: boolean): Rehype | undefined {
  const [plugins, setPlugins] = useState<Rehype | null>(loaded);
  useEffect(() => {
    if (!wanted || plugins) return;
    // Without them the formula stays as it was written.
    import("./math").then(
      (math) => {
        loaded = math.plugins;
        setPlugins(loaded);
      },
      () => undefined,
    );
  }, [wanted, plugins]);
  return wanted ? (plugins ?? undefined) : undefined;
}

/** Piece by piece, each parsed as a table of its own under the same names. */
function LongTable({ head, rows }: { head: string; rows: string[] }) {
  return (
    <TableBox>
      {rows.map((piece, at) => (
        <TextBlock key={at} source={`${head}\n${piece}`} components={at === 0 ? FIRST_ROWS : MORE_ROWS} />
      ))}
    </TableBox>
  );
}

const TableBox = ({ children }: { children?: ReactNode }) => (
  <div className="table" tabIndex={0} role="region" aria-label="Table">
    <table>{children}</table>
  </div>
);

const COMPONENTS: Components = {
  a: ({ href, children }) => (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow">
      {children}
    </a>
  ),
  // Fetching what a model names would tell a stranger who reads it, and when.
  img: ({ src, alt }) => (
    <a href={typeof src === "string" ? src : undefined} target="_blank" rel="noopener noreferrer nofollow">
      {alt || "image"}
    </a>
  ),
  table: ({ children }) => <TableBox>{children}</TableBox>,
  pre: ({ node, children }) => {
    const code = node?.children[0];
    if (code?.type !== "element" || code.tagName !== "code") return <pre>{children}</pre>;
    const text = code.children.map((child) => (child.type === "text" ? child.value : "")).join("");
    const names = code.properties["className"];
    const language = Array.isArray(names) ? String(names[0]).replace(/^language-/, "") : "";
    return <CodeBlock code={text.replace(/\n$/, "")} language={language} open={false} />;
  },
};

const FIRST_ROWS: Components = { ...COMPONENTS, table: ({ children }) => <>{children}</> };
const MORE_ROWS: Components = { ...FIRST_ROWS, thead: () => null };
