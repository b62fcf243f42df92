// The page of `docker-worker standalone`: what its queue has, over the API that every other client uses.
//
//   address ► route ► view ► api ► hawk
//                      └ log/view ► log/worker: fetches, holds, searches

import { h, replace } from './dom';
import { format, parse } from './route';
import * as session from './session';
import { create } from './views/create';
import { disk } from './views/disk';
import { signIn } from './views/sign_in';
import { group, recent } from './views/task_list';
import { task } from './views/task';
import type { View } from './views/view';

const content = h('main', { id: 'content', tabindex: -1 });
const who = h('div', { class: 'who' });
const links = h('nav', { 'aria-label': 'Page' });
let view: View | undefined;

function show(): void {
  const next = session.current() === undefined ? signIn(show) : viewOf(location.hash);
  view?.end?.();
  view = next;
  document.title = `${next.title} · docker-worker`;
  showHead();
  content.replaceChildren(next.element);
  window.scrollTo(0, 0);
  const first = content.querySelector<HTMLElement>('[autofocus]') ?? content.querySelector<HTMLElement>('h1');
  first?.focus();
}

function viewOf(hash: string): View {
  const route = parse(hash);
  switch (route.view) {
    case 'tasks':
      return recent();
    case 'group':
      return group(route.groupId);
    case 'task':
      return task(route.taskId, route.runId);
    case 'create':
      return create(route.from);
    case 'disk':
      return disk();
    case 'nowhere': {
      const back = h('a', { href: format({ view: 'tasks' }) }, 'All tasks');
      return { title: 'Nothing here', element: h('section', {}, h('h1', { tabindex: -1 }, 'Nothing here'), back) };
    }
  }
}

function showHead(): void {
  const credentials = session.current();
  const signOut = () => {
    session.signOut();
    show();
  };
  const link = (text: string, href: string) =>
    h('a', { href, 'aria-current': (location.hash || '#/') === href ? 'page' : undefined }, text);
  replace(
    links,
    credentials !== undefined && link('Tasks', format({ view: 'tasks' })),
    credentials !== undefined && link('Create', format({ view: 'create' })),
    credentials !== undefined && link('Disk', format({ view: 'disk' })),
  );
  replace(
    who,
    credentials?.clientId,
    credentials !== undefined && h('button', { type: 'button', onclick: signOut }, 'Sign out'),
  );
}

const skip = h('a', { class: 'skip', href: '#content', onclick: (event: Event) => {
  event.preventDefault();
  content.focus();
} }, 'To the content');
document.body.append(
  skip,
  h('header', {}, h('a', { class: 'brand', href: format({ view: 'tasks' }) }, 'docker-worker'), links, who),
  content,
);
addEventListener('hashchange', show);
show();
