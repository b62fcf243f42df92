// Who is signed in. It is kept for this tab only, and goes with it.

import type { Credentials } from './hawk';

const KEY = 'credentials';

/** Nobody before somebody has signed in. */
export function current(): Credentials | undefined {
  const text = sessionStorage.getItem(KEY);
  return text === null ? undefined : (JSON.parse(text) as Credentials);
}

export function signIn(credentials: Credentials): void {
  sessionStorage.setItem(KEY, JSON.stringify(credentials));
}

export function signOut(): void {
  sessionStorage.removeItem(KEY);
}
