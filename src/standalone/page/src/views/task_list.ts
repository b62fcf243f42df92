// Lists of tasks: the latest ones of the queue, and those of a group.

import * as api from '../api';
import { h, replace, tell } from '../dom';
import type { ListedTask } from '../model';
import { format } from '../route';
import { count, duration, time } from '../text';
import { badge, repeat, several, words, type Part, type View } from './view';

/** How often a list is looked at again, in milliseconds. */
const EVERY = 2000;

export function recent(): View {
  const fetch = async (from?: string): Promise<Part<ListedTask>> => {
    const { tasks, continuationToken } = await api.recentTasks(from);
    return { items: tasks, next: continuationToken };
  };
  return list('Tasks', 'There are no tasks yet.', fetch, h('a', { href: '#/create', class: 'button primary' }, 'Create a task'));
}

export function group(groupId: string): View {
  const fetch = async (from?: string): Promise<Part<ListedTask>> => {
    const { tasks, continuationToken } = await api.groupTasks(groupId, from);
    const listed = tasks.map(({ task, status }) => ({ status, name: task.metadata.name }));
    return { items: listed, next: continuationToken };
  };
  return list('Group', 'There is no task in this group.', fetch, h('code', {}, groupId));
}

function list(title: string, none: string, fetch: (from?: string) => Promise<Part<ListedTask>>, beside: HTMLElement): View {
  const body = h('tbody');
  const message = h('p', { class: 'note', role: 'status' });
  const summary = h('span', { class: 'quiet' });
  const more = h('button', { type: 'button', hidden: true }, 'More');
  const columns = ['State', 'Task', 'Pool', 'Since', 'Took'];
  const head = h('thead', {}, h('tr', {}, ...columns.map((column) => h('th', { scope: 'col' }, column))));
  const table = h('table', { class: 'tasks', hidden: true }, head, body);
  const heading = h('div', { class: 'heading' }, h('h1', { tabindex: -1 }, title), beside, summary);
  const element = h('section', {}, heading, message, table, more);
  let parts = 1;
  let shown = '';
  const over = new AbortController();
  const look = async (isWanted: () => boolean) => {
    try {
      const { items: tasks, next } = await several(fetch, parts);
      if (!isWanted()) return false;
      more.hidden = next === undefined;
      more.disabled = false;
      // What has not changed stays as it is, with what is selected in it.
      const now = JSON.stringify(tasks) + (tasks.some(({ status }) => status.state === 'running') ? Date.now() : '');
      if (now !== shown) {
        shown = now;
        table.hidden = tasks.length === 0;
        replace(body, ...tasks.map(row));
        replace(summary, tasks.length > 0 && `${count(tasks.length, 'task')}${next === undefined ? '' : ' and more'}`);
      }
      tell(message, tasks.length === 0 ? none : '');
    } catch (error) {
      if (isWanted()) tell(message, words(error));
    }
    return true;
  };
  const again = repeat(EVERY, over.signal, look);
  more.addEventListener('click', () => {
    parts += 1;
    more.disabled = true;
    again();
  });
  return { title, element, end: () => over.abort() };
}

function row({ status, name }: ListedTask): HTMLElement {
  const { taskId, taskGroupId, taskQueueId, state, runs } = status;
  const last = runs[runs.length - 1];
  const since = last?.resolved ?? last?.started ?? last?.scheduled;
  const took = last?.started === undefined ? '' : duration(last.started, last.resolved ?? Date.now());
  return h(
    'tr',
    {},
    h('td', {}, badge(state)),
    h(
      'td',
      { class: 'name' },
      h('a', { href: format({ view: 'task', taskId }) }, name === '' ? taskId : name),
      taskGroupId !== taskId && h('a', { class: 'quiet', href: format({ view: 'group', groupId: taskGroupId }) }, 'group'),
      h('code', { class: 'quiet' }, taskId),
    ),
    h('td', { class: 'quiet' }, taskQueueId),
    h('td', { class: 'quiet' }, since === undefined ? '' : time(since)),
    h('td', { class: 'quiet' }, took),
  );
}
