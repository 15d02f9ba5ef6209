"""The reasons of a tick as Dagster's UI shows them: an evaluation of the automation condition for each asset."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import dagster as dg

from dagster_sao.core.decision.decide import Action, Reason
from dagster_sao.orchestration.automation.choices import Choice
from dagster_sao.orchestration.private.automation import AutomationConditionEvaluation, evaluation_node
from dagster_sao.orchestration.project.loaded import LoadedProject


class ShownReasons:
    """The reasons that the ticks of this process have stored, so that each is stored once."""

    def __init__(self) -> None:
        """Know none yet."""
        self._reasons: dict[str, str] = {}

    def changed(self, choices: Mapping[str, Choice], loaded: LoadedProject) -> list[AutomationConditionEvaluation[Any]]:
        """Return the evaluations to store: of the requested nodes, and of nodes with another reason than before.

        The first tick of a process knows no reasons. It leaves out reused nodes, since thousands of rows take seconds.
        """
        is_first = not self._reasons
        evaluations = []
        for uid, choice in choices.items():
            # Ages in a message change every second without the reason being another.
            signature = f"{choice.decision.reason.value} {choice.decision.parents} {choice.waits}"
            is_news = self._reasons.get(uid) != signature and not (is_first and choice.decision.action is Action.REUSE)
            self._reasons[uid] = signature
            if choice.requested or is_news:
                evaluations.append(_evaluation(loaded.keys.by_unique_id[uid], choice, loaded))
        return evaluations


def _evaluation(key: dg.AssetKey, choice: Choice, loaded: LoadedProject) -> AutomationConditionEvaluation[Any]:
    timestamp = time.time()
    value = choice.requested
    path = key.to_user_string()
    reasons = [choice.decision.message, choice.waits, *_parent_lines(choice, loaded)]
    children = [
        evaluation_node(key, text, unique_id=f"{path}-{index}", value=value, timestamp=timestamp)
        for index, text in enumerate(reason for reason in reasons if reason)
    ]
    return evaluation_node(key, "state_aware", unique_id=path, value=value, timestamp=timestamp, children=children)


def _parent_lines(choice: Choice, loaded: LoadedProject) -> list[str]:
    if choice.decision.reason is not Reason.NEW_DATA:
        return []
    return [f"{loaded.project.graph.label(parent)} has changed" for parent in choice.decision.parents]
