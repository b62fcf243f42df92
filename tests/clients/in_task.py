"""What a task asks for with Taskcluster's client for Python, by way of the proxy: it has no credentials of its own."""

import os

import taskcluster

task, run = os.environ["TASK_ID"], os.environ["RUN_ID"]
options = {"rootUrl": os.environ["TASKCLUSTER_PROXY_URL"], "maxRetries": 1}
queue, index = taskcluster.Queue(options), taskcluster.Index(options)

own = queue.task(task)
assert queue.status(task)["status"]["runs"][0]["state"] == "running"
child = taskcluster.slugId()
definition = {key: own[key] for key in ("schedulerId", "created", "deadline", "metadata", "payload")}
queue.createTask(child, {**definition, "taskQueueId": "local/nobody", "taskGroupId": task})
reference = {
    "storageType": "reference",
    "contentType": "text/html",
    "expires": own["expires"],
    "url": "https://example.com/made",
}
queue.createArtifact(task, run, "public/made @ 1%.txt", reference)
index.insertTask("made.here", {"taskId": task, "rank": 1, "data": {}, "expires": own["expires"]})
assert index.findTask("made.here")["taskId"] == task
for refused in (lambda: queue.cancelTask(child), lambda: index.insertTask("made.elsewhere", {})):
    try:
        refused()
    except taskcluster.exceptions.TaskclusterRestFailure as error:
        assert error.status_code in (400, 403), error
    else:
        raise AssertionError("it is not refused")
print("made", child)
