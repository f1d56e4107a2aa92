"""Models and versions over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from modelyard.errors import NotFound
from modelyard.registry import FileRef, Registry, Stage, StageRequest, Version, VersionId
from modelyard.server.access import Routes, needs
from modelyard.server.routes.artifacts import download
from modelyard.server.routes.asking import By, Cursor, Limit, plain

_NEWEST = 10


class NewModel(BaseModel):
    """A model to create."""

    model_config = ConfigDict(extra="forbid")
    name: str
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class NewFile(BaseModel):
    """A file of a version, whose bytes are in the object store already."""

    model_config = ConfigDict(extra="forbid")
    path: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class NewVersion(BaseModel):
    """A version to register."""

    model_config = ConfigDict(extra="forbid")
    files: list[NewFile]
    run_id: str | None = None
    lineage: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] | None = None
    profile_digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    description: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class NewStage(BaseModel):
    """A stage to move a version to."""

    model_config = ConfigDict(extra="forbid")
    stage: Stage
    reason: str = ""


class NewAlias(BaseModel):
    """The version that an alias names from now on."""

    model_config = ConfigDict(extra="forbid")
    version: int = Field(ge=1, lt=2**31)


Number = Annotated[int, Query(ge=1, lt=2**31)]


def model_routes(registry: Registry) -> Routes:
    """Build the routes of models and their aliases."""
    routes = Routes(tags=["models"])

    @routes.get("/models", openapi_extra=needs("read"))
    def list_models(caller: By, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
        """List models by name."""
        found = registry.list_models(project=caller.project, after=cursor or "", limit=limit)
        return {"models": plain(found), "cursor": found[-1].name if len(found) == limit else None}

    @routes.post("/models", status_code=201, openapi_extra=needs("model:write"))
    def create_model(new: NewModel, caller: By) -> dict[str, Any]:
        """Create a model without versions."""
        made: dict[str, Any] = plain(
            registry.create_model(
                new.name,
                actor=caller.actor,
                project=caller.project,
                description=new.description,
                owner=new.owner,
                tags=new.tags,
            )
        )
        return made

    @routes.get("/models/{model}", openapi_extra=needs("read"))
    def get_model(model: str, caller: By) -> dict[str, Any]:
        """Return a model with its aliases, its promotion rules and its newest versions."""
        found = registry.get_model(model, project=caller.project)
        newest = registry.list_versions(model, project=caller.project, limit=_NEWEST)
        live = registry.list_versions(model, project=caller.project, stage="production", limit=1)
        return {
            **plain(found),
            "aliases": registry.aliases(model, project=caller.project),
            "promotion_rules": plain(registry.promotion_rules(model, project=caller.project)),
            "production": live[0].number if live else None,
            "versions": [version_json(each) for each in newest],
        }

    @routes.put("/models/{model}/aliases/{alias}", openapi_extra=needs("model:write"))
    def set_alias(model: str, alias: str, new: NewAlias, caller: By) -> dict[str, Any]:
        """Let an alias name a version from now on."""
        registry.set_alias(VersionId(model, new.version, caller.project), alias, actor=caller.actor)
        return {"aliases": registry.aliases(model, project=caller.project)}

    @routes.delete("/models/{model}/aliases/{alias}", openapi_extra=needs("model:write"))
    def remove_alias(model: str, alias: str, caller: By) -> dict[str, Any]:
        """Let an alias name nothing any more."""
        registry.remove_alias(model, alias, actor=caller.actor, project=caller.project)
        return {"aliases": registry.aliases(model, project=caller.project)}

    return routes


def version_routes(registry: Registry) -> Routes:
    """Build the routes of versions."""
    routes = Routes(tags=["versions"])

    @routes.get("/resolve", openapi_extra=needs("read"))
    def resolve(reference: Annotated[str, Query(max_length=600)], caller: By) -> dict[str, Any]:
        """Return the version that `name@alias`, `name/3`, `name/latest` or `name/production` names."""
        return version_json(registry.resolve(reference, project=caller.project))

    @routes.get("/models/{model}/versions", openapi_extra=needs("read"))
    def list_versions(
        model: str, caller: By, stage: Stage | None = None, limit: Limit = 100, cursor: Number | None = None
    ) -> dict[str, Any]:
        """List versions of a model, newest first, without their files."""
        registry.get_model(model, project=caller.project)
        found = registry.list_versions(model, project=caller.project, stage=stage, before=cursor, limit=limit)
        return {
            "versions": [version_json(each) for each in found],
            "cursor": found[-1].number if len(found) == limit else None,
        }

    @routes.post("/models/{model}/versions", status_code=201, openapi_extra=needs("model:write"))
    def register_version(model: str, new: NewVersion, caller: By) -> dict[str, Any]:
        """Register files that are in the object store as the next version, creating the model if needed."""
        version = registry.register_files(
            model,
            [FileRef(file.path, file.digest, 0) for file in new.files],
            actor=caller.actor,
            project=caller.project,
            run_id=new.run_id,
            lineage=new.lineage,
            metrics=new.metrics,
            profile_digest=new.profile_digest,
            description=new.description,
            tags=new.tags,
        )
        return version_json(version)

    @routes.get("/models/{model}/versions/{number}", openapi_extra=needs("read"))
    def get_version(model: str, number: int, caller: By) -> dict[str, Any]:
        """Return a version with its files."""
        return version_json(registry.get_version(VersionId(model, number, caller.project)))

    _add_stages(routes, registry)
    _add_files(routes, registry)
    return routes


def _add_stages(routes: Routes, registry: Registry) -> None:
    @routes.post("/models/{model}/versions/{number}/stage", openapi_extra=needs("deployment:write"))
    def move_stage(model: str, number: int, new: NewStage, caller: By) -> dict[str, Any]:
        """Move a version to a stage; while an endpoint serves the model, ask for the rollout that moves it."""
        version = VersionId(model, number, caller.project)
        moved = registry.move_stage(version, new.stage, actor=caller.actor, reason=new.reason)
        if isinstance(moved, StageRequest):
            return {"requested": True, "endpoint": moved.endpoint, "stage": moved.stage}
        return {"requested": False, **version_json(moved)}

    @routes.get("/models/{model}/versions/{number}/stages", openapi_extra=needs("read"))
    def stage_history(model: str, number: int, caller: By) -> dict[str, Any]:
        """Return the moves of a version, newest first: who, when, why and by which rollout."""
        return {"stages": plain(registry.stage_history(VersionId(model, number, caller.project)))}

    @routes.get("/lineage", openapi_extra=needs("read"))
    def lineage(
        caller: By,
        subject: Annotated[str, Query(max_length=600, examples=["version:churn/3"])],
        direction: Literal["up", "down", "both"] = "both",
        limit: Limit = 1000,
    ) -> dict[str, Any]:
        """Return what an object came from (`up`), what became of it (`down`), or both."""
        found: dict[str, Any] = plain(registry.lineage(subject, direction, project=caller.project, limit=limit))
        return found


def _add_files(routes: Routes, registry: Registry) -> None:
    @routes.get(
        "/models/{model}/versions/{number}/files/{path:path}",
        openapi_extra=needs("read"),
        response_class=StreamingResponse,
    )
    def get_file(model: str, number: int, path: str, caller: By) -> Response:
        """Return a file of a version."""
        version = registry.get_version(VersionId(model, number, caller.project))
        found = next((file for file in version.files if file.path == path), None)
        if found is None:
            raise NotFound(f"file of {model}/{number}", path, known=[file.path for file in version.files])
        return download(registry.objects, found.digest, name=path, size_bytes=found.size_bytes)


def version_json(version: Version) -> dict[str, Any]:
    """Return a version as the API shows it."""
    return {**plain(version), "reference": f"{version.model}/{version.number}"}
