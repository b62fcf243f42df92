// What the page and the worker that holds a log say to one another.

import type { Piece } from './ansi';

export type ToWorker =
  /** Fetch the log; bytes that are there already are not taken twice. */
  | { kind: 'fetch'; path: string; authorization: string }
  /** Fetch no more of it, until it is asked for again. */
  | { kind: 'pause' }
  | { kind: 'rows'; from: number; to: number }
  /** An empty text ends the search. */
  | { kind: 'search'; text: string }
  | { kind: 'step'; line: number; direction: 'next' | 'previous' };

export type FromWorker =
  | { kind: 'grown'; lines: number; bytes: number; isCut: boolean; hasBroken: boolean }
  /** Nothing more comes of this fetch; status 0 where it was cut, or never began. Not said of one that was paused. */
  | { kind: 'ended'; status: number; message: string }
  | { kind: 'rows'; from: number; rows: Piece[][] }
  | { kind: 'found'; count: number; isDone: boolean }
  | { kind: 'stepped'; line: number; index: number };
