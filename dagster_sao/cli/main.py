"""The `dagster-sao` command itself. It imports neither Dagster nor dbt: that takes seconds, so only the commands do."""

from __future__ import annotations

import click

from dagster_sao.collector import paused_collector

_SUMMARIES = {
    "plan": "Show what a build with the same options would do now, with the reason for each model and test.",
    "build": "Build and test everything that is due, as a Dagster run in this process, and report the rest as reused.",
    "explain": "Show why the node or test NAME was last built or run, and the decision about it now.",
    "state": "Show the recorded state of the node or test NAME, or of every node.",
    "reset": "Forget the state of a selection, so that each of its nodes counts as not built before.",
    "tests": "Show for each data test what a build would do now, and whether it would need a query of its own after a rebuild.",
    "sources": "Show the sources: their tokens, the age of their data, and how each is probed.",
    "notify": "Record that each SOURCE was loaded, so that the next tick or job builds what reads it.",
    "doctor": "Find settings that don't do what they appear to.",
}
"""The first sentence of each command's help."""


class _LazyCommands(click.Group):
    """Commands that are imported when one of them is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        del ctx
        return sorted(_SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None where there is none of that name."""
        if cmd_name not in _SUMMARIES:
            return None
        with paused_collector():
            from dagster_sao.cli.commands import commands

        return commands.get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of the commands."""
        listed = {name: click.Command(name, help=summary) for name, summary in _SUMMARIES.items()}
        click.Group(commands=listed).format_commands(ctx, formatter)


@click.group(cls=_LazyCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="dagster-sao")
def main() -> None:
    """State-aware orchestration for dbt on Dagster: build only what would come out different, and say why.

    The state is in the Dagster instance in DAGSTER_HOME, shared with its sensors, jobs and UI. The models come from Dagster
    definitions (-f, -m), or from the dbt project in the current folder.

    Exit codes: 0 success, 1 a node or test failed, 2 wrong usage or an unexpected error.
    """
