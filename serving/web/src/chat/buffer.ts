/** Text that grows faster than it can be painted: however many pieces come, whoever shows it is told at its pace. */
import { Pace, type Clock } from "../app/pace";

export class TextBuffer {
  private pieces: string[] = [];
  private whole = "";
  private readonly pace: Pace;

  constructor(
    private readonly tell: (text: string) => void,
    clock?: Clock,
  ) {
    this.pace = new Pace(() => this.flush(), clock);
  }

  append(piece: string): void {
    if (!piece) return;
    this.pieces.push(piece);
    this.pace.soon();
  }

  /** All there is, told at once. */
  flush(): string {
    this.pace.stop();
    if (this.pieces.length) {
      this.whole += this.pieces.join("");
      this.pieces = [];
      this.tell(this.whole);
    }
    return this.whole;
  }
}
