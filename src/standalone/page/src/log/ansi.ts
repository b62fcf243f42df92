// A line of a terminal's output as pieces of text with a style: colours and the like are kept (ECMA-48 SGR), every other
// control sequence is dropped. Nothing moves the cursor up in a list of lines, so only a carriage return means something:
// what follows it stands where the line was.

/** How text looks. A colour is one of the sixteen that a theme chooses, `0`–`15`, or `#rrggbb`. */
export interface Style {
  foreground?: string;
  background?: string;
  bold?: boolean;
  dim?: boolean;
  italic?: boolean;
  underline?: boolean;
  inverse?: boolean;
  strike?: boolean;
}

export interface Piece {
  text: string;
  style: Style;
}

/** No colour, no weight. */
export const PLAIN: Style = Object.freeze({});

// CSI and OSC sequences, those of two characters, and other controls than tab and carriage return. An OSC sequence without
// an end is over with its line.
const CONTROL =
  /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\|(?![^\n]))|\x1b[ -/]*[0-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x1b]|\r+/g;

/** The pieces of a line that begins in a style, and the style in which the next one begins. */
export function pieces(line: string, begin: Style): { pieces: Piece[]; end: Style } {
  let style = begin;
  let found: Piece[] = [];
  let from = 0;
  // Not by a pattern: one for the returns at the end is tried at each return of a line that is full of them.
  let length = line.length;
  while (line.endsWith('\r', length)) length -= 1;
  const text = line.slice(0, length);
  for (const match of text.matchAll(CONTROL)) {
    if (match.index > from) found.push({ text: text.slice(from, match.index), style });
    from = match.index + match[0].length;
    if (match[0].startsWith('\r')) found = [];
    else if (match[2] === 'm') style = sgr(style, match[1] ?? '');
  }
  if (from < text.length) found.push({ text: text.slice(from), style });
  return { pieces: found, end: style };
}

/** Text without sequences. Nearly all of them are of one kind, and a log may have millions. */
export function plain(text: string): string {
  const left = text.replace(/\x1b\[[0-?]*[ -/]*[@-~]/g, '');
  return left.includes('\x1b') ? left.replace(CONTROL, (control) => (control.startsWith('\r') ? control : '')) : left;
}

function sgr(before: Style, parameters: string): Style {
  let style: Style = { ...before };
  // Colours of more than one parameter are written with colons by some, with semicolons by most.
  const codes = parameters.split(/[;:]/).map((code) => (code === '' ? 0 : Number(code)));
  while (codes.length > 0) {
    const code = codes.shift() ?? 0;
    if (code === 0) style = {};
    else if (code === 1) style.bold = true;
    else if (code === 2) style.dim = true;
    else if (code === 3) style.italic = true;
    else if (code === 4) style.underline = true;
    else if (code === 7) style.inverse = true;
    else if (code === 9) style.strike = true;
    else if (code === 22) style = without(style, 'bold', 'dim');
    else if (code === 23) style = without(style, 'italic');
    else if (code === 24) style = without(style, 'underline');
    else if (code === 27) style = without(style, 'inverse');
    else if (code === 29) style = without(style, 'strike');
    else if (code >= 30 && code <= 37) style.foreground = String(code - 30);
    else if (code >= 90 && code <= 97) style.foreground = String(code - 82);
    else if (code >= 40 && code <= 47) style.background = String(code - 40);
    else if (code >= 100 && code <= 107) style.background = String(code - 92);
    else if (code === 39) style = without(style, 'foreground');
    else if (code === 49) style = without(style, 'background');
    else if (code === 38) style.foreground = colour(codes) ?? style.foreground ?? '7';
    else if (code === 48) style.background = colour(codes) ?? style.background ?? '0';
  }
  return style;
}

function without(style: Style, ...names: (keyof Style)[]): Style {
  const rest = { ...style };
  for (const name of names) delete rest[name];
  return rest;
}

/** Takes `5;N` or `2;R;G;B`. */
function colour(codes: number[]): string | undefined {
  const bounded = (value: number | undefined) => Math.min(255, Math.max(0, value ?? 0));
  const kind = codes.shift();
  if (kind === 5) return palette(bounded(codes.shift()));
  if (kind !== 2) return undefined;
  const [red, green, blue] = codes.splice(0, 3);
  return hex(bounded(red), bounded(green), bounded(blue));
}

/** The palette of 256: sixteen colours, a cube of 6 × 6 × 6, and 24 greys, as xterm has them. */
function palette(number: number): string {
  if (number < 16) return String(number);
  const grey = 8 + 10 * (number - 232);
  if (number >= 232) return hex(grey, grey, grey);
  const level = (step: number) => (step === 0 ? 0 : 55 + 40 * step);
  const cube = number - 16;
  return hex(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

function hex(...parts: [red: number, green: number, blue: number]): string {
  return '#' + parts.map((part) => part.toString(16).padStart(2, '0')).join('');
}
