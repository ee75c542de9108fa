/** One conversation as the page shows it, and the answer that is being written in it. */
import { ApiError, chats, chunks, conversations, explain } from "../api/client";
import type { ChatRequest, Message, ServerEvent } from "../api/client";
import { unbroken } from "../api/unbroken";
import { keepWords } from "./begun_words";
import { TextBuffer } from "./buffer";
import { begun, facts, toldOf, written } from "./chat_state";
import type { Asked, ChatState, Failure, Seen, Writing } from "./chat_state";
import { draftOf, forgetDraft, keepDraft, NEW } from "./drafts";
import { forgetStream, pendingStream, rememberStream } from "./pending";
import { messagesTo, newestEnd } from "./tree";

export class ChatStore {
  private listeners = new Set<() => void>();
  private reader: AbortController | null = null;
  state: ChatState;

  constructor(id: string, known: boolean, private readonly changed: (store: ChatStore) => void = () => undefined) {
    this.state = begun(id, known);
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  snapshot = (): ChatState => this.state;

  private set(changes: Partial<ChatState>): void {
    this.state = { ...this.state, ...changes };
    for (const listener of this.listeners) listener();
  }

  /** From the server; what is being written goes on. False if it cannot be known now. */
  async load(): Promise<boolean> {
    if (this.state.temporary) return true;
    try {
      this.set(await toldOf(this.state.id));
      return true;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) {
        const there = this.state.nodes.size ? "ready" : this.state.status === "new" ? "new" : "missing";
        if (!this.state.writing) this.set({ status: there });
        return true;
      }
      this.set({ failure: { error, retry: null, draft: null } });
      return false;
    }
  }

  /** It may have gone on in another browser. What is done here meanwhile, or is kept nowhere else, goes before that. */
  async catchUp(): Promise<void> {
    const before = this.state;
    if (before.status !== "ready" || before.temporary || before.writing) return;
    const told = await toldOf(before.id).catch(() => null); // nobody asked for it
    if (!told || this.state !== before || (before.head !== null && !told.nodes.has(before.head))) return;
    this.set(before.allowTraining ? told : { ...told, allowTraining: false });
  }

  /** The first look at it; an answer that was being written goes on: all of it again, from its beginning. */
  async open(): Promise<void> {
    if (!(await this.load())) return;
    const pending = pendingStream(this.state.id);
    if (!pending) return;
    const { responseId, parent, messages } = pending;
    const asked = { parent, messages, draft: null, edited: null };
    this.begin(asked, responseId);
    await this.follow((signal) => chats.resume(responseId, "0", signal), asked);
  }

  /** As load(), but for a wish that the server may not know of yet: not to be learned from. */
  private async reload(): Promise<boolean> {
    const out = !this.state.allowTraining;
    const loaded = await this.load();
    if (out) this.set({ allowTraining: false });
    return loaded;
  }

  ask(text: string): Promise<boolean> {
    const messages: Message[] = [{ role: "user", content: text }];
    return this.answer({ parent: this.state.head, messages, draft: text, edited: null });
  }

  /**
   * What was judged elsewhere on the page is part of it from now on; goes on from `winner` if there is one. False if it
   * could not, and the next question would go on from another answer.
   */
  async goOnFrom(winner: string | null): Promise<boolean> {
    const loaded = await this.reload();
    const there = winner === null || this.state.nodes.has(winner);
    if (winner !== null && there) this.show(winner);
    await this.keepOut();
    this.changed(this);
    return loaded && there;
  }

  /** Answers to its first question are being written elsewhere on the page. */
  begun(): void {
    if (this.state.status !== "new") return;
    this.set({ status: "ready" });
    this.changed(this);
  }

  /** What was written for an answer that never came. */
  giveBack(text: string): void {
    if (this.state.nodes.size === 0) this.set({ status: "new" });
    const place = this.state.status === "new" ? NEW : this.state.id;
    if (!draftOf(place)) keepDraft(place, text);
    const error = new ApiError(0, "There is no answer yet. Your words are in the field again.");
    this.set({ failure: { error, retry: null, draft: text } });
  }

  /** Another answer to the same messages. */
  regenerate(id: string): Promise<boolean> {
    const node = this.state.nodes.get(id);
    if (!node) return Promise.resolve(false);
    return this.answer({ parent: node.parent_id, messages: node.new_messages, draft: null, edited: null });
  }

  /** The question of a turn in other words: another branch. */
  edit(id: string, text: string): Promise<boolean> {
    const node = this.state.nodes.get(id);
    if (!node) return Promise.resolve(false);
    const kept = node.new_messages.filter((message) => message.role !== "user");
    const messages: Message[] = [...kept, { role: "user", content: text }];
    return this.answer({ parent: node.parent_id, messages, draft: null, edited: id });
  }

  async retry(): Promise<void> {
    if (this.state.status === "loading") {
      this.dismiss();
      return this.open();
    }
    const again = this.state.failure?.retry;
    if (again) await this.answer(again);
  }

  dismiss(): void {
    this.set({ failure: null });
  }

  show(id: string): void {
    const head = newestEnd(this.state.nodes, id);
    this.set({ head });
    if (!this.state.temporary) void conversations.change(this.state.id, { head }).catch(() => undefined);
  }

  /** Whether anything was written, so that the words have been used up. */
  private async answer(asked: Asked): Promise<boolean> {
    if (this.state.writing) return false;
    const request = this.request(asked.parent, asked.messages);
    this.begin(asked, null);
    return this.follow((signal) => chats.ask(request, signal), asked);
  }

  /** As a chat asks; comparisons add to it. */
  request(parent: string | null, messages: Message[]): ChatRequest {
    const { id, nodes, temporary, allowTraining } = this.state;
    return {
      model: "policy",
      messages: [...messagesTo(nodes, parent), ...messages],
      ...(temporary
        ? { store: false }
        : { metadata: { conversation_id: id, ...(allowTraining ? {} : { consent: "false" }) } }),
    };
  }

  private begin(asked: Asked, responseId: string | null): void {
    this.reader = new AbortController();
    const writing = { ...asked, responseId, text: "", stopping: false, reconnecting: false };
    this.set({ writing, failure: null, status: "ready" });
  }

  private async follow(open: (signal: AbortSignal) => AsyncIterable<ServerEvent>, asked: Asked): Promise<boolean> {
    const signal = this.reader!.signal;
    const buffer = new TextBuffer((text) => this.write({ text }));
    const seen: Seen = { facts: null, finish: null, responseId: this.state.writing?.responseId ?? null, lastId: "0" };
    const onLost = () => this.write({ reconnecting: true });
    try {
      const events = unbroken(open(signal), { signal, responseId: seen.responseId, onLost });
      await this.read(events, buffer, seen, asked);
    } catch (error) {
      if (!signal.aborted) await this.fail(error, buffer.flush(), seen, asked);
      return seen.facts !== null;
    }
    this.finish(buffer.flush(), seen, asked);
    return true;
  }

  private async read(
    events: AsyncIterable<ServerEvent>, buffer: TextBuffer, seen: Seen, { parent, messages, draft, edited }: Asked,
  ): Promise<void> {
    for await (const { chunk, id } of chunks(events)) {
      if (id) seen.lastId = id;
      if (chunk.ratchet) seen.facts = { ...seen.facts, ...chunk.ratchet };
      if (seen.responseId === null || this.state.writing?.reconnecting) {
        seen.responseId = chunk.id;
        this.write({ responseId: chunk.id, reconnecting: false });
        if (draft !== null) forgetDraft(this.state.id, draft);
        if (edited !== null) keepWords(this.state.id, edited, "question", null);
        if (this.state.writing?.stopping) void this.stop();
        this.changed(this);
      }
      if (!this.state.temporary && !this.reader!.signal.aborted) {
        rememberStream({ conversationId: this.state.id, responseId: chunk.id, lastEventId: seen.lastId, parent, messages });
      }
      const choice = chunk.choices.find((each) => each.index === 0);
      buffer.append(choice?.delta.content ?? "");
      seen.finish = choice?.finish_reason ?? seen.finish;
    }
  }

  private write(changes: Partial<Writing>): void {
    if (this.state.writing) this.set({ writing: { ...this.state.writing, ...changes } });
  }

  private finish(text: string, seen: Seen, asked: Asked): void {
    forgetStream(this.state.id);
    const id = seen.facts?.completion_ids[0] ?? seen.responseId ?? `unnamed-${this.state.nodes.size}`;
    const node = written(id, text, seen, asked);
    const nodes = new Map(this.state.nodes).set(id, node);
    this.set({ nodes, head: id, writing: null, status: "ready" });
    this.changed(this);
    void this.keepOut();
  }

  private async fail(error: unknown, text: string, seen: Seen, asked: Asked): Promise<void> {
    const mine = this.reader;
    forgetStream(this.state.id);
    const gone = error instanceof ApiError && error.status === 404 && error.code === "stream_not_found";
    const unanswered: Failure = { error, retry: asked, draft: asked.draft, shown: text };
    if ((gone || seen.responseId !== null) && !this.state.temporary) {
      // In sight until it is known what the server keeps: of an answer that its engine broke off, nothing.
      this.set({ writing: null, failure: { ...unanswered, draft: null } });
      const loaded = await this.reload();
      if (this.reader !== mine) return; // it was asked again meanwhile
      if (!loaded && gone) return this.keepOut();
    } else if (text) {
      this.finish(text, { ...seen, facts: { ...seen.facts!, partial: true } }, asked);
    }
    const kept = [...this.state.nodes.values()].some((node) => node.response_id === seen.responseId);
    if (gone && kept) {
      this.dismiss();
      return this.keepOut();
    }
    this.set({ writing: null, failure: kept ? { error, retry: null, draft: null } : unanswered });
    if (!kept && this.state.nodes.size === 0) this.set({ status: "new" });
    this.changed(this);
    await this.keepOut();
  }

  /** The stream then ends by itself, with what was shown of the answer kept. */
  async stop(): Promise<void> {
    const writing = this.state.writing;
    if (!writing) return;
    this.write({ stopping: true });
    if (writing.responseId === null) return; // as soon as it has a name
    await chats.cancel(writing.responseId).catch(() => undefined);
  }

  leave(): void {
    this.reader?.abort();
  }

  setTemporary(temporary: boolean): void {
    if (this.state.status !== "new") return;
    if (temporary) keepDraft(NEW, ""); // it leaves nothing behind, not even what was begun before
    this.set({ temporary });
  }

  async allowTrainingOf(allow: boolean): Promise<void> {
    const before = this.state.allowTraining;
    this.set({ allowTraining: allow });
    if (this.state.status === "new" || this.state.temporary) return;
    try {
      this.set(facts(await conversations.change(this.state.id, { allow_training: allow })));
    } catch (error) {
      this.set({ allowTraining: before, failure: { error, retry: null, draft: null } });
    }
  }

  /** Tells the server, once there is a conversation of which it can be told. */
  private async keepOut(): Promise<void> {
    const { id, status, temporary, allowTraining, nodes } = this.state;
    if (allowTraining || temporary || status !== "ready" || nodes.size === 0) return;
    try {
      await conversations.change(id, { allow_training: false });
    } catch (cause) {
      const error = new ApiError(
        cause instanceof ApiError ? cause.status : 0,
        `Whether this chat may be learned from could not be changed: it still may. ${explain(cause)}`,
      );
      this.set({ failure: { error, retry: null, draft: null } });
    }
  }
}
