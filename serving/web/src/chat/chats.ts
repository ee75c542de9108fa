/** The conversations that were opened on this page: an answer goes on being written while one looks at another. */
import { ChatStore } from "./store";
import { words } from "./tree";

const nobody = (): void => undefined;

export class Chats {
  private readonly known = new Map<string, ChatStore>();
  private next: ChatStore | null = null;
  changed: (store: ChatStore) => void = nobody;

  /** The conversation that begins when something is asked in it. */
  fresh(): ChatStore {
    this.next ??= new ChatStore(`web-${newId()}`, false, (store) => this.changed(store));
    return this.next;
  }

  isFresh(store: ChatStore): boolean {
    return store === this.next;
  }

  /** It has begun: it is found by its id from now on. */
  settle(store: ChatStore): void {
    this.known.set(store.state.id, store);
    if (store === this.next) this.next = null;
  }

  /** Another new one; what was being written in a temporary one is not waited for. */
  discardFresh(): void {
    if (this.next?.state.temporary) this.next.leave();
    else if (this.next && this.next.state.status !== "new") this.settle(this.next);
    this.next = null;
  }

  open(id: string): ChatStore {
    const known = this.known.get(id);
    if (known) return known;
    const store = new ChatStore(id, true, (changed) => this.changed(changed));
    this.known.set(id, store);
    void store.open();
    return store;
  }

  forget(id: string): void {
    this.known.get(id)?.leave();
    this.known.delete(id);
  }

  /** The page is left: nothing is read any more, and nobody is told. */
  leave(): void {
    this.changed = nobody;
    for (const store of [...this.known.values(), this.next]) store?.leave();
  }

  /** What is being answered, by conversation. */
  writing(): ReadonlyMap<string, string> {
    const states = [...this.known.values()].map((store) => store.state);
    return new Map(states.flatMap(({ id, writing }) => (writing ? [[id, words(writing.messages)]] : [])));
  }
}

// randomUUID is for secure contexts only, and a page on the local network by plain http is none.
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
