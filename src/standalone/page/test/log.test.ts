import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pieces, plain, PLAIN, type Style } from '../src/log/ansi';
import { marked } from '../src/log/rows';
import { clamp, height, isScaled, lastTop, MOST_PIXELS, scrollTop, topLine } from '../src/log/scroll';
import { Search } from '../src/log/search';
import { LINE_BYTES, LogStore } from '../src/log/store';

const bytes = (text: string) => new TextEncoder().encode(text);

test('a line is text in styles, and nothing else of a terminal', () => {
  const red: Style = { foreground: '1' };
  const cases: [string, [string, Style][]][] = [
    ['plain', [['plain', {}]]],
    ['\x1b[31mred\x1b[0m, not', [['red', red], [', not', {}]]],
    ['\x1b[1;31mboth\x1b[22mred\x1b[39m-', [['both', { ...red, bold: true }], ['red', red], ['-', {}]]],
    ['\x1b[38;5;196mcube\x1b[38;5;250mgrey', [['cube', { foreground: '#ff0000' }], ['grey', { foreground: '#bcbcbc' }]]],
    ['\x1b[38;2;1;2;300m\x1b[104mx', [['x', { foreground: '#0102ff', background: '12' }]]],
    ['\x1b[38:5:9mx', [['x', { foreground: '9' }]]],
    ['\x1b[7mx\x1b[27my', [['x', { inverse: true }], ['y', {}]]],
    ['\x1b]0;title\x07\x1b[2Kx\x1b(By\x00z', [['x', {}], ['y', {}], ['z', {}]]],
    ['\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\', [['link', {}]]],
    ['10 %\r20 %\r\r\n'.slice(0, -1), [['20 %', {}]]],
    ['\x1b[31', [['31', {}]]],
    ['a\x1b]0;title without an end', [['a', {}]]],
    ['<b>&amp;</b>', [['<b>&amp;</b>', {}]]],
  ];
  for (const [line, expected] of cases) {
    const found = pieces(line, PLAIN).pieces.map(({ text, style }) => [text, style]);
    assert.deepEqual(found, expected, JSON.stringify(line));
  }
  assert.equal(plain('\x1b[1ma\x1b[0m b\r\n'), 'a b\r\n');
  assert.equal(plain('a\x1b]0;title\nb\x1b]0;title\n\nc'), 'a\nb\n\nc');
});

test('a line that is made to be slow is not', () => {
  const lines = ['\r'.repeat(LINE_BYTES - 1) + 'x', '\x1b['.repeat(LINE_BYTES / 2), '\x1b]'.repeat(LINE_BYTES / 2), 'a'.repeat(LINE_BYTES)];
  const started = performance.now();
  // As often as a screen has lines.
  for (let round = 0; round < 60; round += 1) {
    for (const line of lines) assert.ok(marked(pieces(line, PLAIN).pieces, 'a').length <= 501);
  }
  const took = performance.now() - started;
  assert.ok(took < 3000, `${took} ms`);
});

test('a line of very many parts is plain beyond the first ones', () => {
  const line = ['1', '2', '3'].map((foreground) => ({ text: 'ab', style: { foreground } }));
  const found = marked(line, 'b', 3).map(({ text, style, isMatch }) => [text, style, isMatch]);
  assert.deepEqual(found, [['a', { foreground: '1' }, false], ['b', { foreground: '1' }, true], ['a', { foreground: '2' }, false], ['bab', {}, false]]);
});

test('however a log is cut on its way, its lines are the same', () => {
  const text = 'one\r\n\x1b[31mtwo é\nstill red\x1b[0m\n\n' + 'x'.repeat(LINE_BYTES + 5) + '\nend';
  const whole = new LogStore();
  whole.append(bytes(text));
  const expected = whole.rows(0, 100);
  assert.deepEqual(expected.map((row) => row.map((piece) => piece.text).join('').length), [3, 5, 9, 0, LINE_BYTES, 5, 3]);
  assert.deepEqual(expected[2], [{ text: 'still red', style: { foreground: '1' } }]);
  for (const size of [1, 2, 3, 7, 1000]) {
    const log = new LogStore();
    const all = bytes(text);
    for (let from = 0; from < all.length; from += size) log.append(all.subarray(from, from + size));
    assert.deepEqual(log.rows(0, 100), expected, `${size}`);
    assert.equal(log.text(1, 3), whole.text(1, 3));
  }
});

test('lines that lie in two blocks are whole', () => {
  const log = new LogStore();
  const line = 'a line of a log that is not very short\n';
  const repeated = Math.ceil((2.5 * (1 << 20)) / line.length);
  log.append(bytes(line.repeat(repeated)));
  assert.equal(log.lines, repeated);
  assert.equal(log.text(0, repeated), line.repeat(repeated));
  for (let number = 0; number < repeated; number += 1) assert.equal(log.text(number, number + 1), line);
});

test('a log beyond what can be kept is cut, and counted', () => {
  const log = new LogStore(10);
  log.append(bytes('12345\n789\nabc\n'));
  assert.deepEqual([log.lines, log.received, log.isCut, log.text(0, 9)], [2, 14, true, '12345\n789\n']);
});

test('a log of more lines than can be kept is cut after the last of them', () => {
  const whole = '1\n2\n3\n';
  for (const size of [1, 3, 100]) {
    const log = new LogStore(1 << 20, 2);
    const all = bytes(whole);
    for (let from = 0; from < all.length; from += size) log.append(all.subarray(from, from + size));
    assert.deepEqual([log.lines, log.received, log.isCut, log.text(0, 9)], [2, 6, true, '1\n2\n'], `${size}`);
  }
});

test('whether a line was broken is known', () => {
  for (const [length, hasBroken] of [[LINE_BYTES - 1, false], [LINE_BYTES + 1, true]] as const) {
    const log = new LogStore();
    log.append(bytes('x'.repeat(length) + '\n'));
    assert.equal(log.hasBroken, hasBroken, `${length}`);
  }
});

test('a search finds lines by their text, whatever its colours, and goes on as the log grows', () => {
  const log = new LogStore();
  log.append(bytes('no\nan \x1b[31mER\x1b[0mROR\nno\nan error, too\nerr'));
  const search = new Search(log, 'Error');
  while (!search.isDone) search.step();
  assert.deepEqual(search.found, [1, 3]);
  log.append(bytes('or\n'));
  assert.equal(search.isDone, false);
  search.step();
  assert.deepEqual(search.found, [1, 3, 4]);
  const steps: [number, 'next' | 'previous', number][] = [[-1, 'next', 0], [1, 'next', 1], [4, 'next', 0], [1, 'previous', 2], [4, 'previous', 1]];
  for (const [line, direction, index] of steps) assert.equal(search.from(line, direction), index, `${line} ${direction}`);
  assert.equal(new Search(log, 'none').from(0, 'next'), undefined);
});

test('matches are marked across the styles of a line', () => {
  const red = { foreground: '1' };
  const line = [{ text: 'an ER', style: red }, { text: 'ROR, error', style: PLAIN }];
  const found = marked(line, 'error').map(({ text, isMatch }) => (isMatch ? `<${text}>` : text));
  assert.deepEqual(found, ['an ', '<ER>', '<ROR>', ', ', '<error>']);
  assert.deepEqual(marked(line, '').map(({ text }) => text), ['an ER', 'ROR, error']);
});

test('each line of a log of any length can be brought to the upper edge', () => {
  for (const lines of [0, 10, 1000, 20_000_000]) {
    const scroll = { lines, lineHeight: 18, viewHeight: 700 };
    assert.ok(height(scroll) <= MOST_PIXELS);
    assert.equal(isScaled(scroll), lines > MOST_PIXELS / 18);
    for (const line of [0, 3, 999, 123_456, lastTop(scroll)].map((line) => clamp(scroll, line))) {
      assert.ok(Math.abs(topLine(scroll, scrollTop(scroll, line)) - line) < 1e-6, `${line} of ${lines}`);
    }
  }
});
