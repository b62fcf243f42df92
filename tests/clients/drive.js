// Does with Taskcluster's client for Node.js what people do: makes tasks, follows, reads, cancels and reruns them.
//
// Arguments: the name of an image with a shell. The deployment and the credentials are those of the environment.
'use strict';

const assert = require('node:assert');
const taskcluster = require('taskcluster-client');

const IMAGE = process.argv[2];
const OPTIONS = taskcluster.fromEnvVars();
const SCRIPT = "mkdir /out; echo run $RUN_ID; echo 'made by a task' >/out/made";

const client = (more) => new taskcluster.Queue({ ...OPTIONS, retries: 1, ...more });

function definition(pool) {
  const artifact = { type: 'file', path: '/out/made' };
  return {
    taskQueueId: pool,
    schedulerId: 'people',
    created: taskcluster.fromNowJSON(''),
    deadline: taskcluster.fromNowJSON('1 hour'),
    payload: {
      image: IMAGE,
      command: ['sh', '-c', SCRIPT],
      maxRunTime: 600,
      artifacts: { 'public/made @ 1%.txt': artifact, 'private/made.txt': artifact },
    },
    metadata: { name: 'a', description: 'b', owner: 'c@example.com', source: 'https://example.com' },
  };
}

async function made(pool, queue) {
  const task = taskcluster.slugid();
  await queue.createTask(task, definition(pool));
  return task;
}

async function resolved(queue, task) {
  for (let tries = 0; tries < 600; tries += 1) {
    const { status } = await queue.status(task);
    if (!['unscheduled', 'pending', 'running'].includes(status.state)) return status;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`${task} does not end`);
}

async function read(url) {
  const reply = await fetch(url);
  assert.ok(reply.ok, `${url}: ${reply.status}`);
  return reply.text();
}

const refused = (status, call) => assert.rejects(call, { statusCode: status });

async function main() {
  const queue = client();
  assert.ok((await queue.ping()).alive);

  const task = await made('local/docker-worker', queue);
  let status = await resolved(queue, task);
  assert.strictEqual(status.state, 'completed');
  assert.strictEqual((await queue.task(task)).metadata.name, 'a');
  const names = (await queue.listLatestArtifacts(task)).artifacts.map((artifact) => artifact.name);
  for (const name of ['public/made @ 1%.txt', 'private/made.txt', 'public/logs/live.log']) {
    assert.ok(names.includes(name), `${names}`);
  }
  const url = (name) => queue.buildUrl(queue.getLatestArtifact, task, name);
  assert.match(await read(url('public/logs/live.log')), /run 0/);
  assert.strictEqual(await read(url('public/made @ 1%.txt')), 'made by a task\n');
  // One that is not public is signed for, in the header or in the URL.
  const signed = queue.buildSignedUrl(queue.getLatestArtifact, task, 'private/made.txt');
  assert.strictEqual(await read(signed), 'made by a task\n');
  assert.match((await queue.getLatestArtifact(task, 'private/made.txt')).url, /storage/);
  const nobody = new taskcluster.Queue({ rootUrl: OPTIONS.rootUrl, retries: 1 });
  await refused(403, nobody.getLatestArtifact(task, 'private/made.txt'));

  await queue.rerunTask(task);
  status = await resolved(queue, task);
  assert.deepStrictEqual(status.runs.map((run) => run.state), ['completed', 'completed']);

  // Nobody takes them.
  const [left, other] = [await made('local/nobody', queue), await made('local/nobody', queue)];
  const few = ['auth:current-scopes', `queue:cancel-task:people/${left}/${left}`];
  await refused(403, client({ authorizedScopes: ['queue:create-task:*'] }).cancelTask(left));
  const credentials = taskcluster.createTemporaryCredentials({
    start: taskcluster.fromNow('-1 minute'),
    expiry: taskcluster.fromNow('1 hour'),
    scopes: few,
    credentials: OPTIONS.credentials,
  });
  const auth = new taskcluster.Auth({ rootUrl: OPTIONS.rootUrl, credentials });
  // What everybody may is among them.
  const { scopes } = await auth.currentScopes();
  assert.ok(few.every((scope) => scopes.includes(scope)) && scopes.length < 10, `${scopes}`);
  const temporary = client({ credentials });
  await refused(403, temporary.cancelTask(other));
  const canceled = (await temporary.cancelTask(left)).status;
  assert.strictEqual(canceled.state, 'exception');
  assert.strictEqual(canceled.runs[0].reasonResolved, 'canceled');
  await client({ authorizedScopes: [few[1].replaceAll(left, other)] }).cancelTask(other);
  const wrong = { ...OPTIONS.credentials, accessToken: 'x'.repeat(44) };
  await refused(401, client({ credentials: wrong }).cancelTask(left));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
