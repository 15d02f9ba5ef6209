"""The configuration that dbt makes of a project, a profile and a target, and the flags of dbt's functions."""

from __future__ import annotations

import threading
from argparse import Namespace
from collections.abc import Mapping
from contextvars import copy_context
from pathlib import Path
from typing import Any

from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.dbt_private import duckdb
from dagster_sao.warehouse.dbt_private.environment import environment_of_dbt, own_environment

# Building a configuration reads dbt's process-wide flags.
_FLAGS_LOCK = threading.RLock()


def load_config(
    project_dir: Path,
    profiles_dir: Path,
    profile: str | None,
    target: str | None,
    variables: Mapping[str, Any],
) -> Any:
    """Return dbt's RuntimeConfig of a project and target, without a parse and without changing directory.

    Raises whatever dbt raises for a broken project, profile or target.
    """
    # dbt keeps the environment in a context variable; a copied context leaves the caller's as it was.
    return copy_context().run(_load_config, project_dir, profiles_dir, profile, target, dict(variables))


def _load_config(
    project_dir: Path,
    profiles_dir: Path,
    profile: str | None,
    target: str | None,
    variables: dict[str, Any],
) -> Any:
    from dbt.config.profile import Profile, read_profile
    from dbt.config.project import load_raw_project
    from dbt.config.renderer import ProfileRenderer
    from dbt.config.runtime import RuntimeConfig, load_project
    from dbt_common.context import set_invocation_context

    set_invocation_context(dict(environment_of_dbt(project_dir)))
    with _FLAGS_LOCK:
        flags = _ensure_flags(project_dir, profiles_dir)
        renderer = ProfileRenderer(variables)
        named = renderer.render_value(load_raw_project(str(project_dir)).get("profile"))
        chosen = Profile.from_raw_profiles(
            raw_profiles=read_profile(str(profiles_dir)),
            profile_name=Profile.pick_profile_name(profile, named),
            renderer=renderer,
            target_override=target,
        )
        # dbt checks its version at the next build; a look at the data need not.
        project = load_project(str(project_dir), False, chosen, variables)  # noqa: FBT003  # positional in dbt
        args = Namespace(**vars(flags))
        args.vars, args.VARS = variables, variables
        args.profile, args.target = chosen.profile_name, chosen.target_name
        return RuntimeConfig.from_parts(project, chosen, args)


def ensure_flags(project_dir: Path, profiles_dir: Path) -> None:
    """Give dbt's functions the process-wide flags that they read, where no invocation has given them."""
    with _FLAGS_LOCK:
        _ensure_flags(project_dir, profiles_dir)


def _ensure_flags(project_dir: Path, profiles_dir: Path) -> Any:
    """Return dbt's global flags. Sets them only where no invocation has, since one may be running in another thread."""
    import dbt.flags

    # dagster-dbt sets only some flags to select nodes, and leaves them, as a Namespace. The flags of an invocation are not one.
    flags = dbt.flags.get_flags()
    if isinstance(flags, Namespace) or getattr(flags, "PROFILES_DIR", None) is None:
        paths = Namespace(profiles_dir=str(profiles_dir), project_dir=str(project_dir))
        with own_environment():
            dbt.flags.set_from_args(paths, None)
    return dbt.flags.get_flags()


def place_of(credentials: Any, project_dir: Path) -> str:
    """Return where the relations of a target are: the path of a database file, else account or host and port."""
    file = duckdb.place_of(credentials, project_dir) if traits_of(credentials.type).is_embedded else None
    return file or f"{credentials.unique_field} {getattr(credentials, 'port', None) or ''}".strip()
