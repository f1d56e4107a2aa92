"""Durable work: anything that outlives a request is a workflow whose finished steps survive ``kill -9``.

Retraining, rollout, approval waits and reports are definitions of named steps. Nothing that waits for a
person, a bake or a date holds a thread or a queue slot: the wait is a row, and its signal or deadline starts
the next segment. DBOS Transact is the engine, behind ``Engine``; heavy steps run in supervised children.
"""

from modelyard.workflows.children import Stopped, run_child
from modelyard.workflows.context import Context
from modelyard.workflows.engine import Engine
from modelyard.workflows.errors import ChildError, ChildFailed, ChildKilled, ChildTimedOut, StillRunning
from modelyard.workflows.model import (
    Definition,
    Finish,
    Goto,
    OpenWait,
    Outcome,
    Page,
    Run,
    Start,
    State,
    Status,
    Step,
    StepRun,
    StepStatus,
    Ticked,
    Wait,
    Wake,
)

__all__ = [
    "ChildError",
    "ChildFailed",
    "ChildKilled",
    "ChildTimedOut",
    "Context",
    "Definition",
    "Engine",
    "Finish",
    "Goto",
    "OpenWait",
    "Outcome",
    "Page",
    "Run",
    "Start",
    "State",
    "Status",
    "StillRunning",
    "Step",
    "StepRun",
    "StepStatus",
    "Stopped",
    "Ticked",
    "Wait",
    "Wake",
    "run_child",
]
