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
