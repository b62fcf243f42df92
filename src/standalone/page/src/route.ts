// Where in the page one is: the fragment of its address.

export type Route =
  | { view: 'tasks' }
  | { view: 'group'; groupId: string }
  | { view: 'task'; taskId: string; runId?: number }
  | { view: 'create'; from?: string }
  | { view: 'disk' }
  | { view: 'nowhere' };

const ID = /^[A-Za-z0-9_-]{22}$/;

export function parse(hash: string): Route {
  const [view = '', id = '', more = '', ...rest] = hash.replace(/^#?\/?/, '').split('/');
  if (rest.length > 0) return { view: 'nowhere' };
  if (view === '' && id === '') return { view: 'tasks' };
  if (view === 'disk' && id === '' && more === '') return { view };
  if (view === 'create' && more === '') {
    if (id === '') return { view };
    if (ID.test(id)) return { view, from: id };
  }
  if (view === 'group' && ID.test(id) && more === '') return { view, groupId: id };
  if (view === 'task' && ID.test(id)) {
    if (more === '') return { view, taskId: id };
    if (/^\d{1,9}$/.test(more)) return { view, taskId: id, runId: Number(more) };
  }
  return { view: 'nowhere' };
}

export function format(route: Exclude<Route, { view: 'nowhere' }>): string {
  switch (route.view) {
    case 'tasks':
      return '#/';
    case 'disk':
      return '#/disk';
    case 'create':
      return route.from === undefined ? '#/create' : `#/create/${route.from}`;
    case 'group':
      return `#/group/${route.groupId}`;
    case 'task':
      return route.runId === undefined ? `#/task/${route.taskId}` : `#/task/${route.taskId}/${route.runId}`;
  }
}
