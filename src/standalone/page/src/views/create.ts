// An editor for a task's definition, in YAML or JSON, and beside it what is wrong with it: the editor's own word on the
// language, the server's on the task.

import * as api from '../api';
import { again, convert, example, findings, read, retimed, slug } from '../definition';
import { h, replace } from '../dom';
import type { Finding } from '../model';
import { format } from '../route';
import * as session from '../session';
import { words, type View } from './view';

/** Until a change is judged, in milliseconds. */
const PAUSE = 400;

export function create(from?: string): View {
  const editor = h('textarea', {
    class: 'editor',
    'aria-label': 'Definition of the task, in YAML or JSON',
    'aria-describedby': 'findings',
    spellcheck: 'false',
    autocapitalize: 'none',
    wrap: 'off',
    oninput: () => changed(),
    onscroll: () => (gutter.scrollTop = editor.scrollTop),
    onkeydown: (event: KeyboardEvent) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void submit();
    },
  });
  const gutter = h('div', { class: 'gutter', 'aria-hidden': 'true' });
  const list = h('ul', { class: 'findings', id: 'findings', 'aria-live': 'polite' });
  const submitButton = h('button', { type: 'button', class: 'primary', onclick: () => void submit() }, 'Create');
  const toJson = h('button', { type: 'button', onclick: () => rewrite('JSON') }, 'As JSON');
  const toYaml = h('button', { type: 'button', onclick: () => rewrite('YAML') }, 'As YAML');
  const toNow = h('button', { type: 'button', onclick: () => put(retimed(editor.value, new Date())) }, 'Set times to now');
  const heading = h('div', { class: 'heading' }, h('h1', { tabindex: -1 }, 'Create a task'));
  const hint = h('span', { class: 'quiet' }, 'Ctrl + Enter creates it.');
  const actions = h('div', { class: 'actions' }, submitButton, toNow, toYaml, toJson, hint);
  const element = h(
    'section',
    { class: 'create' },
    heading,
    h('div', { class: 'columns' }, h('div', { class: 'writing' }, gutter, editor), h('aside', { 'aria-label': 'Findings' }, list)),
    actions,
  );

  let timer: number | undefined;
  let version = 0;
  let isOver = false;

  const goToLine = (line: number) => {
    const start = editor.value.split('\n').slice(0, line - 1).join('\n').length + (line > 1 ? 1 : 0);
    const end = editor.value.indexOf('\n', start);
    editor.focus();
    editor.setSelectionRange(start, end < 0 ? editor.value.length : end);
    const lineHeight = parseFloat(getComputedStyle(editor).lineHeight) || 18;
    editor.scrollTop = Math.max(0, (line - 5) * lineHeight);
  };

  const show = (found: Finding[], lineOf: (pointer: string) => number) => {
    const marked = new Map(found.map((finding) => [lineOf(finding.pointer), finding.severity]));
    const lines = editor.value.split('\n').length;
    gutter.replaceChildren(
      ...Array.from({ length: lines }, (_, index) => h('div', { class: marked.get(index + 1) }, index + 1)),
    );
    gutter.scrollTop = editor.scrollTop;
    replace(
      list,
      ...found.map((finding) => {
        const line = lineOf(finding.pointer);
        const place = finding.pointer === '' ? `Line ${line}` : `Line ${line}, ${finding.pointer}`;
        return h(
          'li',
          { class: finding.severity },
          h('button', { type: 'button', class: 'link', onclick: () => goToLine(line) }, place),
          h('span', {}, finding.message),
          typeof finding.hint === 'string' && h('span', { class: 'quiet' }, finding.hint),
        );
      }),
      found.length === 0 && h('li', { class: 'quiet' }, 'Nothing is wrong with it.'),
    );
  };

  /** The definition, if the text is one; what is wrong is shown. */
  const definition = () => {
    const result = read(editor.value);
    if ('value' in result) return result;
    show([{ pointer: '', message: result.message, severity: 'error' }], () => result.line);
    return undefined;
  };

  const judge = async () => {
    version += 1;
    const own = version;
    const result = definition();
    if (result === undefined) return;
    try {
      const found = await api.validate(result.value);
      if (own === version) show(found, result.lineOf);
    } catch (error) {
      if (own === version) show(findings(words(error)), result.lineOf);
    }
  };

  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => void judge(), PAUSE);
  };

  const submit = async () => {
    clearTimeout(timer);
    version += 1;
    const result = definition();
    if (result === undefined) return;
    submitButton.disabled = true;
    const taskId = slug();
    try {
      await api.create(taskId, result.value);
      // Whoever has gone elsewhere meanwhile stays there.
      if (!isOver) location.hash = format({ view: 'task', taskId });
    } catch (error) {
      show(findings(words(error)), result.lineOf);
    } finally {
      submitButton.disabled = false;
    }
  };

  const rewrite = (language: 'JSON' | 'YAML') => {
    const result = definition();
    if (result === undefined) return;
    put(convert(result.value, language));
  };

  const put = (text: string) => {
    editor.value = text;
    void judge();
  };

  const begin = async () => {
    try {
      editor.value =
        from === undefined
          ? example(new Date(), `${session.current()?.clientId ?? 'nobody'}@localhost`)
          : again(await api.task(from), new Date());
    } catch (error) {
      show([{ pointer: '', message: words(error), severity: 'error' }], () => 1);
      return;
    }
    if (!isOver) await judge();
  };
  const end = () => {
    isOver = true;
    clearTimeout(timer);
  };
  void begin();
  return { title: 'Create a task', element, end };
}
