"""Does with Taskcluster's client for Python what people do: makes tasks, follows, reads, cancels and reruns them.

Arguments: the name of an image with a shell. The deployment and the credentials are those of the environment."""

import sys
import time

import requests
import taskcluster

IMAGE = sys.argv[1]
OPTIONS = taskcluster.optionsFromEnvironment()
SCRIPT = """
mkdir /out; echo run $RUN_ID; echo 'made by a task' >/out/made
"""


def client(**more):
    return taskcluster.Queue({**OPTIONS, "maxRetries": 1, **more})


def definition(pool, script=SCRIPT):
    artifact = lambda name: {name: {"type": "file", "path": "/out/made"}}
    return {
        "taskQueueId": pool,
        "schedulerId": "people",
        "created": taskcluster.fromNowJSON(""),
        "deadline": taskcluster.fromNowJSON("1 hour"),
        "payload": {
            "image": IMAGE,
            "command": ["sh", "-c", script],
            "maxRunTime": 600,
            "artifacts": {**artifact("public/made @ 1%.txt"), **artifact("private/made.txt")},
        },
        "metadata": {"name": "a", "description": "b", "owner": "c@example.com", "source": "https://example.com"},
    }


def made(pool, queue):
    task = taskcluster.slugId()
    queue.createTask(task, definition(pool))
    return task


def resolved(queue, task):
    for _ in range(600):
        status = queue.status(task)["status"]
        if status["state"] not in ("unscheduled", "pending", "running"):
            return status
        time.sleep(0.2)
    raise AssertionError(f"{task} does not end: {status}")


def read(url):
    reply = requests.get(url, timeout=60)
    reply.raise_for_status()
    return reply.text


def refused(status, call, *arguments):
    try:
        call(*arguments)
    except (taskcluster.exceptions.TaskclusterRestFailure, taskcluster.exceptions.TaskclusterAuthFailure) as error:
        assert error.status_code == status, error
    else:
        raise AssertionError(f"{call} is not refused")


def main():
    queue = client()
    assert queue.ping()["alive"]

    task = made("local/docker-worker", queue)
    status = resolved(queue, task)
    assert status["state"] == "completed", status
    assert queue.task(task)["metadata"]["name"] == "a"
    names = {artifact["name"] for artifact in queue.listLatestArtifacts(task)["artifacts"]}
    assert {"public/made @ 1%.txt", "private/made.txt", "public/logs/live.log"} <= names, names
    log = read(queue.buildUrl("getLatestArtifact", task, "public/logs/live.log"))
    assert "run 0" in log, log
    assert read(queue.buildUrl("getLatestArtifact", task, "public/made @ 1%.txt")) == "made by a task\n"
    # One that is not public is signed for, in the header or in the URL.
    assert read(queue.buildSignedUrl("getLatestArtifact", task, "private/made.txt")) == "made by a task\n"
    assert "storage" in queue.getLatestArtifact(task, "private/made.txt")["url"]
    nobody = taskcluster.Queue({"rootUrl": OPTIONS["rootUrl"], "maxRetries": 1})
    refused(403, nobody.getLatestArtifact, task, "private/made.txt")

    queue.rerunTask(task)
    status = resolved(queue, task)
    assert [run["state"] for run in status["runs"]] == ["completed", "completed"], status

    # Nobody takes them.
    left, other = made("local/nobody", queue), made("local/nobody", queue)
    few = ["auth:current-scopes", f"queue:cancel-task:people/{left}/{left}"]
    refused(403, client(authorizedScopes=["queue:create-task:*"]).cancelTask, left)
    credentials = taskcluster.createTemporaryCredentials(
        OPTIONS["credentials"]["clientId"],
        OPTIONS["credentials"]["accessToken"],
        taskcluster.fromNow("-1 minute"),
        taskcluster.fromNow("1 hour"),
        few,
    )
    auth = taskcluster.Auth({"rootUrl": OPTIONS["rootUrl"], "credentials": credentials})
    # What everybody may is among them.
    scopes = auth.currentScopes()["scopes"]
    assert set(few) <= set(scopes) and len(scopes) < 10, scopes
    temporary = client(credentials=credentials)
    refused(403, temporary.cancelTask, other)
    canceled = temporary.cancelTask(left)["status"]
    assert (canceled["state"], canceled["runs"][0]["reasonResolved"]) == ("exception", "canceled"), canceled
    client(authorizedScopes=[few[1].replace(left, other)]).cancelTask(other)
    wrong = {**OPTIONS["credentials"], "accessToken": "x" * 44}
    refused(401, client(credentials=wrong).cancelTask, left)


main()
