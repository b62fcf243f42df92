// Lines of a log as elements. Colours of the palette are classes, others are set one by one: a style attribute would be
// refused by the page's own policy.

import { h } from '../dom';
import type { Piece, Style } from './ansi';

const WEIGHTS = ['bold', 'dim', 'italic', 'underline', 'strike'] as const;

/** A line, its number before it, and each place marked that has the text searched for. */
export function row(line: number, pieces: Piece[], wanted: string, isCurrent: boolean): HTMLElement {
  const spans = marked(pieces, wanted).map(({ text, style, isMatch }) => {
    const { foreground, background } = style.inverse ? swapped(style) : style;
    const names = [isMatch && 'match', ...WEIGHTS.map((name) => style[name] && name)];
    names.push(named('fg', foreground), named('bg', background));
    const span = h('span', { class: names.filter(Boolean).join(' ') || undefined }, text);
    if (foreground?.startsWith('#')) span.style.color = foreground;
    if (background?.startsWith('#')) span.style.backgroundColor = background;
    return span;
  });
  return h('div', { class: isCurrent ? 'row current' : 'row', 'data-line': line + 1 }, ...spans);
}

/** The pieces, cut where a match begins and where it ends. */
export function marked(pieces: Piece[], wanted: string): (Piece & { isMatch: boolean })[] {
  const text = pieces.map((piece) => piece.text).join('');
  const cuts = matches(text, wanted);
  const cut: (Piece & { isMatch: boolean })[] = [];
  let position = 0;
  for (const piece of pieces) {
    const end = position + piece.text.length;
    while (position < end) {
      const inside = cuts.find(([from, to]) => from <= position && position < to);
      const next = inside?.[1] ?? cuts.find(([from]) => from > position)?.[0] ?? end;
      const until = Math.min(next, end);
      cut.push({ text: text.slice(position, until), style: piece.style, isMatch: inside !== undefined });
      position = until;
    }
  }
  return cut;
}

function matches(text: string, wanted: string): [number, number][] {
  const found: [number, number][] = [];
  if (wanted === '') return found;
  const [lower, searched] = [text.toLowerCase(), wanted.toLowerCase()];
  for (let at = lower.indexOf(searched); at >= 0; at = lower.indexOf(searched, at + searched.length)) {
    found.push([at, at + searched.length]);
  }
  return found;
}

/** Text in the colour of its ground; what has no colour has those of the page. */
function swapped({ foreground, background }: Style): Style {
  return { foreground: background ?? 'ground', background: foreground ?? 'text' };
}

/** The class for a colour that the theme chooses. */
function named(kind: 'fg' | 'bg', colour: string | undefined): string | undefined {
  return colour === undefined || colour.startsWith('#') ? undefined : `${kind}-${colour}`;
}
