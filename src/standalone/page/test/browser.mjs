// What somebody does with the page, in Chromium, against a `docker-worker standalone` that is there.
//
//   node browser.mjs ROOT_URL CREDENTIALS_FILE IMAGE [DIRECTORY]
//
// IMAGE has a shell. Pictures of what is seen go to DIRECTORY. Ends with status 0 if all was as it should be.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';

const [rootUrl, credentialsFile, image, pictures] = process.argv.slice(2);
const { clientId, accessToken } = JSON.parse(await readFile(credentialsFile, 'utf8'));

/** Longer than anything here takes, in milliseconds. */
const LIMIT = 30_000;

const QUIET = ['background-networking', 'component-update', 'crash-reporter', 'gpu', 'quic', 'sync'];
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-first-run', ...QUIET.map((what) => `--disable-${what}`)],
  chromiumSandbox: false,
});
try {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  context.setDefaultTimeout(LIMIT);
  const complaints = [];
  const watch = (page) => {
    page.on('pageerror', (error) => complaints.push(String(error)));
    page.on('console', (message) => {
      // A browser complains of each reply that refuses; what the page makes of them is looked at below.
      if (message.type() === 'error' && !/status of (4|503)/.test(message.text())) complaints.push(message.text());
    });
    page.on('request', (request) => {
      const url = request.url();
      if (!url.startsWith(`${rootUrl}/`) && !url.startsWith('data:')) complaints.push(`asks elsewhere: ${url}`);
    });
  };
  const page = await context.newPage();
  watch(page);
  await signIn(page);
  const address = await create(page);
  await follow(page);
  await openArtifacts(page, context);
  await rerunAndCancel(page);
  await leave(page, address);
  await waitForPlace(page, context, address);
  await showMore(page, address);
  await lookAround(page, address);
  await signOut(page);
  assert.deepEqual(complaints, []);
} finally {
  await browser.close();
}

async function signIn(page) {
  await page.goto(`${rootUrl}/`);
  await page.getByLabel('clientId').fill(clientId);
  await page.getByLabel('accessToken').fill('guessed');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').getByText('Bad mac').waitFor();
  await page.getByLabel('accessToken').fill(accessToken);
  await page.keyboard.press('Enter');
  await page.getByText('There are no tasks yet.').waitFor();
  const kept = await page.evaluate(() => [localStorage.length, document.cookie, sessionStorage.length]);
  assert.deepEqual(kept, [0, '', 1]);
}

/** Makes a task by the keyboard alone, wrong at first. Returns the address of its view. */
async function create(page) {
  await page.keyboard.press('Tab');
  await page.getByRole('link', { name: 'Create a task' }).focus();
  await page.keyboard.press('Enter');
  const editor = page.getByRole('textbox');
  const findings = page.getByRole('complementary', { name: 'Findings' });
  await findings.getByText('Nothing is wrong with it.').waitFor();
  const example = await editor.inputValue();
  const script = [
    String.raw`printf '\033[1;31mred\033[0m <b>not bold</b>\n'`,
    'echo made here >/tmp/made.txt',
    'dd if=/dev/zero of=/cache/zeros bs=1M count=3',
    'echo "<script>try { sessionStorage.length; document.title = 1 } catch { document.title = 2 }</script>" >/tmp/page.html',
    // There is time to look while it runs, on a busy machine as well.
    'i=0; while [ $i -lt 300 ]; do echo tick $i; [ $i != 100 ] || sleep 4; i=$((i+1)); sleep 0.01; done',
    '[ $RUN_ID = 0 ] || sleep 1000',
  ].join('; ');
  const payload = {
    image,
    command: ['sh', '-c', script],
    maxRunTime: 'long',
    cache: { 'page-test': '/cache' },
    artifacts: {
      'public/made.txt': { type: 'file', path: '/tmp/made.txt' },
      'public/page.html': { type: 'file', path: '/tmp/page.html' },
      'private/made.txt': { type: 'file', path: '/tmp/made.txt' },
    },
  };
  const scopes = 'scopes: ["docker-worker:cache:page-test"]';
  const wrong = `${example.slice(0, example.indexOf('payload:'))}${scopes}\npayload: ${JSON.stringify(payload, undefined, 1)}\n`;
  await editor.fill(wrong);
  const finding = findings.getByRole('listitem').filter({ hasText: '/payload/maxRunTime' });
  await finding.waitFor();
  await picture(page, 'findings');
  const line = wrong.split('\n').findIndex((text) => text.includes('maxRunTime')) + 1;
  assert.match(await finding.innerText(), new RegExp(`^Line ${line}, `));
  await editor.fill(wrong.replace('"long"', '600').replace('owner:', 'ovner:'));
  await page.keyboard.press('Control+Enter');
  await findings.getByText('must have the field "owner"').waitFor();
  assert.match(page.url(), /#\/create$/);
  await editor.fill(wrong.replace('"long"', '600'));
  await page.keyboard.press('Control+Enter');
  await page.waitForURL(/#\/task\//);
  await page.getByRole('heading', { name: 'hello' }).waitFor();
  return page.url();
}

async function follow(page) {
  const lines = page.getByRole('region', { name: 'Lines of the log' });
  // Its end is in view as it comes, while the task runs.
  await lines.getByText('tick 100', { exact: true }).waitFor();
  assert.equal(await page.locator('.state').first().innerText(), 'running');
  await picture(page, 'running');
  await page.locator('.state.completed').first().waitFor();
  await lines.getByText('Successful task run').waitFor();
  await lines.focus();
  await page.keyboard.press('Home');
  const red = lines.getByText('red', { exact: true });
  assert.match(await red.getAttribute('class'), /fg-1/);
  await lines.getByText('<b>not bold</b>').waitFor();
  assert.equal(await page.getByLabel('Follow').isChecked(), false);
  await page.keyboard.press('/');
  await page.keyboard.type('TICK 77');
  await page.getByText('1 line', { exact: true }).waitFor();
  await page.keyboard.press('Enter');
  await page.getByText('1 of 1 line', { exact: true }).waitFor();
  assert.match(await lines.locator('.current').innerText(), /tick 77/);
  await picture(page, 'found');
}

async function openArtifacts(page, context) {
  const open = async (name) => {
    const [opened] = await Promise.all([context.waitForEvent('page'), page.getByRole('button', { name, exact: true }).click()]);
    await opened.waitForLoadState();
    return opened;
  };
  for (const name of ['public/made.txt', 'private/made.txt']) {
    const made = await open(name);
    assert.equal((await made.locator('body').innerText()).trim(), 'made here');
    await made.close();
  }
  // What a task has made is executed as a stranger's: it has no part in this session.
  const stranger = await open('public/page.html');
  assert.equal(await stranger.title(), '2');
  assert.equal(await stranger.evaluate(() => self.origin), 'null');
  assert.equal(await stranger.evaluate(() => window.opener), null);
  await stranger.close();
}

async function rerunAndCancel(page) {
  await page.getByRole('button', { name: 'Rerun' }).click();
  await page.getByRole('button', { name: 'Rerun the task' }).click();
  await page.getByRole('navigation', { name: 'Runs' }).getByRole('link', { name: 'Run 1' }).waitFor();
  const lines = page.getByRole('region', { name: 'Lines of the log' });
  await lines.getByText('tick 299', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Cancel' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'No' }).press('Enter');
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Cancel the task' }).press('Enter');
  await page.locator('.facts').getByText('canceled').waitFor();
  await page.locator('.state.exception').first().waitFor();
  await page.getByRole('button', { name: 'public/logs/live_backing.log' }).waitFor();
  await picture(page, 'cancelled');
}

/** What is answered to a view that one has left brings nothing of it back, and what it asks is asked no more. */
async function leave(page, address) {
  const tasks = page.getByRole('link', { name: 'Tasks' });
  await tasks.click();
  await page.getByRole('heading', { name: 'Tasks' }).waitFor();
  let release;
  const released = new Promise((resolve) => (release = resolve));
  await page.route('**/status', async (route) => {
    await released;
    await route.continue();
  });
  const asked = page.waitForRequest('**/status');
  await page.goto(address);
  await asked;
  await tasks.click();
  const answered = page.waitForResponse('**/status');
  release();
  await answered;
  await page.unroute('**/status');
  for (let round = 0; round < 2; round += 1) await page.waitForResponse('**/page/tasks');
  assert.deepEqual(page.workers(), []);
  await page.getByRole('link', { name: 'hello' }).click();
  await page.getByRole('button', { name: 'Rerun' }).click();
  const question = page.getByRole('dialog');
  await question.waitFor();
  await page.goBack();
  await page.getByRole('heading', { name: 'Tasks' }).waitFor();
  assert.equal(await question.count(), 0);
}

/** Of many artifacts there are some, and more if one wants to see them. */
async function showMore(page, address) {
  const lists = '**/runs/0/artifacts*';
  let rest;
  await page.route(lists, async (route) => {
    if (route.request().url().endsWith('continuationToken=rest')) return route.fulfill({ json: { artifacts: rest } });
    const [first, ...others] = (await (await route.fetch()).json()).artifacts;
    rest = others;
    return route.fulfill({ json: { artifacts: [first], continuationToken: 'rest' } });
  });
  await page.getByRole('link', { name: 'Tasks' }).click();
  await page.goto(`${address}/0`);
  await page.getByRole('button', { name: 'private/made.txt' }).waitFor();
  assert.equal(await page.getByRole('button', { name: 'public/made.txt' }).count(), 0);
  await page.getByRole('button', { name: 'More artifacts' }).click();
  await page.getByRole('button', { name: 'public/made.txt' }).waitFor();
  assert.equal(await page.getByRole('button', { name: 'More artifacts' }).isVisible(), false);
  await page.unroute(lists);
}

/** Where too many others read, the log is asked for again. */
async function waitForPlace(page, context, address) {
  const logs = '**/page/log/**';
  await context.route(logs, (route) => route.fulfill({ status: 503, body: 'Too many readers' }));
  await page.goto(`${address}/0`);
  await page.getByText('Too many others read logs now').waitFor();
  await context.unroute(logs);
  await page.getByText('tick 1', { exact: true }).waitFor();
}

/** The other views, in other lights and on a small screen. */
async function lookAround(page, address) {
  const taskId = address.slice(-22);
  await page.getByRole('link', { name: 'Run 0' }).click();
  await page.locator('.row').first().waitFor();
  await page.getByRole('link', { name: taskId }).first().click();
  await page.getByRole('heading', { name: 'Group' }).waitFor();
  await page.getByRole('link', { name: 'hello' }).waitFor();
  await page.getByRole('link', { name: 'Tasks' }).click();
  await page.getByRole('link', { name: 'hello' }).waitFor();
  await picture(page, 'tasks');
  await page.getByRole('link', { name: 'Disk' }).click();
  await page.getByRole('row').filter({ hasText: 'page-test' }).getByText('3.0 MiB').waitFor();
  await page.getByRole('row').filter({ hasText: image }).waitFor();
  await picture(page, 'disk');
  await page.getByRole('link', { name: 'Tasks' }).click();
  await page.getByRole('link', { name: 'hello' }).waitFor();
  await page.emulateMedia({ colorScheme: 'dark' });
  await picture(page, 'tasks-dark');
  await page.goto(address);
  await page.getByText('tick 1', { exact: true }).waitFor();
  await picture(page, 'task-dark');
  await page.setViewportSize({ width: 390, height: 844 });
  await fits(page, 'task-narrow');
  await page.getByRole('link', { name: 'Disk' }).click();
  await page.getByRole('row').filter({ hasText: 'page-test' }).waitFor();
  await fits(page, 'disk-narrow');
  await page.getByRole('link', { name: 'Tasks' }).click();
  await page.getByRole('link', { name: 'hello' }).waitFor();
  await fits(page, 'tasks-narrow');
  await page.goto(address);
  await page.getByRole('link', { name: 'Edit as new' }).click();
  await page.getByText('Nothing is wrong with it.').waitFor();
  await fits(page, 'create-narrow');
  await page.goto(`${rootUrl}/#/task/AAAAAAAAQACAAAAAAAAAAA`);
  await page.getByText('failed to find task').waitFor();
}

/** Nothing is wider than the screen. */
async function fits(page, name) {
  await picture(page, name);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${name}: ${overflow} pixels too wide`);
}

async function signOut(page) {
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('accessToken').waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
}

async function picture(page, name) {
  if (pictures !== undefined) await page.screenshot({ path: `${pictures}/${name}.png` });
}
