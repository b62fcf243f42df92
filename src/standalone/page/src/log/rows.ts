// Lines of a log as elements. Colours of the palette are classes, others are set one by one: a style attribute would be
// refused by the page's own policy.

import { h } from '../dom';
import { PLAIN, type Piece, type Style } from './ansi';

/** Elements of one line at most: some dozens of lines are made anew whenever a log has grown. */
const MOST_PARTS = 500;

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

/** The pieces, cut where a match begins and where it ends. What is left beyond `most` of them is one more, and plain. */
export function marked(pieces: Piece[], wanted: string, most = MOST_PARTS): (Piece & { isMatch: boolean })[] {
  const text = pieces.map((piece) => piece.text).join('');
  const places = matches(text, wanted);
  const cut: (Piece & { isMatch: boolean })[] = [];
  let position = 0;
  let place = 0;
  for (const piece of pieces) {
    const end = position + piece.text.length;
    while (position < end) {
      if (cut.length === most) return [...cut, { text: text.slice(position), style: PLAIN, isMatch: false }];
      const [from, to] = places[place] ?? [end, end];
      const isMatch = from <= position;
      const until = Math.min(isMatch ? to : from, end);
      cut.push({ text: text.slice(position, until), style: piece.style, isMatch });
      position = until;
      if (isMatch && position === to) place += 1;
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
