"""The OpenAPI 3.1 description of the HTTP interface, for client generators and fuzzers."""

from importlib.metadata import version
from typing import Any

_JSON = "application/json"

_Schema = dict[str, Any]


def openapi() -> dict[str, Any]:
    """The whole description as plain values."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "resdeploy", "version": version("resdeploy")},
        "paths": {**_v2_paths(), **_v1_paths(), **_operations_paths()},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _v2_paths() -> dict[str, Any]:
    ready = _reply("Whether it is ready.", _object(ready={"type": "boolean"}))
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("What this server is", _reply("Name and extensions.", {}))},
        "/v2/health/live": {
            "get": _operation(
                "Whether the server runs", _reply("It runs.", _object(live={"type": "boolean"}))
            )
        },
        "/v2/health/ready": {"get": _operation("Whether the models answer", ready)},
        "/v2/repository/index": {
            "post": _operation(
                "Every model and its state",
                _reply("The index.", {"type": "array", "items": _reference("ModelState")}),
                body={_JSON: _object(ready={"type": "boolean"})},
            )
        },
    }
    for change in ("load", "unload"):
        paths[f"/v2/repository/models/{{model}}/{change}"] = {
            "post": _operation(f"{change.capitalize()} a model", _reply("Done.", {}), "model")
        }
    for path, names in (
        ("/v2/models/{model}", ("model",)),
        ("/v2/models/{model}/versions/{version}", ("model", "version")),
    ):
        metadata = _reply("Inputs and outputs.", _reference("Metadata"))
        paths[path] = {"get": _operation("Metadata of a model", metadata, *names)}
        paths[f"{path}/ready"] = {"get": _operation("Whether a model answers", ready, *names)}
        paths[f"{path}/infer"] = {
            "post": _operation(
                "Run the network on tensors or encoded images",
                _reply("Logits, or the best classes.", _reference("InferResponse")),
                *names,
                body={_JSON: _reference("InferRequest"), "application/octet-stream": {}},
            )
        }
    return paths


def _v1_paths() -> dict[str, Any]:
    image = {"type": "string", "contentMediaType": "image/*"}
    form = _object(file={"type": "array", "items": image})
    bodies = {"multipart/form-data": form, "image/jpeg": {}, "image/png": {}, "image/webp": {}}
    return {
        "/v1/classify": {
            "post": {
                **_operation(
                    "The best classes of one or several images",
                    _reply("Labels.", _reference("Classes")),
                    body=bodies,
                ),
                "parameters": [
                    _query("model", {"type": "string"}),
                    _query("version", {"type": "string"}),
                    _query("top", {"type": "integer", "minimum": 1}),
                ],
            }
        },
        "/v1/preview": {
            "post": {
                **_operation(
                    "What the network sees of an image",
                    {"description": "A PNG.", "content": {"image/png": {}}},
                    body=bodies,
                ),
                "parameters": [_query("model", {"type": "string"})],
            }
        },
        "/v1/models": {"get": _operation("A card of every model", _reply("Cards.", {}))},
    }


def _operations_paths() -> dict[str, Any]:
    text = {"description": "Prometheus' text format.", "content": {"text/plain": {}}}
    return {
        "/metrics": {"get": _operation("Counters and histograms", text)},
        "/openapi.json": {"get": _operation("This description", _reply("OpenAPI 3.1.", {}))},
    }


def _schemas() -> dict[str, _Schema]:
    text, integer = {"type": "string"}, {"type": "integer"}
    shape = {"type": "array", "items": {"type": "integer", "minimum": 1}}
    values: _Schema = {"type": "array", "items": {}}
    tensor = _object(name=text, datatype=text, shape=shape, data=values, parameters={})
    asked = _object(name=text, parameters={"type": "object"})
    parameters = _object(priority=integer, timeout=integer, binary_data_output={"type": "boolean"})
    request = _object(
        id=text,
        parameters=parameters,
        inputs={"type": "array", "items": {**tensor, "required": ["name", "datatype", "shape"]}},
        outputs={"type": "array", "items": {**asked, "required": ["name"]}},
    )
    prediction = _object(label=text, index=integer, probability={"type": "number"})
    predictions = {"type": "array", "items": prediction}
    result = _object(name=text, predictions=predictions, error=text, reason=text)
    specs = {"type": "array", "items": _object(name=text, datatype=text, shape=values)}
    return {
        "Error": {**_object(error=text), "required": ["error"]},
        "ModelState": _object(name=text, version=text, state=text, reason=text),
        "Metadata": _object(
            name=text,
            versions={"type": "array", "items": text},
            platform=text,
            inputs=specs,
            outputs=specs,
        ),
        "InferRequest": {**request, "required": ["inputs"]},
        "InferResponse": _object(
            id=text,
            model_name=text,
            model_version=text,
            outputs={"type": "array", "items": tensor},
        ),
        "Classes": _object(model=text, version=text, results={"type": "array", "items": result}),
    }


def _operation(
    summary: str, reply: _Schema, *names: str, body: dict[str, _Schema] | None = None
) -> dict[str, Any]:
    error = {"description": "Why there is no answer.", "content": _content(_reference("Error"))}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": reply, "4XX": error, "5XX": error},
    }
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if body is not None:
        operation["requestBody"] = {
            "content": {kind: {"schema": schema} for kind, schema in body.items()}
        }
    return operation


def _reply(description: str, schema: _Schema) -> _Schema:
    return {"description": description, "content": _content(schema)}


def _content(schema: _Schema) -> dict[str, Any]:
    return {_JSON: {"schema": schema}}


def _query(name: str, schema: _Schema) -> _Schema:
    return {"name": name, "in": "query", "schema": schema}


def _reference(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: _Schema) -> _Schema:
    return {"type": "object", "properties": properties}
