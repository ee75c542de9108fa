/** Time that passes when a test says so, with a frame every 16 ms. */
import type { Clock } from "./pace";

const FRAME_MS = 16;

export class SlowClock implements Clock {
  private time = 0;
  private readonly waiting: { at: number; run: () => void }[] = [];

  now = (): number => this.time;

  frame = (run: () => void): (() => void) => this.put((Math.floor(this.time / FRAME_MS) + 1) * FRAME_MS, run);

  after = (milliseconds: number, run: () => void): (() => void) => this.put(this.time + milliseconds, run);

  private put(at: number, run: () => void): () => void {
    const entry = { at, run };
    this.waiting.push(entry);
    return () => void this.waiting.splice(this.waiting.indexOf(entry) >>> 0, 1);
  }

  /** Work that nothing interrupts. */
  work(milliseconds: number): void {
    this.time += milliseconds;
  }

  pass(milliseconds: number): void {
    const until = this.time + milliseconds;
    for (;;) {
      this.waiting.sort((one, other) => one.at - other.at);
      const next = this.waiting[0];
      if (!next || next.at > until) break;
      this.waiting.shift();
      this.time = Math.max(this.time, next.at);
      next.run();
    }
    this.time = Math.max(this.time, until);
  }
}
