// What all views have in common.

import { Refused } from '../api';
import { h } from '../dom';
import type { State } from '../model';

/** A part of the page that is there until one goes elsewhere. */
export interface View {
  title: string;
  element: HTMLElement;
  /** Ends what it does beside being looked at. */
  end?(): void;
}

export function badge(state: State): HTMLElement {
  return h('span', { class: `state ${state}` }, state);
}

/** What went wrong, in the server's words. */
export function words(error: unknown): string {
  if (!(error instanceof Refused)) throw error;
  return error.message;
}

/** Some of a list, and where the rest begins. */
export interface Part<T> {
  items: T[];
  next: string | undefined;
}

/** So many parts of a list as one. */
export async function several<T>(fetch: (from?: string) => Promise<Part<T>>, parts: number): Promise<Part<T>> {
  let all = await fetch();
  for (let part = 1; part < parts && all.next !== undefined; part += 1) {
    const { items, next } = await fetch(all.next);
    all = { items: [...all.items, ...items], next };
  }
  return all;
}

/**
 * Does something now and every so often, in milliseconds, but not while nobody looks. It is asked to stop by `false`, and
 * stops when its view is over. The work asks after each wait whether what it does is still wanted. Gives what does it at
 * once, in place of what is under way.
 */
export function repeat(every: number, over: AbortSignal, work: (isWanted: () => boolean) => Promise<boolean>): () => void {
  let timer: number | undefined;
  let latest = 0;
  const round = async (own: number) => {
    const isWanted = () => own === latest && !over.aborted;
    const goesOn = document.hidden || (await work(isWanted));
    if (goesOn && isWanted()) timer = setTimeout(() => void round(own), every);
  };
  const again = () => {
    clearTimeout(timer);
    latest += 1;
    if (!over.aborted) void round(latest);
  };
  over.addEventListener('abort', () => clearTimeout(timer));
  again();
  return again;
}
