"""How gunicorn runs this: `gunicorn "app:create_app()"` in this folder reads it by itself."""


def post_worker_init(worker):
    """After the fork, so that a worker's scheduler and its connections are its own."""
    jobs = _jobs(worker)
    if jobs is not None and jobs.installation.settings.scheduler:
        jobs.start()


def worker_exit(server, worker):
    jobs = _jobs(worker)
    if jobs is not None:
        jobs.stop()


def _jobs(worker):
    return getattr(getattr(worker, "wsgi", None), "extensions", {}).get("dormouse_jobs")
