"""Reading of OpenAPI operations from YAML files."""

from pathlib import Path

import pytest

from job_orchestrator.common.web.openapi import read_operations


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
        (route.method, route.path) for route in routes.ROUTES
    }
