// From lines to pixels and back. An element can be a few million pixels high, and a log longer than that: then the
// scroll bar's range stands for the log's, and one of its pixels for more than one of the log's.

export interface Scroll {
  /** Lines in all. */
  lines: number;
  lineHeight: number;
  /** Of what can be seen. */
  viewHeight: number;
}

/** What every browser can still lay out. */
export const MOST_PIXELS = 8_000_000;

/** Whether a pixel of the bar stands for more than one of the log. */
export function isScaled(scroll: Scroll): boolean {
  return scroll.lines * scroll.lineHeight > MOST_PIXELS;
}

/** How high all lines together are made. */
export function height({ lines, lineHeight }: Scroll): number {
  return Math.min(lines * lineHeight, MOST_PIXELS);
}

/** The line, or part of one, at the upper edge when the scroll bar stands there. */
export function topLine(scroll: Scroll, scrollTop: number): number {
  const range = height(scroll) - scroll.viewHeight;
  return range <= 0 ? 0 : Math.min(1, Math.max(0, scrollTop / range)) * lastTop(scroll);
}

/** Where the scroll bar stands for that line at the upper edge. */
export function scrollTop(scroll: Scroll, line: number): number {
  const range = height(scroll) - scroll.viewHeight;
  const last = lastTop(scroll);
  return last <= 0 || range <= 0 ? 0 : (clamp(scroll, line) / last) * range;
}

/** A line that can be at the upper edge. */
export function clamp(scroll: Scroll, line: number): number {
  return Math.min(Math.max(0, line), Math.max(0, lastTop(scroll)));
}

/** The line at the upper edge when the end of the log is at the lower one. */
export function lastTop({ lines, lineHeight, viewHeight }: Scroll): number {
  return Math.max(0, lines - viewHeight / lineHeight);
}
