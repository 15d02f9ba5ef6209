"""The rules that are broken on purpose, each by a patch with its name."""

from __future__ import annotations

MUTATIONS = {}


def mutation(function):
    """Register a function that breaks a rule."""
    MUTATIONS[function.__name__.replace("_", " ")] = function
    return function


def replacing(name, module, attribute, value):
    """Register a rule that becomes another one."""
    MUTATIONS[name] = lambda patch: patch.setattr(module, attribute, value)


def always(answer):
    """Return a rule that gives the same answer for everything."""
    return lambda *_, **__: answer
