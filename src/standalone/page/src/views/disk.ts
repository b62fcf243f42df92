// What the worker's caches and images take on its disk.

import * as api from '../api';
import { h, replace, tell, type Child } from '../dom';
import type { CacheUse, DiskUse, ImageUse } from '../model';
import { bytes, count, time } from '../text';
import { repeat, words, type View } from './view';

/** How often it is looked at again, in milliseconds. */
const EVERY = 10_000;
/** Rows of a table; what is smaller is one more row. */
const MOST_ROWS = 500;

export function disk(): View {
  const message = h('p', { class: 'note', role: 'status' });
  const caches = table('Caches', 'Cache');
  const images = table('Images', 'Image');
  const element = h(
    'section',
    { class: 'disk' },
    h('div', { class: 'heading' }, h('h1', { tabindex: -1 }, 'Disk')),
    message,
    caches.element,
    images.element,
  );
  const over = new AbortController();
  let shown = '';
  const look = async (isWanted: () => boolean) => {
    try {
      const use = await api.diskUse();
      if (!isWanted()) return false;
      tell(message);
      const now = JSON.stringify(use);
      if (now !== shown) {
        shown = now;
        caches.show(use.caches.map(cacheRow), 'There are no caches.');
        images.show(imageRows(use), 'There are no images.');
      }
    } catch (error) {
      if (isWanted()) tell(message, words(error));
    }
    return true;
  };
  repeat(EVERY, over.signal, look);
  return { title: 'Disk', element, end: () => over.abort() };
}

/** One line of a table, whose bytes are part of the sum below it. */
interface Row {
  name: Child[];
  used: string;
  bytes: number;
  isPartial: boolean;
}

function table(title: string, first: string): { element: HTMLElement; show(rows: Row[], none: string): void } {
  const body = h('tbody');
  const foot = h('tfoot');
  const columns = [first, 'Last used', 'Size'];
  const heads = columns.map((column) => h('th', { scope: 'col', class: column === 'Size' ? 'size' : undefined }, column));
  const element = h('table', { class: 'usage', hidden: true }, h('thead', {}, h('tr', {}, ...heads)), body, foot);
  const nothing = h('p', { class: 'quiet' });
  const show = (rows: Row[], none: string) => {
    element.hidden = rows.length === 0;
    tell(nothing, rows.length === 0 ? none : '');
    replace(body, ...shortened(rows).map(line));
    replace(foot, line({ name: ['Total'], used: '', ...sum(rows) }));
  };
  return { element: h('section', {}, h('h2', {}, title), nothing, element), show };
}

function shortened(rows: Row[]): Row[] {
  const rest = rows.slice(MOST_ROWS);
  if (rest.length === 0) return rows;
  return [...rows.slice(0, MOST_ROWS), { name: [`${rest.length.toLocaleString('en')} smaller ones`], used: '', ...sum(rest) }];
}

function sum(rows: Row[]): { bytes: number; isPartial: boolean } {
  return { bytes: rows.reduce((all, row) => all + row.bytes, 0), isPartial: rows.some((row) => row.isPartial) };
}

function line({ name, used, bytes: size, isPartial }: Row): HTMLElement {
  return h(
    'tr',
    {},
    h('td', { class: 'name' }, ...name),
    h('td', { class: 'quiet' }, used),
    h('td', { class: 'size' }, `${isPartial ? 'at least ' : ''}${bytes(size)}`),
  );
}

function cacheRow({ name, lastUsed, isUsed, bytes: size, isPartial }: CacheUse): Row {
  return { name: [name], used: isUsed ? 'now' : time(lastUsed), bytes: size, isPartial };
}

/** What images have alone, and what they share as a row of its own, so that it counts once. */
function imageRows({ images, sharedBytes, otherBytes }: DiskUse): Row[] {
  const rows = images.map(imageRow);
  const whole = (name: string, size: number): Row[] =>
    size === 0 ? [] : [{ name: [name], used: '', bytes: size, isPartial: false }];
  rows.push(...whole('Shared by several of them', sharedBytes), ...whole('Notes, downloads and what is being removed', otherBytes));
  return rows;
}

function imageRow({ id, names, lastUsed, isUsed, ownBytes, sharedBytes }: ImageUse): Row {
  const [first = id, ...others] = names;
  const more = [
    others.length > 0 && `also ${count(others.length, 'other name')}`,
    sharedBytes > 0 && `and ${bytes(sharedBytes)} that others share`,
  ].filter(Boolean);
  const beside = h('span', { class: 'quiet', title: [id, ...names].join('\n') }, more.join(', '));
  return { name: [first, ' ', beside], used: isUsed ? 'now' : time(lastUsed), bytes: ownBytes, isPartial: false };
}
