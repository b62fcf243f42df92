// A log as it comes: its bytes, where its lines begin, and in which style each of them begins. Nothing is decoded before
// somebody looks at it, so a hundred megabytes cost their bytes and four more for each line.

import { pieces, PLAIN, type Piece, type Style } from './ansi';

const BLOCK_BYTES = 1 << 20;
/** A longer line is broken: whoever shows one shows all of it. */
export const LINE_BYTES = 8 << 10;
/** What a browser's tab may hold; offsets of lines have 32 bits as well, and each line has six bytes beside its own. */
export const MOST_BYTES = 1 << 29;
export const MOST_LINES = 1 << 24;

const NEWLINE = 10;
const ESCAPE = 27;
/** `ESC [ 0 m` and `ESC [ m`. */
const RESETS = [
  [ESCAPE, 0x5b, 0x30, 0x6d],
  [ESCAPE, 0x5b, 0x6d],
];

export class LogStore {
  /** Bytes that have come, those that were not kept included. */
  received = 0;
  /** Whether a line was broken: the numbers of those after it are not the log's. */
  hasBroken = false;
  private readonly blocks: Uint8Array[] = [];
  private kept = 0;
  private starts = new Uint32Array(1 << 12);
  private styles = new Uint16Array(1 << 12);
  private complete = 0;
  /** Where the last line, which is not complete, begins. */
  private open = 0;
  private openStyle = 0;
  private openIsStyled = false;
  private readonly knownStyles: Style[] = [PLAIN];
  private readonly styleNumbers = new Map<string, number>([['{}', 0]]);
  private readonly decoder = new TextDecoder();

  constructor(
    private mostBytes = MOST_BYTES,
    private readonly mostLines = MOST_LINES,
  ) {}

  /** Lines, with the one that is not complete yet. */
  get lines(): number {
    return this.complete + (this.kept > this.open ? 1 : 0);
  }

  /** Lines that will not change. */
  get completeLines(): number {
    return this.complete;
  }

  /** Whether the log is longer than what is kept of it. */
  get isCut(): boolean {
    return this.received > this.kept;
  }

  append(bytes: Uint8Array): void {
    this.received += bytes.length;
    const some = bytes.subarray(0, Math.max(0, this.mostBytes - this.kept));
    let from = 0;
    while (from < some.length && this.kept < this.mostBytes) {
      const used = this.kept % BLOCK_BYTES;
      if (used === 0) this.blocks.push(new Uint8Array(BLOCK_BYTES));
      const piece = some.subarray(from, from + BLOCK_BYTES - used);
      this.blocks[this.blocks.length - 1]?.set(piece, used);
      this.index(piece);
      from += piece.length;
    }
  }

  /** The text of lines, each with its end. */
  text(from: number, to: number): string {
    const [first, last] = [Math.max(0, from), Math.min(to, this.lines)];
    return first >= last ? '' : this.decoder.decode(this.bytes(this.start(first), this.start(last)));
  }

  /** Lines as they are shown. */
  rows(from: number, to: number): Piece[][] {
    const rows = [];
    for (let line = Math.max(0, from); line < Math.min(to, this.lines); line += 1) {
      const text = this.text(line, line + 1).replace(/\n$/, '');
      rows.push(pieces(text, this.style(line)).pieces);
    }
    return rows;
  }

  /** Finds the ends of lines in bytes that have just been kept. */
  private index(piece: Uint8Array): void {
    const begin = this.kept;
    this.kept += piece.length;
    let from = 0;
    let escape = piece.indexOf(ESCAPE);
    while (from < piece.length) {
      const newline = piece.indexOf(NEWLINE, from);
      const longest = this.open + LINE_BYTES - begin;
      const end = newline >= 0 && newline < longest ? newline + 1 : longest;
      if (escape >= 0 && escape < from) escape = piece.indexOf(ESCAPE, from);
      if (escape >= 0 && escape < Math.min(end, piece.length)) this.openIsStyled = true;
      if (end > piece.length) return;
      if (newline < 0 || newline >= longest) this.hasBroken = true;
      this.close(begin + end);
      from = end;
      if (this.complete === this.mostLines) {
        this.kept = begin + end;
        this.mostBytes = this.kept;
        return;
      }
    }
  }

  /** Completes the last line. */
  private close(end: number): void {
    if (this.complete + 1 >= this.starts.length) {
      this.starts = grown(this.starts, Uint32Array);
      this.styles = grown(this.styles, Uint16Array);
    }
    this.starts[this.complete] = this.open;
    this.styles[this.complete] = this.openStyle;
    if (this.openIsStyled) this.openStyle = this.styleAfter(this.bytes(this.open, end));
    this.complete += 1;
    this.open = end;
    this.openIsStyled = false;
  }

  private start(line: number): number {
    if (line < this.complete) return this.starts[line] ?? 0;
    return line === this.complete ? this.open : this.kept;
  }

  private style(line: number): Style {
    const number = line < this.complete ? this.styles[line] : this.openStyle;
    return this.knownStyles[number ?? 0] ?? PLAIN;
  }

  /** The style in which the line after this one begins. Most lines take back what they have set, and need no closer look. */
  private styleAfter(line: Uint8Array): number {
    const last = line.lastIndexOf(ESCAPE);
    if (RESETS.some((reset) => reset.every((byte, index) => line[last + index] === byte))) return 0;
    return this.number(pieces(this.decoder.decode(line), this.knownStyles[this.openStyle] ?? PLAIN).end);
  }

  /** Styles are few, and are kept by number. A log with more than there are numbers loses some at line ends. */
  private number(style: Style): number {
    const key = JSON.stringify(style);
    const known = this.styleNumbers.get(key);
    if (known !== undefined) return known;
    if (this.knownStyles.length > 0xffff) return 0;
    this.styleNumbers.set(key, this.knownStyles.length);
    return this.knownStyles.push(style) - 1;
  }

  private bytes(from: number, to: number): Uint8Array {
    const [first, last] = [Math.floor(from / BLOCK_BYTES), Math.floor((to - 1) / BLOCK_BYTES)];
    if (first === last) {
      const offset = first * BLOCK_BYTES;
      return this.blocks[first]?.subarray(from - offset, to - offset) ?? new Uint8Array();
    }
    const joined = new Uint8Array(to - from);
    for (let block = first; block <= last; block += 1) {
      const offset = block * BLOCK_BYTES;
      const piece = this.blocks[block]?.subarray(Math.max(0, from - offset), Math.min(BLOCK_BYTES, to - offset));
      if (piece !== undefined) joined.set(piece, Math.max(0, offset - from));
    }
    return joined;
  }
}

function grown<T extends Uint32Array | Uint16Array>(old: T, Kind: new (length: number) => T): T {
  const larger = new Kind(old.length * 2);
  larger.set(old);
  return larger;
}
