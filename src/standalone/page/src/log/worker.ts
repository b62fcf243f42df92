// The worker that fetches a log, holds it, and searches it, so that the page itself never waits for any of that.

import type { FromWorker, ToWorker } from './messages';
import { Search } from './search';
import { LogStore } from './store';

/** How often the page hears that a log has grown, in milliseconds. */
const TOLD_EVERY = 100;
/** How long lines may wait for the search, in milliseconds. */
const SEARCHED_AT_ONCE = 16;

const PARTIAL_CONTENT = 206;
const RANGE_NOT_SATISFIABLE = 416;

const log = new LogStore();
let search: Search | undefined;
let isSearching = false;
let lastTold = 0;
let fetching: AbortController | undefined;

addEventListener('message', (event: MessageEvent<ToWorker>) => {
  const message = event.data;
  switch (message.kind) {
    case 'fetch':
      fetching?.abort();
      fetching = new AbortController();
      void follow(message.path, message.authorization, fetching.signal);
      break;
    case 'pause':
      fetching?.abort();
      break;
    case 'rows':
      say({ kind: 'rows', from: message.from, rows: log.rows(message.from, message.to) });
      break;
    case 'search':
      search = message.text === '' ? undefined : new Search(log, message.text);
      goOnSearching();
      break;
    case 'step': {
      const index = search?.from(message.line, message.direction);
      const line = index === undefined ? undefined : search?.found[index];
      if (index !== undefined && line !== undefined) say({ kind: 'stepped', line, index });
      break;
    }
  }
});

async function follow(path: string, authorization: string, signal: AbortSignal): Promise<void> {
  const before = log.received;
  const headers: Record<string, string> = authorization === '' ? {} : { Authorization: authorization };
  // What is stored is sent from its beginning all the same.
  if (before > 0) headers['Range'] = `bytes=${before}-`;
  try {
    const response = await fetch(path, { headers, signal, cache: 'no-store', credentials: 'omit' });
    // There is nothing after what is there already.
    if (response.status === RANGE_NOT_SATISFIABLE) {
      say({ kind: 'ended', status: 200, message: '' });
      return;
    }
    if (!response.ok || response.body === null) {
      const answer = (await response.json().catch(() => ({}))) as { message?: string };
      say({ kind: 'ended', status: response.status, message: answer.message ?? response.statusText });
      return;
    }
    let position = response.status === PARTIAL_CONTENT ? before : 0;
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const known = Math.max(0, before - position);
      position += value.length;
      if (known < value.length) log.append(value.subarray(known));
      tell(false);
      // Nothing more of it would be kept.
      if (log.isCut) {
        await reader.cancel();
        break;
      }
    }
    tell(true);
    say({ kind: 'ended', status: 200, message: '' });
  } catch (error) {
    tell(true);
    if (signal.aborted) return;
    say({ kind: 'ended', status: 0, message: String(error) });
  }
}

function tell(now: boolean): void {
  const time = performance.now();
  if (!now && time - lastTold < TOLD_EVERY) {
    schedule();
    return;
  }
  lastTold = time;
  say({ kind: 'grown', lines: log.lines, bytes: log.received, isCut: log.isCut, hasBroken: log.hasBroken });
  goOnSearching();
}

let scheduled: number | undefined;

/** The last bytes before a pause are told of as well. */
function schedule(): void {
  scheduled ??= setTimeout(() => {
    scheduled = undefined;
    tell(true);
  }, TOLD_EVERY);
}

function goOnSearching(): void {
  if (isSearching) return;
  isSearching = true;
  setTimeout(() => {
    isSearching = false;
    const current = search;
    if (current === undefined) return;
    const until = performance.now() + SEARCHED_AT_ONCE;
    while (!current.isDone && performance.now() < until) current.step();
    say({ kind: 'found', count: current.found.length, isDone: current.isDone });
    if (!current.isDone) goOnSearching();
  }, 0);
}

function say(message: FromWorker): void {
  postMessage(message);
}
