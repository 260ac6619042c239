"""The OpenAPI document of jo-server and its Swagger UI."""

import re

from openapi_spec_validator import validate

from job_orchestrator.server.web.access import is_open
from running_server import Server


async def test_every_route_is_in_the_valid_openapi_document(server: Server) -> None:
    async with server.http.get("/api-docs/openapi.json") as response:
        document = await response.json()
    validate(document)
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    routed = {
        (route.method, route.resource.canonical)
        for route in server.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    routed = {
        (method, path)
        for method, path in routed
        if not path.startswith(("/swagger", "/api-docs", "/dashboard"))
    }
    assert described == routed
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"], path
            assert operation["responses"], path


async def test_document_distinguishes_errors_and_open_routes(
    server: Server,
) -> None:
    async with server.http.get("/api-docs/openapi.json") as response:
        paths = (await response.json())["paths"]
    responses = {
        (path, status): answer["content"]["application/json"]
        for path, item in paths.items()
        for operation in item.values()
        for status, answer in operation["responses"].items()
        if status >= "400"
    }
    assert responses["/jobs/{id}/logs", "502"]["example"] == {
        "id": 0,
        "status": "Unknown",
        "message": "The job's client can't be reached or fails",
    }
    assert responses["/terminate/{id}", "409"]["example"]["status"] == "Completed"
    for place, body in responses.items():
        assert body["schema"] == {"$ref": "#/components/schemas/JobAnswer"}, place
        assert "uploaded" not in body["example"]["message"], place
    # No security at all (Swagger UI shows no padlock), or that of the whole document.
    without = {path for path, item in paths.items() if item.get("get", {}).get("security") == []}
    assert without == {path for path in paths if is_open(path)} == {"/", "/health", "/sign-in"}
    assert ("/health", "401") not in responses
    assert ("/jobs", "401") in responses


async def test_descriptions_of_schemas_are_not_indented(server: Server) -> None:
    async with server.http.get("/api-docs/openapi.json") as response:
        schemas = (await response.json())["components"]["schemas"]
    assert "\n" in schemas["Job"]["description"], "it has several paragraphs"
    for name, schema in schemas.items():
        # Markdown displays an indented paragraph as code.
        assert "\n " not in schema.get("description", ""), name


async def test_swagger_ui_loads_nothing_from_other_hosts(server: Server) -> None:
    async with server.http.get("/swagger") as response:
        assert response.url.path == "/swagger-ui/"
        page = await response.text()
    for file in re.findall(r'(?:src|href)="(.+?)"', page):
        async with server.http.get(f"/swagger-ui/{file}") as response:
            assert response.status == 200, file
    async with server.http.get("/swagger-ui/start.js") as response:
        start = await response.text()
    for text in (page, start):
        assert "http://" not in text
        assert "https://" not in text
    assert '"validatorUrl": null' in start
