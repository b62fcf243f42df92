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
 * Does something now and every so often, in milliseconds, but not while nobody looks. It is asked to stop by `false`.
 */
export function repeat(every: number, work: () => Promise<boolean>): () => void {
  let timer: number | undefined;
  let isOver = false;
  const round = async () => {
    const isWanted = document.hidden || (await work());
    if (isWanted && !isOver) timer = setTimeout(() => void round(), every);
  };
  void round();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}
