// A log on the page. The lines that can be seen are elements, all others are in the worker.
//
//   worker ──grown──► scroll bar, and the end while it is followed ──rows──► worker ──► elements

import * as api from '../api';
import { h, tell } from '../dom';
import { bytes, count } from '../text';
import type { Piece } from './ansi';
import type { FromWorker, ToWorker } from './messages';
import { row } from './rows';
import { clamp, height, isScaled, lastTop, scrollTop, topLine, type Scroll } from './scroll';
import { MOST_FOUND } from './search';
import { LINE_BYTES, MOST_BYTES, MOST_LINES } from './store';

declare const LOG_WORKER: string;

/** Lines that are made beyond the edges, so that a little scrolling shows no gap. */
const BEYOND = 20;
/** Until a log that is not there yet, or that was cut, is asked for again, in milliseconds. */
const AGAIN = 1000;
const AGAIN_AT_MOST = 15_000;
/** Until a log that nobody looks at is no longer fetched: a browser has six connections for all of its tabs. */
const UNSEEN = 5000;

const SERVICE_UNAVAILABLE = 503;

/** Which log. */
export interface LogName {
  taskId: string;
  runId: number;
  name: string;
}

export class LogView {
  readonly element: HTMLElement;
  private readonly worker = new Worker(LOG_WORKER);
  private readonly rows = h('div', { class: 'rows' });
  private readonly range = h('div', { class: 'range' });
  private readonly scroller = h('div', {
    class: 'scroller',
    tabindex: 0,
    role: 'region',
    'aria-label': 'Lines of the log',
    onscroll: () => this.scrolled(),
    onwheel: (event: WheelEvent) => this.wheeled(event),
    onkeydown: (event: KeyboardEvent) => this.pressed(event),
  });
  private readonly note = h('p', { class: 'note', role: 'status' });
  private readonly size = h('span', { class: 'quiet' });
  private readonly hits = h('output', { class: 'quiet' });
  private readonly follow = h('input', {
    type: 'checkbox',
    onchange: () => this.followAgain(),
  });
  private readonly search = h('input', {
    type: 'search',
    placeholder: 'Search the log',
    'aria-label': 'Search the log',
    oninput: () => this.searched(),
    onkeydown: (event: KeyboardEvent) => {
      if (event.key === 'Enter') this.step(event.shiftKey ? 'previous' : 'next');
    },
  });
  private lines = 0;
  /** The line at the upper edge, or part of one. */
  private top = 0;
  private shown: { from: number; rows: Piece[][] } = { from: 0, rows: [] };
  private current = -1;
  private found = 0;
  private wait = AGAIN;
  private isResolved = false;
  private isWhole = false;
  /** It was refused, and is not asked for again before something changes. */
  private hasFailed = false;
  private timer: number | undefined;
  private readonly resized = new ResizeObserver(() => this.update());

  /** `follows`: whether its end is shown as it comes; its beginning otherwise. */
  constructor(
    private readonly log: LogName,
    follows: boolean,
  ) {
    this.follow.checked = follows;
    this.scroller.append(this.range, this.rows);
    const button = (text: string, label: string, onclick: () => void) =>
      h('button', { type: 'button', 'aria-label': label, title: label, onclick }, text);
    this.element = h(
      'section',
      { class: 'log', 'aria-label': 'Log' },
      h(
        'div',
        { class: 'bar' },
        this.search,
        button('↑', 'Previous match', () => this.step('previous')),
        button('↓', 'Next match', () => this.step('next')),
        this.hits,
        h('span', { class: 'grow' }),
        this.size,
        h('label', {}, this.follow, ' Follow'),
      ),
      this.note,
      this.scroller,
    );
    this.worker.addEventListener('message', (event: MessageEvent<FromWorker>) => this.told(event.data));
    this.resized.observe(this.scroller);
    document.addEventListener('visibilitychange', this.seen);
    this.fetch();
  }

  /** The run is over: its log is stored, and one that is not there by now will not come. */
  resolved(): void {
    this.isResolved = true;
    if (this.hasFailed) this.fetch();
  }

  focusSearch(): void {
    this.search.focus();
  }

  /** Nothing of it goes on. */
  end(): void {
    clearTimeout(this.timer);
    document.removeEventListener('visibilitychange', this.seen);
    this.resized.disconnect();
    this.worker.terminate();
  }

  private readonly seen = () => {
    clearTimeout(this.timer);
    if (this.isWhole || this.hasFailed) return;
    if (document.hidden) this.timer = setTimeout(() => this.say({ kind: 'pause' }), UNSEEN);
    else this.fetch();
  };

  private fetch(): void {
    this.hasFailed = false;
    const { taskId, runId, name } = this.log;
    this.say({ kind: 'fetch', ...api.logRequest(taskId, runId, name) });
  }

  private told(message: FromWorker): void {
    switch (message.kind) {
      case 'grown':
        this.wait = AGAIN;
        this.lines = message.lines;
        tell(this.size, `${count(message.lines, 'line')}, ${bytes(message.bytes)}`);
        tell(this.note, bounds(message));
        this.update();
        break;
      case 'ended':
        this.ended(message.status, message.message);
        break;
      case 'rows':
        this.shown = message;
        this.draw();
        break;
      case 'found':
        this.found = message.count;
        this.tellHits(message.isDone ? '' : '…');
        break;
      case 'stepped':
        this.show(message.line, message.index);
        break;
    }
  }

  /** A whole log was sent, or it has to be asked for again. */
  private ended(status: number, message: string): void {
    this.isWhole = status === 200;
    if (this.isWhole) return;
    const isMissing = status === 404;
    const isBusy = status === SERVICE_UNAVAILABLE;
    if (status !== 0 && !isBusy && (!isMissing || this.isResolved)) {
      this.hasFailed = true;
      tell(this.note, isMissing ? 'This run has no log.' : `The log cannot be read: ${message}`);
      return;
    }
    if (isBusy) tell(this.note, 'Too many others read logs now; this one is asked for again.');
    else if (this.lines === 0) tell(this.note, isMissing ? 'The log begins with the run.' : 'The log cannot be reached.');
    this.timer = setTimeout(() => this.fetch(), this.wait);
    if (!isMissing) this.wait = Math.min(2 * this.wait, AGAIN_AT_MOST);
  }

  private get scroll(): Scroll {
    const lineHeight = parseFloat(getComputedStyle(this.rows).lineHeight) || 18;
    return { lines: this.lines, lineHeight, viewHeight: this.scroller.clientHeight };
  }

  /** After a change of what there is, or of the room for it. */
  private update(): void {
    const scroll = this.scroll;
    this.range.style.height = `${height(scroll)}px`;
    this.moveTo(this.follow.checked ? lastTop(scroll) : this.top);
  }

  /** Puts a line at the upper edge. */
  private moveTo(line: number): void {
    const scroll = this.scroll;
    this.top = clamp(scroll, line);
    if (!this.isAt(scroll)) this.scroller.scrollTop = scrollTop(scroll, this.top);
    this.ask();
  }

  /** Whether the bar stands where the line at the upper edge has it. */
  private isAt(scroll: Scroll): boolean {
    return Math.abs(this.scroller.scrollTop - scrollTop(scroll, this.top)) < 1.5;
  }

  /** The bar was moved: by hand, or by `moveTo`. It is left alone, as it may be on its way still. */
  private scrolled(): void {
    const scroll = this.scroll;
    if (this.isAt(scroll)) return;
    this.top = topLine(scroll, this.scroller.scrollTop);
    this.follow.checked = this.isAtEnd(this.top);
    this.ask();
  }

  private goTo(line: number): void {
    this.follow.checked = this.isAtEnd(line);
    this.moveTo(line);
  }

  /** The end is followed from where it can be seen, and nowhere else. */
  private isAtEnd(line: number): boolean {
    return line >= lastTop(this.scroll) - 1;
  }

  /** Where one pixel of the bar is more than one of the log, the wheel would leave lines out. */
  private wheeled(event: WheelEvent): void {
    const scroll = this.scroll;
    if (event.ctrlKey || event.deltaY === 0 || !isScaled(scroll)) return;
    event.preventDefault();
    const perUnit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 1 : 1 / scroll.lineHeight;
    this.goTo(this.top + event.deltaY * perUnit);
  }

  private pressed(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { viewHeight, lineHeight } = this.scroll;
    const page = Math.max(1, Math.floor(viewHeight / lineHeight) - 1);
    const moves: Record<string, number> = {
      ArrowUp: this.top - 1,
      ArrowDown: this.top + 1,
      PageUp: this.top - page,
      PageDown: this.top + page,
      ' ': this.top + (event.shiftKey ? -page : page),
      Home: 0,
      End: this.lines,
    };
    const line = moves[event.key];
    if (line === undefined) return;
    event.preventDefault();
    this.goTo(line);
  }

  private followAgain(): void {
    if (this.follow.checked) this.moveTo(this.lines);
  }

  private searched(): void {
    this.current = -1;
    this.found = 0;
    tell(this.hits);
    this.say({ kind: 'search', text: this.search.value });
    this.draw();
  }

  private step(direction: 'next' | 'previous'): void {
    const line = this.current >= 0 ? this.current : Math.floor(this.top) - (direction === 'next' ? 1 : 0);
    this.say({ kind: 'step', line, direction });
  }

  private show(line: number, index: number): void {
    this.current = line;
    tell(this.hits, `${(index + 1).toLocaleString('en')} of ${this.hitsText()}`);
    this.follow.checked = false;
    const { viewHeight, lineHeight } = this.scroll;
    this.moveTo(line - viewHeight / lineHeight / 3);
  }

  private tellHits(more: string): void {
    if (this.search.value === '' || this.current >= 0) return;
    tell(this.hits, this.found === 0 && more === '' ? 'nothing found' : `${this.hitsText()}${more}`);
  }

  private hitsText(): string {
    return this.found >= MOST_FOUND ? `${count(this.found, 'line')} or more` : count(this.found, 'line');
  }

  private ask(): void {
    const scroll = this.scroll;
    // Below the lower edge they would make a scaled range longer.
    const beyond = isScaled(scroll) ? 0 : BEYOND;
    const first = Math.floor(this.top);
    const to = first + Math.ceil(scroll.viewHeight / scroll.lineHeight) + 1 + beyond;
    this.say({ kind: 'rows', from: Math.max(0, first - beyond), to });
  }

  /** Puts the lines that have come where they belong, seen from where the scroll bar stands. */
  private draw(): void {
    const { from, rows } = this.shown;
    const scroll = this.scroll;
    const wanted = this.search.value;
    this.rows.replaceChildren(
      ...rows.map((pieces, index) => row(from + index, pieces, wanted, from + index === this.current)),
    );
    const above = isScaled(scroll) ? this.scroller.scrollTop - this.top * scroll.lineHeight : 0;
    const offset = above + from * scroll.lineHeight;
    this.rows.style.transform = `translateY(${offset}px)`;
  }

  private say(message: ToWorker): void {
    this.worker.postMessage(message);
  }
}

/** What the page does not show as it is in the log. */
function bounds({ isCut, hasBroken }: { isCut: boolean; hasBroken: boolean }): string {
  const most = `${bytes(MOST_BYTES)} or ${count(MOST_LINES, 'line')}`;
  const cut = isCut && `The log goes on: a page holds ${most} of it, and its artifact has all.`;
  const broken = hasBroken && `Lines of more than ${bytes(LINE_BYTES)} are shown as several.`;
  return [cut, broken].filter(Boolean).join(' ');
}
