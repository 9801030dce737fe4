"""`repo ls | rm | rollback | mount`: the services in the model repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scalellm_trt.triton.repository_manifest import ServiceRecord

RepositoryOption = Annotated[Path, typer.Option("--repository", help="The model repository.")]
BuildsOption = Annotated[Path, typer.Option("--builds", help="Where artefacts, cache and logs are kept.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
NameArgument = Annotated[str, typer.Argument(help="The service's name, as `repo ls` shows it.")]

DEFAULT_REPOSITORY = Path("triton_repo")
DEFAULT_BUILDS = Path("builds")
SHORT_DIGEST_LENGTH = 12


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="List, remove and roll back the services in the repository.", no_args_is_help=True)
    group.command("ls")(ls)
    group.command("rm")(rm)
    group.command("rollback")(rollback)
    group.command("mount")(mount)
    app.add_typer(group, name="repo")


def ls(repository: RepositoryOption = DEFAULT_REPOSITORY, as_json: JsonOption = False) -> None:
    """List the services, what they were built from, and what is wrong with the repository."""
    from scalellm_trt.triton import repository as repositories
    from scalellm_trt.triton import repository_check

    records = repositories.list_services(repository)
    problems = repository_check.problems(repository) if repository.is_dir() else []
    if as_json:
        body = {"repository": str(repository), "services": [_as_json(record) for record in records]}
        typer.echo(json.dumps({**body, "problems": problems}))
        return
    if not records:
        typer.echo(f"{repository}: no services. Build one: scalellm-trt build recipes/cpu.yaml")
    for record in records:
        typer.echo(_as_text(record))
    for problem in problems:
        typer.echo(f"problem: {problem}")


def rm(
    name: NameArgument,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    builds: BuildsOption = DEFAULT_BUILDS,
    as_json: JsonOption = False,
) -> None:
    """Take a service out of the repository; what `builds/` holds stays."""
    from scalellm_trt.triton import repository as repositories

    record = repositories.remove(name, root=repository, state_dir=_state_dir(repository, builds))
    if as_json:
        typer.echo(json.dumps({"removed": _as_json(record)}))
        return
    typer.echo(f"removed {name} ({', '.join(record.current.models)}). Back: scalellm-trt build {record.current.recipe}")


def rollback(
    name: NameArgument,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    builds: BuildsOption = DEFAULT_BUILDS,
    as_json: JsonOption = False,
) -> None:
    """Return a service to its previous version; doing it again undoes it. A running server keeps what it loaded."""
    from scalellm_trt.triton import repository as repositories

    record = repositories.rollback(name, root=repository, state_dir=_state_dir(repository, builds))
    if as_json:
        typer.echo(json.dumps({"service": _as_json(record)}))
        return
    typer.echo(f"{name} is again what was built at {record.current.created}. Start tritonserver anew to serve it.")


def mount(
    path: Annotated[Path, typer.Argument(help="Where the server will see this repository; an absolute path.")],
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    builds: BuildsOption = DEFAULT_BUILDS,
    as_json: JsonOption = False,
) -> None:
    """Write engine paths for a tritonserver that sees the repository elsewhere; `serve` does this by itself."""
    from scalellm_trt.errors import Problem, RecipeError
    from scalellm_trt.triton import repository as repositories

    if not path.is_absolute():
        raise RecipeError([Problem(key="PATH", message=f"{path} is relative", hint="Give the path inside the server.")])
    changed = repositories.resolve_paths(repository, _state_dir(repository, builds), seen_as=path)
    if as_json:
        typer.echo(json.dumps({"path": str(path), "changed": list(changed)}))
        return
    what = ", ".join(changed) or "nothing to change"
    typer.echo(f"{what}: engines are named below {path}. A `serve` here would name them below {repository.resolve()}.")


def _state_dir(repository: Path, builds: Path) -> Path:
    from scalellm_trt.triton import repository as repositories

    return repositories.state_dir_for(repository, builds / ".cache" / "repository")


def _as_text(record: ServiceRecord) -> str:
    current = record.current
    lines = [
        f"{record.name}: {', '.join(current.models)}",
        f"  recipe {current.recipe}, engine {current.engine_digest[:SHORT_DIGEST_LENGTH]}, published {current.created}",
    ]
    if record.previous is not None:
        lines.append(f"  rollback: to what was published {record.previous.created}")
    return "\n".join(lines)


def _as_json(record: ServiceRecord) -> dict[str, object]:
    current, previous = record.current, record.previous
    return {
        "name": record.name,
        "recipe": current.recipe,
        "engine_digest": current.engine_digest,
        "created": current.created,
        "models": {
            name: {"backend": model.backend, "inputs": list(model.inputs), "outputs": list(model.outputs)}
            for name, model in current.models.items()
        },
        "previous": None
        if previous is None
        else {"created": previous.created, "engine_digest": previous.engine_digest},
    }
