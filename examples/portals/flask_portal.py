"""A portal in Flask: a form, a page for each job, and results to download.

    pip install flask ./orchestrator-common
    flask --app examples/portals/flask_portal run

In Django, too, use one ``Client`` for the process and call it from the views.
"""

import os
import tempfile
from pathlib import Path

from flask import Flask, abort, redirect, render_template_string, request, send_file, url_for
from werkzeug.wrappers import Response

from job_orchestrator.sdk import (
    ApiError,
    Client,
    JobDetail,
    JobNotFound,
    NotEnded,
    QuotaExceeded,
)

SCRIPT = b"wc input.txt > counts.txt\n"
WAIT_S = 10

FORM = """<!doctype html><title>Count words</title>
<form method="post" action="/jobs" enctype="multipart/form-data">
  <input type="file" name="text" required> <button>Count its words</button>
</form>"""

JOB = """<!doctype html><title>Job {{ job.id }}</title>
{% if not job.has_ended %}<meta http-equiv="refresh" content="0">{% endif %}
<h1>Job {{ job.id }} is {{ job.status }}</h1>
<p>{{ job.message }}</p>
{% if job.status == "Completed" %}<a href="{{ job.id }}/results">Results</a>{% endif %}"""


def create_app(url: str) -> Flask:
    """Create a portal for the jo-server at ``url``."""
    app = Flask(__name__)
    # One client for the process; any thread may use it.
    server = Client(url, patience_s=5)

    def user_id() -> int:
        """Return the user who is logged in; a real portal takes it from its session."""
        return 1

    def own_job(job_id: int) -> JobDetail:
        """Return a job. Jobs of other users are not found."""
        job = server.job(job_id)
        if job.user_id != user_id():
            abort(404)
        return job

    @app.get("/")
    def form() -> str:
        return FORM

    @app.post("/jobs")
    def submit() -> Response:
        files = {"run.sh": SCRIPT, "input.txt": request.files["text"].stream}
        job = server.submit("example", files, user_id=user_id(), time_limit="5m")
        return redirect(url_for("show", job_id=job.id))

    @app.get("/jobs/<int:job_id>")
    def show(job_id: int) -> str:
        # The page waits for the end of the job on the server, instead of polling.
        job = own_job(job_id)
        if not job.has_ended:
            job = _wait_briefly(server, job)
        return render_template_string(JOB, job=job)

    @app.get("/jobs/<int:job_id>/results")
    def results(job_id: int) -> Response:
        own_job(job_id)
        with tempfile.TemporaryDirectory() as folder:
            path = server.download(job_id, Path(folder) / "results.zip")
            # An open file can be read after its folder has been removed.
            return send_file(path.open("rb"), "application/zip", download_name=path.name)

    @app.errorhandler(JobNotFound)
    def not_found(error: JobNotFound) -> tuple[str, int]:
        return str(error), 404

    @app.errorhandler(QuotaExceeded)
    def too_much(error: QuotaExceeded) -> tuple[str, int]:
        return str(error), 429

    @app.errorhandler(ApiError)
    def failed(error: ApiError) -> tuple[str, int]:
        app.logger.error("%s", error)
        return "The job service is not available at present; try again later", 503

    return app


def _wait_briefly(server: Client, job: JobDetail) -> JobDetail:
    """Return the job when it has ended, or as it is after ``WAIT_S``."""
    try:
        return server.wait(job.id, timeout_s=WAIT_S)
    except NotEnded:
        return server.job(job.id)


app = create_app(os.environ.get("JO_URL", "http://localhost:5000"))
