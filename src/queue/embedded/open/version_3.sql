-- The tables of version 3: what a task is and what has become of it in one row.
CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY,
    task_queue_id TEXT NOT NULL,
    task_group_id TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    since INTEGER NOT NULL,
    due INTEGER,
    expires INTEGER NOT NULL,
    definition TEXT NOT NULL,
    status TEXT NOT NULL
) STRICT;
CREATE INDEX pending_tasks ON tasks (task_queue_id, priority DESC, since) WHERE state = 'pending';
CREATE INDEX open_tasks ON tasks (task_queue_id, state, since, task_id) WHERE due IS NOT NULL;
CREATE INDEX tasks_of_groups ON tasks (task_group_id, task_id);
CREATE INDEX due_tasks ON tasks (due) WHERE due IS NOT NULL;
CREATE INDEX expiring_tasks ON tasks (expires);
CREATE TABLE artifacts (
    task_id TEXT NOT NULL REFERENCES tasks,
    run_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    expires INTEGER NOT NULL,
    content TEXT NOT NULL,
    upload_id TEXT,
    PRIMARY KEY (task_id, run_id, name)
) STRICT;
CREATE INDEX expiring_artifacts ON artifacts (expires);
CREATE TABLE dependencies (
    dependent TEXT NOT NULL REFERENCES tasks,
    required TEXT NOT NULL REFERENCES tasks,
    any_resolution INTEGER NOT NULL,
    satisfied INTEGER NOT NULL,
    PRIMARY KEY (dependent, required)
) STRICT, WITHOUT ROWID;
CREATE INDEX dependents ON dependencies (required, dependent);
CREATE INDEX open_dependencies ON dependencies (dependent) WHERE satisfied = 0;
CREATE TABLE task_groups (
    task_group_id TEXT PRIMARY KEY,
    scheduler_id TEXT NOT NULL,
    expires INTEGER NOT NULL,
    sealed INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX expiring_groups ON task_groups (expires);
CREATE TABLE workers (
    task_queue_id TEXT NOT NULL,
    worker_group TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    first_claim INTEGER NOT NULL,
    last_active INTEGER NOT NULL,
    quarantined_until INTEGER,
    recent TEXT NOT NULL,
    PRIMARY KEY (task_queue_id, worker_group, worker_id)
) STRICT;
CREATE TABLE purges (
    worker_pool_id TEXT NOT NULL,
    cache_name TEXT NOT NULL,
    before INTEGER NOT NULL,
    PRIMARY KEY (worker_pool_id, cache_name)
) STRICT;
CREATE INDEX old_purges ON purges (before);
CREATE TABLE indexed_tasks (
    path TEXT PRIMARY KEY,
    expires INTEGER NOT NULL,
    entry TEXT NOT NULL
) STRICT;
CREATE INDEX old_indexed_tasks ON indexed_tasks (expires);
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    expires INTEGER NOT NULL,
    secret TEXT NOT NULL
) STRICT;
CREATE INDEX old_secrets ON secrets (expires);
