import assert from 'node:assert/strict';
import { test } from 'node:test';
import { again, convert, example, findings, read, retimed, slug } from '../src/definition';
import { format, parse } from '../src/route';
import { bytes, count, duration } from '../src/text';

const line = (text: string, pointer: string) => {
  const result = read(text);
  return 'value' in result ? result.lineOf(pointer) : undefined;
};

test('a finding belongs to the line of what it points at, or of what should have it', () => {
  const yaml = 'metadata:\n  name: n\npayload:\n  artifacts:\n    public/a: {type: x}\n  command:\n    - a\n    - 1\n';
  for (const [pointer, expected] of [
    ['', 1],
    ['/metadata/name', 2],
    ['/metadata/owner', 2],
    ['/payload/artifacts/public~1a/type', 5],
    ['/payload/command/1', 8],
    ['/nothing', 1],
  ] as const) {
    assert.equal(line(yaml, pointer), expected, pointer);
  }
  assert.equal(line('{\n "a": {\n  "b": 1}}', '/a/b'), 3);
});

test('what is neither JSON nor YAML is told with its line', () => {
  for (const [text, expected] of [['a: 1\nb: [', 2], ['a: 1\na: 2', 2], ['{"a": 1', 1]] as const) {
    const result = read(text);
    assert.ok('message' in result && result.message !== '', text);
    assert.ok(result.line >= 1 && result.line <= expected, `${text}: ${result.line}`);
  }
  const bomb = 'a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]';
  assert.ok('message' in read(bomb));
});

test('a refusal is a list of findings where it has pointers', () => {
  const found = findings('the payload is invalid: /a/b: must be a number; at least 1; /c~1d: must not be (remove it)');
  assert.deepEqual(found.map(({ pointer, message }) => [pointer, message]), [
    ['/a/b', 'must be a number; at least 1'],
    ['/c~1d', 'must not be (remove it)'],
  ]);
  const other = findings('the client x lacks the scopes "y"');
  assert.deepEqual(other.map(({ pointer, message }) => [pointer, message]), [['', 'the client x lacks the scopes "y"']]);
});

test('a task to begin with, and one like another, can be written in both languages', () => {
  const now = new Date('2026-05-04T10:00:00.000Z');
  const result = read(example(now, 'me@localhost'));
  assert.ok('value' in result);
  const task = result.value as Record<string, unknown>;
  assert.equal(task['deadline'], '2026-05-05T10:00:00.000Z');
  const later = read(again({ ...task, taskGroupId: 'g' }, new Date('2026-06-04T10:00:00.000Z')));
  assert.ok('value' in later);
  const copy = later.value as Record<string, unknown>;
  assert.deepEqual([copy['created'], copy['deadline'], copy['taskGroupId']], ['2026-06-04T10:00:00.000Z', '2026-06-05T10:00:00.000Z', undefined]);
  for (const language of ['JSON', 'YAML'] as const) {
    const written = read(convert(task, language));
    assert.ok('value' in written);
    assert.deepEqual(written.value, task);
  }
});

test('a text is made anew by its times alone', () => {
  const now = new Date('2026-06-04T10:00:00.000Z');
  for (const [text, expected] of [
    [
      'deadline: 2026-05-05T10:00:00Z # soon\ncreated: "2026-05-04T10:00:00Z"\npayload: {created: 2026-05-04T10:00:00Z}\n',
      'deadline: 2026-06-05T10:00:00.000Z # soon\ncreated: "2026-06-04T10:00:00.000Z"\npayload: {created: 2026-05-04T10:00:00Z}\n',
    ],
    ['{"created": "2026-05-04T10:00:00Z", "expires": 5}', '{"created": "2026-06-04T10:00:00.000Z", "expires": 5}'],
    ['deadline: soon\n', 'deadline: soon\n'],
    ['[', '['],
  ] as const) {
    assert.equal(retimed(text, now), expected);
  }
});

test('an id is one that a queue takes', () => {
  for (let round = 0; round < 100; round += 1) assert.match(slug(), /^[A-Za-f][A-Za-z0-9_-]{7}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$/);
});

test('an address and a place in the page stand for one another', () => {
  const id = 'fN1SbArXTPSVFNUvaOlinQ';
  for (const [hash, expected] of [
    ['', { view: 'tasks' }],
    ['#/', { view: 'tasks' }],
    ['#/create', { view: 'create' }],
    ['#/disk', { view: 'disk' }],
    ['#/disk/x', { view: 'nowhere' }],
    [`#/create/${id}`, { view: 'create', from: id }],
    [`#/group/${id}`, { view: 'group', groupId: id }],
    [`#/task/${id}`, { view: 'task', taskId: id }],
    [`#/task/${id}/12`, { view: 'task', taskId: id, runId: 12 }],
    [`#/task/${id}/x`, { view: 'nowhere' }],
    [`#/task/${id}/1/2`, { view: 'nowhere' }],
    ['#/task/..%2Fx', { view: 'nowhere' }],
    ['#/other', { view: 'nowhere' }],
  ] as const) {
    const route = parse(hash);
    assert.deepEqual(route, expected, hash);
    if (route.view !== 'nowhere') assert.deepEqual(parse(format(route)), route);
  }
});

test('numbers and times are written for people', () => {
  assert.deepEqual([bytes(0), bytes(1023), bytes(1024), bytes(5e8)], ['0 B', '1023 B', '1.0 KiB', '476.8 MiB']);
  assert.deepEqual([count(1, 'line'), count(12345, 'line')], ['1 line', '12,345 lines']);
  const from = '2026-05-04T10:00:00.000Z';
  const after = (seconds: number) => duration(from, new Date(from).getTime() + 1000 * seconds);
  assert.deepEqual([after(-1), after(1.25), after(125), after(7384)], ['0.0 s', '1.3 s', '2 min 5 s', '2 h 3 min']);
});
