// What the queue answers, as far as the page shows it. Names and words are those of the queue's schemas.

export type State = 'unscheduled' | 'pending' | 'running' | 'completed' | 'failed' | 'exception';

export interface Run {
  runId: number;
  state: State;
  reasonCreated: string;
  reasonResolved?: string;
  workerGroup?: string;
  workerId?: string;
  takenUntil?: string;
  scheduled: string;
  started?: string;
  resolved?: string;
}

export interface Status {
  taskId: string;
  taskQueueId: string;
  taskGroupId: string;
  schedulerId: string;
  projectId: string;
  priority: string;
  deadline: string;
  expires: string;
  retriesLeft: number;
  state: State;
  runs: Run[];
}

export interface Task {
  metadata: { name: string; description: string; owner: string; source: string };
  created: string;
  dependencies?: string[];
  payload: { log?: unknown; [key: string]: unknown };
  [key: string]: unknown;
}

/** A task in a list. */
export interface ListedTask {
  status: Status;
  name: string;
}

export interface Artifact {
  name: string;
  storageType: string;
  contentType: string;
  expires: string;
}

/** What is wrong with a definition, or should be known of it. */
export interface Finding {
  /** JSON pointer; empty for the whole. */
  pointer: string;
  message: string;
  hint?: string | null;
  severity: 'error' | 'warning';
}

/** What caches and images take on the disk, in bytes. */
export interface DiskUse {
  caches: CacheUse[];
  images: ImageUse[];
  /** Of what several images need. */
  sharedBytes: number;
  /** Of what the store has beside its images. */
  otherBytes: number;
}

export interface CacheUse {
  name: string;
  created: string;
  lastUsed: string;
  isUsed: boolean;
  bytes: number;
  /** It has more: nobody had the time to look at all of it. */
  isPartial: boolean;
}

export interface ImageUse {
  id: string;
  names: string[];
  lastUsed: string;
  isUsed: boolean;
  /** Of what it alone needs. */
  ownBytes: number;
  sharedBytes: number;
}

/** Whether nothing more will happen to it by itself. */
export function isResolved(state: State): boolean {
  return state === 'completed' || state === 'failed' || state === 'exception';
}
