/** Text that grows faster than it can be painted: however many pieces come, whoever shows it is told once a frame. */
export class TextBuffer {
  private pieces: string[] = [];
  private whole = "";
  private frame: number | null = null;

  constructor(
    private readonly tell: (text: string) => void,
    private readonly schedule: (paint: () => void) => number = nextFrame,
    private readonly unschedule: (handle: number) => void = forget,
  ) {}

  append(piece: string): void {
    if (!piece) return;
    this.pieces.push(piece);
    this.frame ??= this.schedule(() => this.flush());
  }

  /** All there is, told at once. */
  flush(): string {
    if (this.frame !== null) this.unschedule(this.frame);
    this.frame = null;
    if (this.pieces.length) {
      this.whole += this.pieces.join("");
      this.pieces = [];
      this.tell(this.whole);
    }
    return this.whole;
  }
}

// A page in the background paints nothing, but its answer must not stand still.
function nextFrame(paint: () => void): number {
  return document.visibilityState === "visible" ? requestAnimationFrame(paint) : -window.setTimeout(paint, 250);
}

function forget(handle: number): void {
  if (handle < 0) window.clearTimeout(-handle);
  else cancelAnimationFrame(handle);
}
