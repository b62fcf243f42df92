// One task: its state, its runs, the log and the artifacts of one of them, its definition; cancel and rerun.

import * as api from '../api';
import { h, replace, tell, type Child } from '../dom';
import { convert } from '../definition';
import { LogView } from '../log/view';
import { isResolved, type Run, type Status, type Task } from '../model';
import { format } from '../route';
import { duration, time } from '../text';
import { artifactList } from './artifacts';
import { ask } from './question';
import { badge, repeat, words, type View } from './view';

/** How often a task is looked at, in milliseconds. */
const EVERY = 1000;
/** The log of a task that names none. */
const LOG = 'public/logs/live.log';

export function task(taskId: string, runId?: number): View {
  const message = h('p', { class: 'note', role: 'status' });
  const refusal = h('p', { class: 'note refused', role: 'alert' });
  const state = h('span', { role: 'status' });
  const name = h('h1', { tabindex: -1 }, taskId);
  const actions = h('div', { class: 'actions' });
  const facts = h('dl', { class: 'facts' });
  const runs = h('nav', { class: 'runs', 'aria-label': 'Runs' });
  const definition = h('pre', { class: 'definition', tabindex: 0 });
  const about = h('details', {}, h('summary', {}, 'Definition'), definition);
  const ofRun = h('div', { class: 'of-run' });
  const heading = h('div', { class: 'heading' }, name, state, actions);
  const element = h('section', { class: 'task' }, heading, message, refusal, facts, runs, ofRun, about);

  let known: Task | undefined;
  let shown = '';
  let watched: Watched | undefined;
  const over = new AbortController();

  const act = async (verb: string, sentence: string, call: () => Promise<Status>) => {
    if (!(await ask(sentence, verb, over.signal))) return;
    tell(refusal);
    try {
      const status = await call();
      if (over.signal.aborted) return;
      show(status);
    } catch (error) {
      tell(refusal, words(error));
    }
    again();
  };
  const cancel = () => act('Cancel the task', 'The task is ended wherever it is.', () => api.cancel(taskId));
  const rerun = () => act('Rerun the task', 'The task gets another run.', () => api.rerun(taskId));

  const show = (status: Status) => {
    const run = runId === undefined ? status.runs[status.runs.length - 1] : status.runs.find((it) => it.runId === runId);
    const text = JSON.stringify([status, run]);
    // Of a task that runs the time goes on.
    if (text !== shown || run?.state === 'running') replace(facts, ...factsOf(status, known, run));
    if (text === shown) return;
    shown = text;
    const isOver = isResolved(status.state);
    if (state.textContent !== status.state) replace(state, badge(status.state));
    replace(
      actions,
      !isOver && h('button', { type: 'button', onclick: () => void cancel() }, 'Cancel'),
      isOver && h('button', { type: 'button', onclick: () => void rerun() }, 'Rerun'),
      h('a', { class: 'button', href: format({ view: 'create', from: taskId }) }, 'Edit as new'),
    );
    replace(runs, ...(status.runs.length > 1 ? status.runs.map((it) => runLink(taskId, it, it === run)) : []));
    if (run !== undefined && run.runId !== watched?.runId) {
      watched?.end();
      watched = watch(taskId, run, logName(known));
      ofRun.replaceChildren(...watched.elements);
    }
    if (run !== undefined) watched?.show(run);
  };

  const look = async (isWanted: () => boolean) => {
    try {
      if (known === undefined) {
        known = await api.task(taskId);
        if (!isWanted()) return false;
        replace(name, known.metadata.name === '' ? taskId : known.metadata.name);
        replace(definition, convert(known, 'YAML'));
      }
      const status = await api.status(taskId);
      if (!isWanted()) return false;
      show(status);
      tell(message);
    } catch (error) {
      if (isWanted()) tell(message, words(error));
    }
    return true;
  };
  const again = repeat(EVERY, over.signal, look);
  const search = (event: KeyboardEvent) => {
    const isTyping = event.target instanceof HTMLInputElement;
    if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    event.preventDefault();
    watched?.log.focusSearch();
  };
  document.addEventListener('keydown', search);
  const end = () => {
    over.abort();
    watched?.end();
    document.removeEventListener('keydown', search);
  };
  return { title: 'Task', element, end };
}

/** What is shown of one run and goes on beside it. */
interface Watched {
  runId: number;
  log: LogView;
  elements: HTMLElement[];
  show(run: Run): void;
  end(): void;
}

function watch(taskId: string, { runId, state }: Run, name: string): Watched {
  const log = new LogView({ taskId, runId, name }, !isResolved(state));
  const artifacts = artifactList(taskId, runId);
  let isOver = false;
  const show = (run: Run) => {
    if (isOver || !isResolved(run.state)) return;
    isOver = true;
    log.resolved();
    artifacts.resolved();
  };
  const end = () => {
    log.end();
    artifacts.end();
  };
  return { runId, log, elements: [log.element, artifacts.element], show, end };
}

function logName(task: Task | undefined): string {
  const named = task?.payload?.log;
  return typeof named === 'string' ? named : LOG;
}

function runLink(taskId: string, run: Run, isCurrent: boolean): HTMLElement {
  const href = format({ view: 'task', taskId, runId: run.runId });
  return h('a', { href, 'aria-current': isCurrent ? 'page' : undefined }, `Run ${run.runId}`, badge(run.state));
}

function factsOf(status: Status, task: Task | undefined, run: Run | undefined): Child[] {
  const group = h('a', { href: format({ view: 'group', groupId: status.taskGroupId }) }, status.taskGroupId);
  const dependencies = (task?.dependencies ?? []).map((id) => h('a', { href: format({ view: 'task', taskId: id }) }, id));
  return [
    ...fact('Task', h('code', {}, status.taskId)),
    ...fact('Group', group),
    ...fact('Pool', status.taskQueueId),
    ...fact('Priority', status.priority),
    ...(dependencies.length > 0 ? fact('Depends on', ...dependencies) : []),
    ...(task === undefined ? [] : fact('Created', time(task.created))),
    ...fact('Deadline', time(status.deadline)),
    ...(run === undefined ? [] : runFacts(run)),
  ];
}

function runFacts(run: Run): Child[] {
  const { started, resolved, workerId, workerGroup, reasonResolved, reasonCreated } = run;
  return [
    ...(workerId === undefined ? [] : fact('Worker', `${workerGroup}/${workerId}`)),
    ...(started === undefined ? [] : fact('Started', time(started))),
    ...(started === undefined ? [] : fact('Took', duration(started, resolved ?? Date.now()))),
    ...(reasonResolved === undefined ? [] : fact('Ended as', reasonResolved)),
    ...(reasonCreated === 'scheduled' ? [] : fact('Run because of', reasonCreated)),
  ];
}

function fact(term: string, ...what: Child[]): Child[] {
  return [h('div', {}, h('dt', {}, term), h('dd', {}, ...what))];
}
