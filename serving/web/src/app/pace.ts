/** What changes all the time is painted at most once a frame, and leaves most of the time for all else. */

export interface Clock {
  now(): number;
  /** Each gives back how to call it off. */
  frame(run: () => void): () => void;
  after(milliseconds: number, run: () => void): () => void;
}

/** From one paint to the next it takes this many times what the first cost: on a slow machine it is painted less often. */
const SHARE = 3;
const LONGEST_MS = 1000;

export class Pace {
  private due = 0;
  private callOff: (() => void) | null = null;

  /** `paint` leaves nothing for later: what it costs is seen once the browser has laid it out. */
  constructor(
    private readonly paint: () => void,
    private readonly clock: Clock = CLOCK,
  ) {}

  soon(): void {
    if (this.callOff) return;
    const { clock } = this;
    const wait = this.due - clock.now();
    const onFrame = () => (this.callOff = clock.frame(() => this.run()));
    this.callOff = wait > 0 ? clock.after(wait, onFrame) : onFrame();
  }

  stop(): void {
    this.callOff?.();
    this.callOff = null;
  }

  private run(): void {
    const begun = this.clock.now();
    this.callOff = null;
    if (begun < this.due) return this.soon(); // it was asked for before the cost of the last was known
    this.paint();
    this.clock.after(0, () => {
      this.due = begun + Math.min(SHARE * (this.clock.now() - begun), LONGEST_MS);
    });
  }
}

const CLOCK: Clock = {
  now: () => performance.now(),
  // A page in the background paints nothing, but its answer must not stand still.
  frame: (run) => {
    if (document.visibilityState !== "visible") return CLOCK.after(250, run);
    const handle = requestAnimationFrame(run);
    return () => cancelAnimationFrame(handle);
  },
  after: (milliseconds, run) => {
    const timer = window.setTimeout(run, milliseconds);
    return () => window.clearTimeout(timer);
  },
};
