// A task in an editor: JSON or YAML, and where in the text each finding belongs.

import { isNode, isScalar, LineCounter, parseDocument, stringify, type Document } from 'yaml';
import type { Finding } from './model';

/** What a text says, or what is wrong with it, by line. */
export type Read =
  | { value: unknown; lineOf: (pointer: string) => number }
  | { message: string; line: number };

/** Reads JSON or YAML: the first is the second as well. Lines count from 1. */
export function read(text: string): Read {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, schema: 'core' });
  const [error] = document.errors;
  if (error !== undefined) return { message: error.message, line: lines.linePos(error.pos[0]).line };
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (failure) {
    return { message: String(failure), line: 1 };
  }
  return { value, lineOf: (pointer) => lines.linePos(offset(document, pointer)).line };
}

/** Where a JSON pointer leads in the text; what is not there belongs to what should have it. */
function offset(document: Document, pointer: string): number {
  const path = pointer.split('/').slice(1).map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  for (let length = path.length; length > 0; length -= 1) {
    const node = document.getIn(path.slice(0, length), true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return 0;
}

/** What is wrong with a definition, from the words of a refusal: `…: /a/b: must be …; /c: must be …`. */
export function findings(message: string): Finding[] {
  const text = message.replace(/^the payload is invalid: /, '');
  return text.split(/; (?=\/)/).map((part) => {
    const [, pointer = '', rest = part] = /^(\/[^:\s]*): (.*)$/s.exec(part) ?? [];
    return { pointer, message: rest, severity: 'error' };
  });
}

const TIMES = ['created', 'deadline', 'expires'];
const HOUR = 60 * 60 * 1000;

/** A task to begin with. */
export function example(now: Date, owner: string): string {
  const later = (hours: number) => new Date(now.getTime() + hours * HOUR).toISOString();
  const task = {
    taskQueueId: 'local/docker-worker',
    created: now.toISOString(),
    deadline: later(24),
    expires: later(24 * 30),
    metadata: {
      name: 'hello',
      description: 'Says hello.',
      owner,
      source: 'https://example.com/hello',
    },
    payload: {
      image: 'debian:12',
      command: ['sh', '-c', 'echo hello; uname -a; echo made here >/tmp/made'],
      maxRunTime: 600,
      artifacts: { 'public/made.txt': { type: 'file', path: '/tmp/made' } },
    },
  };
  return stringify(task);
}

/** Another task like one that there is, made now: it has as much time as that one had, and a group of its own. */
export function again(task: Record<string, unknown>, now: Date): string {
  const { taskGroupId: _, ...kept } = task;
  return retimed(stringify(kept), now);
}

/** The same text made now: its times moved, and nothing else touched. */
export function retimed(text: string, now: Date): string {
  const document = parseDocument(text, { prettyErrors: false, schema: 'core' });
  const nodes = TIMES.map((key) => document.get(key, true)).filter(isScalar);
  const found = nodes.filter((node) => typeof node.value === 'string');
  const shift = now.getTime() - new Date(String(document.get('created'))).getTime();
  let result = text;
  for (const scalar of found.sort((a, b) => (b.range?.[0] ?? 0) - (a.range?.[0] ?? 0))) {
    const time = new Date(String(scalar.value)).getTime() + shift;
    const [from, to] = scalar.range ?? [0, 0];
    const quote = /["']/.exec(text.slice(from, from + 1))?.[0] ?? '';
    if (!Number.isNaN(time)) result = result.slice(0, from) + quote + new Date(time).toISOString() + quote + result.slice(to);
  }
  return result;
}

/** The same task in YAML or in JSON. */
export function convert(value: unknown, to: 'JSON' | 'YAML'): string {
  return to === 'JSON' ? `${JSON.stringify(value, undefined, 2)}\n` : stringify(value);
}

/** A new task's id: 16 random bytes of a UUID (version 4) in base64url, the first bit 0. */
export function slug(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[0] = (bytes[0] ?? 0) & 0x7f;
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}
