// The artifacts of a run.

import * as api from '../api';
import { h, replace, tell } from '../dom';
import type { Artifact } from '../model';
import { time } from '../text';
import { repeat, several, words } from './view';

/** How often the list is looked at again, in milliseconds. */
const EVERY = 3000;

/** So many times after the run was resolved: the log of one that was cancelled comes only then. */
const AFTERWARDS = 10;

export interface ArtifactList {
  element: HTMLElement;
  /** Not many more of them will come. */
  resolved(): void;
  end(): void;
}

export function artifactList(taskId: string, runId: number): ArtifactList {
  const message = h('p', { class: 'note', role: 'status' });
  const body = h('tbody');
  const columns = ['Name', 'Type', 'Expires'];
  const head = h('thead', {}, h('tr', {}, ...columns.map((column) => h('th', { scope: 'col' }, column))));
  const table = h('table', { class: 'artifacts', hidden: true }, head, body);
  const more = h('button', { type: 'button', hidden: true }, 'More artifacts');
  const element = h('section', {}, h('h2', {}, 'Artifacts'), message, table, more);
  let parts = 1;
  let shown = '';
  let left = Infinity;
  const over = new AbortController();

  const open = async (artifact: Artifact) => {
    try {
      const href = await api.artifactUrl(taskId, runId, artifact.name);
      if (over.signal.aborted) return;
      tell(message);
      // Without an opener: what a task has made is not trusted with this page.
      h('a', { href, target: '_blank', rel: 'noopener noreferrer' }).click();
    } catch (error) {
      tell(message, words(error));
    }
  };
  const row = (artifact: Artifact) =>
    h(
      'tr',
      {},
      h(
        'td',
        { class: 'name' },
        artifact.storageType === 'error'
          ? h('button', { type: 'button', class: 'link refused', onclick: () => void open(artifact) }, artifact.name)
          : h('button', { type: 'button', class: 'link', onclick: () => void open(artifact) }, artifact.name),
      ),
      h('td', { class: 'quiet' }, artifact.storageType === 'error' ? 'could not be stored' : artifact.contentType),
      h('td', { class: 'quiet' }, time(artifact.expires)),
    );
  const fetch = async (from?: string) => {
    const { artifacts, continuationToken } = await api.artifacts(taskId, runId, from);
    return { items: artifacts, next: continuationToken };
  };
  const look = async (isWanted: () => boolean) => {
    try {
      const { items: artifacts, next } = await several(fetch, parts);
      if (!isWanted()) return false;
      more.hidden = next === undefined;
      more.disabled = false;
      const now = JSON.stringify(artifacts);
      if (now !== shown) {
        shown = now;
        table.hidden = artifacts.length === 0;
        replace(body, ...artifacts.map(row));
      }
      tell(message, artifacts.length === 0 ? 'There are none.' : '');
    } catch (error) {
      // Perhaps it can be said the next time.
      if (isWanted()) tell(message, words(error));
      return true;
    }
    left -= 1;
    return left > 0;
  };
  const again = repeat(EVERY, over.signal, look);
  more.addEventListener('click', () => {
    parts += 1;
    more.disabled = true;
    again();
  });
  const resolved = () => {
    left = AFTERWARDS;
    again();
  };
  return { element, resolved, end: () => over.abort() };
}
