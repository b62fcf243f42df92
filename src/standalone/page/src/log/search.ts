// Looks for a text in a log, some lines at a time, so that whoever searches can be asked something else meanwhile.

import { plain } from './ansi';
import type { LogStore } from './store';

/** Lines that are looked at in one step. */
const STEP_LINES = 4096;
/** Lines that are found at most. */
export const MOST_FOUND = 100_000;

export class Search {
  /** Numbers of lines that have the text, in order. */
  readonly found: number[] = [];
  private next = 0;
  private readonly wanted: string;

  /** Capital letters count as small ones. */
  constructor(
    private readonly log: LogStore,
    text: string,
  ) {
    this.wanted = text.toLowerCase();
  }

  /** Whether all complete lines have been looked at, or enough was found. */
  get isDone(): boolean {
    return this.next >= this.log.completeLines || this.found.length >= MOST_FOUND;
  }

  /** Looks at some more lines. */
  step(): void {
    const end = Math.min(this.next + STEP_LINES, this.log.completeLines);
    const text = this.log.text(this.next, end);
    // Most steps find nothing, and need no look at single lines.
    if (plain(text).toLowerCase().includes(this.wanted)) this.look(end);
    this.next = end;
  }

  private look(end: number): void {
    for (let line = this.next; line < end && this.found.length < MOST_FOUND; line += 1) {
      if (plain(this.log.text(line, line + 1)).toLowerCase().includes(this.wanted)) this.found.push(line);
    }
  }

  /** The index in `found` of the first line after one, or of the last line before one; around the ends. */
  from(line: number, direction: 'next' | 'previous'): number | undefined {
    if (this.found.length === 0) return undefined;
    const after = this.found.findIndex((found) => (direction === 'next' ? found > line : found >= line));
    if (direction === 'next') return after < 0 ? 0 : after;
    return after <= 0 ? this.found.length - 1 : after - 1;
  }
}
