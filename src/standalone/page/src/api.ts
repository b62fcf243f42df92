// Calls of the queue and of the page's own methods, signed by whoever is signed in.

import { authorization, type Credentials } from './hawk';
import * as session from './session';
import type { Artifact, DiskUse, Finding, ListedTask, Status, Task } from './model';

/** A call that the server refuses, in its own words; status 0 where it cannot be reached. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Milliseconds by which the server's clock is ahead of this one: signatures go by the server's. */
let ahead = 0;

const JSON_TYPE = 'application/json';

/** Looks whether credentials are good: the server knows the client and its token. */
export async function check(credentials: Credentials): Promise<void> {
  // An unsigned call first: its reply tells the server's time.
  await call('GET', '/api/queue/v1/ping', undefined, undefined);
  try {
    await call('GET', '/api/auth/v1/scopes/current', undefined, credentials);
  } catch (error) {
    // A client that may not ask for its own scopes is a client nevertheless.
    if (!(error instanceof Refused && error.status === 403)) throw error;
  }
}

/** A list that comes in pages. */
export type Page<T> = T & { continuationToken?: string };

export async function recentTasks(token?: string): Promise<Page<{ tasks: ListedTask[] }>> {
  return get(`/page/tasks${query(token)}`);
}

export async function groupTasks(group: string, token?: string): Promise<Page<{ tasks: { task: Task; status: Status }[] }>> {
  return get(`/api/queue/v1/task-group/${group}/list${query(token)}`);
}

export async function task(taskId: string): Promise<Task> {
  return get(`/api/queue/v1/task/${taskId}`);
}

export async function status(taskId: string): Promise<Status> {
  return (await get<{ status: Status }>(`/api/queue/v1/task/${taskId}/status`)).status;
}

export async function artifacts(taskId: string, runId: number, token?: string): Promise<Page<{ artifacts: Artifact[] }>> {
  return get(`/api/queue/v1/task/${taskId}/runs/${runId}/artifacts${query(token)}`);
}

/** Where an artifact can be had, for a while, by whoever knows the URL. */
export async function artifactUrl(taskId: string, runId: number, name: string): Promise<string> {
  const path = `/api/queue/v1/task/${taskId}/runs/${runId}/artifact-content/${encodeURIComponent(name)}`;
  const { url = '', message = `It leads to ${url}, which no page opens.` } = await get<{ url?: string; message?: string }>(path);
  // Anything else may be something to execute.
  if (!/^https?:\/\//.test(url)) throw new Refused(424, 'InputError', message);
  return url;
}

export async function cancel(taskId: string): Promise<Status> {
  return (await post<{ status: Status }>(`/api/queue/v1/task/${taskId}/cancel`)).status;
}

export async function rerun(taskId: string): Promise<Status> {
  return (await post<{ status: Status }>(`/api/queue/v1/task/${taskId}/rerun`)).status;
}

export async function create(taskId: string, definition: unknown): Promise<Status> {
  const path = `/api/queue/v1/task/${taskId}`;
  return (await call<{ status: Status }>('PUT', path, JSON.stringify(definition), session.current())).status;
}

export async function validate(definition: unknown): Promise<Finding[]> {
  return (await post<{ findings: Finding[] }>('/page/validate', definition)).findings;
}

/** What takes room on the disk of the worker. */
export async function diskUse(): Promise<DiskUse> {
  return get('/page/disk-use');
}

/** The path of a log, and the header that lets the current client read it now. */
export function logRequest(taskId: string, runId: number, name: string): { path: string; authorization: string } {
  const path = `/page/log/${taskId}/${runId}/${encodeURIComponent(name)}`;
  const credentials = session.current();
  return { path, authorization: credentials === undefined ? '' : sign(credentials, 'GET', path) };
}

function query(token: string | undefined): string {
  return token === undefined ? '' : `?continuationToken=${encodeURIComponent(token)}`;
}

function get<T>(path: string): Promise<T> {
  return call('GET', path, undefined, session.current());
}

function post<T>(path: string, body?: unknown): Promise<T> {
  return call('POST', path, body === undefined ? undefined : JSON.stringify(body), session.current());
}

function sign(credentials: Credentials, method: string, path: string, text?: string): string {
  const seconds = Math.floor((Date.now() + ahead) / 1000);
  const random = crypto.getRandomValues(new Uint8Array(9));
  const nonce = btoa(String.fromCharCode(...random));
  const payload = text === undefined ? {} : { payload: { contentType: JSON_TYPE, text } };
  return authorization(credentials, { method, url: new URL(path, location.href), ...payload }, seconds, nonce);
}

async function call<T>(
  method: string,
  path: string,
  text: string | undefined,
  credentials: Credentials | undefined,
): Promise<T> {
  const headers: Record<string, string> = {};
  if (text !== undefined) headers['Content-Type'] = JSON_TYPE;
  if (credentials !== undefined) headers['Authorization'] = sign(credentials, method, path, text);
  let response: Response;
  let answer: unknown;
  try {
    response = await fetch(path, { method, headers, body: text ?? null, cache: 'no-store', credentials: 'omit' });
    answer = response.status === 204 ? undefined : await response.json();
  } catch (error) {
    throw new Refused(0, 'Unreachable', `The server gives no answer (${String(error)}).`);
  }
  const date = Date.parse(response.headers.get('Date') ?? '');
  if (!Number.isNaN(date)) ahead = date - Date.now();
  if (!response.ok) {
    const { code, message } = answer as { code: string; message: string };
    // What follows is about the call, for whoever looks for it in the server's log.
    throw new Refused(response.status, code, message.split('\n\n---\n', 1)[0] ?? message);
  }
  return answer as T;
}
