import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { flushSync } from "react-dom";
import {
  ApiError,
  chats,
  chunks,
  comparisons,
  explain,
  type ChatChunk,
  type ChatRequest,
  type ComparisonRequest,
  type NumberedChunk,
  type ShownComparison,
} from "../api/client";
import { stop } from "../api/feedback";
import { unbroken } from "../api/unbroken";
import { Pace } from "../app/pace";
import { begun, finished, mirrored, withChunk, type Answers, type Existing } from "./answers";
import { chunksOf, keptChunks } from "./kept_answers";
import type { Ranking } from "./ranking";

/** Two blind answers or more; one more answer beside one that was there; or a pair laid out whole. It must not change while it is shown. */
export type Source = (
  { kind: "blind"; request: ComparisonRequest } | { kind: "another"; existing: Existing; request: ChatRequest; newFirst?: boolean }
  | { kind: "laid"; pair: ShownComparison }
) & {
  /** It was asked already: these answers are shown again, from their beginning. */
  responseId?: string;
};

/** Whoever comes back to answers that were left while they were written. */
export interface Memory {
  keep: (responseId: string) => void;
  keeps: () => boolean;
  /** The ranking that was begun of them, or of others that were there before. */
  ranking: () => Ranking | null;
  keepRanking: (ranking: Ranking) => void;
}

export interface Written {
  answers: Answers;
  phase: "writing" | "ended" | "failed";
  problem: string | null;
  /** When every answer had begun, in seconds since 1970. */
  shownAt: number;
  stop: () => void;
  again: () => void;
}

type Asked = Exclude<Source, { kind: "laid" }>;

/** How many are written. */
function countOf(source: Source): number {
  if (source.kind === "laid") return source.pair.completion_ids.length;
  return source.kind === "blind" ? source.request.k : 1;
}

/** The chunks of an answer; a connection that breaks off is taken up again where it was. */
function followed(source: Asked, signal: AbortSignal, onLost: () => void): AsyncGenerator<NumberedChunk> {
  const { responseId } = source;
  if (responseId) return chunks(unbroken(chats.resume(responseId, "0", signal), { signal, responseId, onLost }));
  const ask = source.kind === "blind" ? comparisons.ask(source.request, signal) : chats.ask(source.request, signal);
  return chunks(unbroken(ask, { signal, onLost }));
}

/** The gateway has forgotten the stream: it ended a while ago, or the gateway with it. */
const forgotten = (error: unknown): boolean =>
  error instanceof ApiError && error.status === 404 && error.code === "stream_not_found";

const now = (): number => Date.now() / 1000;

/** Asks, and shows what comes at the pace of the machine. What nobody looks at nor comes back to is stopped. */
export function useAnswers(source: Source, memory: Memory | null = null): Written {
  const before = source.kind === "another" ? 1 : 0;
  const start = useMemo(
    () => begun(countOf(source), source.kind === "another" ? [source.existing] : []),
    [], // the source is fixed
  );
  const [answers, setAnswers] = useState(start);
  const [phase, setPhase] = useState<Written["phase"]>("writing");
  const [problem, setProblem] = useState<string | null>(null);
  const [attempt, setAttempt] = useState(0);
  const latest = useRef(start);
  const shownAt = useRef(now());
  const first = useRef(source);
  const kept = useRef(memory);

  useEffect(() => {
    const aborter = new AbortController();
    let lost = false;
    const pace = new Pace(() => flushSync(() => setAnswers(latest.current)));
    const take = (chunk: ChatChunk) => {
      const { responseId, slots } = latest.current;
      latest.current = withChunk(latest.current, chunk, before);
      if (responseId !== chunk.id) kept.current?.keep(chunk.id);
      if (!slots.every(({ text }) => text) && latest.current.slots.every(({ text }) => text)) shownAt.current = now();
      pace.soon();
      if (lost) setProblem(null);
      lost = false;
    };
    const lose = () => {
      lost = true;
      setProblem("The connection broke off. Trying to go on…");
    };
    const read = async () => {
      const asked = { ...first.current };
      if (asked.kind === "laid") return chunksOf(asked.pair).forEach(take);
      if (attempt > 0) delete asked.responseId;
      try {
        for await (const { chunk } of followed(asked, aborter.signal, lose)) take(chunk);
      } catch (error) {
        const name = latest.current.responseId ?? asked.responseId;
        if (!forgotten(error) || !name) throw error;
        const stored = await keptChunks(asked.kind, name);
        latest.current = start;
        stored.forEach(take);
      }
    };
    latest.current = start;
    setAnswers(start);
    setPhase("writing");
    setProblem(null);
    read().then(
      () => {
        setAnswers(latest.current);
        setPhase("ended");
      },
      (error: unknown) => {
        if (aborter.signal.aborted) return;
        setAnswers(latest.current);
        setProblem(explain(error));
        setPhase("failed");
      },
    );
    return () => {
      pace.stop();
      aborter.abort();
      const { responseId } = latest.current;
      if (responseId && !finished(latest.current) && !kept.current?.keeps()) void stop(responseId).catch(() => undefined);
    };
  }, [attempt, before, start]);

  const halt = useCallback(() => {
    const { responseId } = latest.current;
    if (responseId && !finished(latest.current)) stop(responseId).catch((error: unknown) => setProblem(explain(error)));
  }, []);
  const again = useCallback(() => setAttempt((count) => count + 1), []);
  const swapped = source.kind === "another" && source.newFirst === true;
  const laid = useMemo(() => (swapped ? mirrored(answers) : answers), [answers, swapped]);
  return { answers: laid, phase, problem, shownAt: shownAt.current, stop: halt, again };
}
