// The artifacts of a run.

import * as api from '../api';
import { h, replace, tell } from '../dom';
import type { Artifact } from '../model';
import { time } from '../text';
import { repeat, words } from './view';

const EVERY = 3000;

export interface ArtifactList {
  element: HTMLElement;
  /** No more of them will come. */
  resolved(): void;
  end(): void;
}

export function artifactList(taskId: string, runId: number): ArtifactList {
  const message = h('p', { class: 'note', role: 'status' });
  const body = h('tbody');
  const columns = ['Name', 'Type', 'Expires'];
  const head = h('thead', {}, h('tr', {}, ...columns.map((column) => h('th', { scope: 'col' }, column))));
  const table = h('table', { class: 'artifacts', hidden: true }, head, body);
  const element = h('section', {}, h('h2', {}, 'Artifacts'), message, table);
  let shown = '';
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
  const look = async (isWanted: () => boolean) => {
    try {
      const artifacts = await api.artifacts(taskId, runId);
      if (!isWanted()) return false;
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
    return !isResolved;
  };
  let isResolved = false;
  const again = repeat(EVERY, over.signal, look);
  const resolved = () => {
    isResolved = true;
    again();
  };
  return { element, resolved, end: () => over.abort() };
}
