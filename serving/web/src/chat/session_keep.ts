/** What this tab has under way, by conversation, so that a refresh can go on with it. */
export class SessionKeep<T> {
  constructor(private readonly key: string) {}

  all(): Record<string, T> {
    try {
      return JSON.parse(sessionStorage.getItem(this.key) ?? "{}") as Record<string, T>;
    } catch {
      return {};
    }
  }

  private keep(things: Record<string, T>): boolean {
    try {
      if (Object.keys(things).length) sessionStorage.setItem(this.key, JSON.stringify(things));
      else sessionStorage.removeItem(this.key);
      return true;
    } catch {
      return false; // storage is full or forbidden
    }
  }

  get(conversationId: string): T | undefined {
    return this.all()[conversationId];
  }

  /** Whether a refresh will find it. */
  set(conversationId: string, thing: T): boolean {
    return this.keep({ ...this.all(), [conversationId]: thing });
  }

  forget(conversationId: string): void {
    const { [conversationId]: _, ...others } = this.all();
    this.keep(others);
  }

  clear(): void {
    this.keep({});
  }
}
