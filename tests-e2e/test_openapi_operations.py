"""Reading of OpenAPI operations from YAML files."""

from pathlib import Path

import pytest
from openapi_spec_validator import validate

from job_orchestrator.common.web.openapi import read_operations, template_of
from job_orchestrator.sdk import AsyncClient
from openapi_documents import FOLDER, documents, text_of


def test_operations_of_all_files_are_found_by_method_and_path(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text("/jobs:\n  get: {summary: List}\n  post: {summary: Add}\n")
    (tmp_path / "health.yaml").write_text("/health:\n  get: {summary: Check}\n")

    operations = read_operations(tmp_path)

    assert set(operations) == {("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/health")}
    assert operations["POST", "/jobs"] == {"summary": "Add"}


def test_folder_without_files_has_no_operations(tmp_path: Path) -> None:
    assert read_operations(tmp_path) == {}


@pytest.mark.parametrize("service", ["server", "client"])
def test_each_route_of_the_services_has_one_operation_and_each_operation_a_route(
    service: str,
) -> None:
    routes = pytest.importorskip(f"job_orchestrator.{service}.web.routes")

    assert set(read_operations(routes.OPERATIONS)) == {
        (route.method, template_of(route.path)) for route in routes.ROUTES
    }


def test_stored_documents_are_those_of_the_services() -> None:
    for name, document in documents().items():
        stored = (FOLDER / f"{name}.json").read_text("utf-8")
        assert stored == text_of(document), "run: make openapi"


def test_operations_have_what_generators_need() -> None:
    for name, document in documents().items():
        validate(document)
        ids = set()
        tags = [tag["name"] for tag in document["tags"]]
        assert document["info"]["license"]["name"] == "MIT"
        for path, item in document["paths"].items():
            for method, operation in item.items():
                place = f"{name}: {method} {path}"
                assert operation["operationId"].isidentifier(), place
                assert operation["operationId"] not in ids, place
                ids.add(operation["operationId"])
                assert operation["summary"], place
                assert len(operation["tags"]) == 1, place
                assert operation["tags"][0] in tags, place


def test_operations_of_the_server_are_named_like_methods_of_the_library() -> None:
    methods = {name for name in dir(AsyncClient) if not name.startswith("_")}
    without = {"connect", "download_partial", "metrics", "pauses", "ping", "sign_in"}
    without |= {"sign_in_options"}
    (document,) = [each for name, each in documents().items() if name == "jo-server"]
    ids = {each["operationId"] for item in document["paths"].values() for each in item.values()}
    assert ids - without <= methods
