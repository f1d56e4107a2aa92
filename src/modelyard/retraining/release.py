"""The workflow of a release: from the data to the traffic, in steps that each survive a kill.

Tables and models never travel in the workflow's state: steps hand digests of the object store to each other, and
whatever lies in the work folder is made again when its step is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import ModelyardError, NotFound, Unavailable
from modelyard.events import Actor
from modelyard.registry import Approval, FileRef, Registry, Version, VersionId
from modelyard.registry.contents import pin
from modelyard.retraining import captured
from modelyard.retraining.gates import judge, parse_gates, requested
from modelyard.retraining.model import ApprovalRule, Recipe, RollOut, Verdict, duration
from modelyard.retraining.project import PROFILE_FILE, unpack
from modelyard.retraining.releases import Releases
from modelyard.retraining.snapshot import window_start
from modelyard.retraining.split import unseen_by
from modelyard.retraining.trail import Trail
from modelyard.storage.objects import ObjectStore
from modelyard.workflows import Context, Definition, Goto, State, Step, Wait
from modelyard.workflows.model import Answer, StepFunction

if TYPE_CHECKING:
    import pyarrow as pa

WORKFLOW = "release"
ACTION = "deploy"
ROLL_OUT_WAIT = "roll_out"
LabelledRows = Callable[[Recipe, "datetime | None", datetime], "pa.Table | None"]
"""Returns an endpoint's labelled served rows from a time on (None: all) until another, in the source's columns."""

_ATTEMPTS = 4
_SNAPSHOT_TIMEOUT_S = 1_800.0
_VERDICTS: dict[str, Verdict] = {
    "finished": "promoted",
    "rolled_back": "rejected",
    "inconclusive": "inconclusive",
    "aborted": "refused",
}


@dataclass(frozen=True, slots=True)
class ReleaseParts:
    """What the steps of a release work with.

    Attributes:
        objects: Bytes by digest.
        registry: Models and versions.
        releases: Rows of releases.
        trail: The tracked run of each release.
        roll_out: Moves traffic.
        work: Folder for what a step needs while it runs.
        labelled_rows: Served rows to learn from besides the source's; None without monitoring.
    """

    objects: ObjectStore
    registry: Registry
    releases: Releases
    trail: Trail
    roll_out: RollOut
    work: Path
    labelled_rows: LabelledRows | None = None


def approval_wait(approval_id: str) -> str:
    """Return the name under which a release waits for an approval."""
    return f"approval-{approval_id}"


class ReleaseSteps:
    """The steps; each takes and returns the workflow's state.

    Args:
        parts: What they work with.
    """

    def __init__(self, parts: ReleaseParts) -> None:
        self._parts = parts

    def definition(self) -> Definition:
        """Return the workflow."""
        steps = {
            "snapshot": self.snapshot,
            "train": self.train,
            "register": self.register,
            "gate": self.gate,
            "approve": self.approve,
            "approved": self.approved,
            "roll_out": self.roll_out,
            "rolled_out": self.rolled_out,
            "conclude": self.conclude,
        }
        whole = tuple(
            Step(name, self._guarded(function), attempts=_ATTEMPTS, retry_on=(Unavailable,))
            for name, function in steps.items()
        )
        return Definition(WORKFLOW, whole, heavy=True)

    def snapshot(self, context: Context, state: State) -> State:
        """Freeze the data: rows to learn from and rows to judge by, by digest."""
        recipe, parts = _recipe(context), self._parts
        run = parts.trail.begin(context, recipe)
        parts.releases.note(context.run_id, run_id=run)
        window = None if recipe.retrain.window is None else duration(recipe.retrain.window)
        now = context.clock.now()
        with _Folder(parts.work, context) as folder:
            payload = {
                "source": recipe.source.to_json(),
                "root": recipe.root,
                "served": self._served(recipe, folder, since=None if window is None else now - window, until=now),
                "since": window_start(window, now),
                "output": str(folder),
            }
            found = context.child(
                "modelyard.retraining.snapshot:run",
                payload,
                timeout_s=_SNAPSHOT_TIMEOUT_S,
                memory_bytes=_memory(recipe),
                env=_environment(recipe),
            )
            files = {name: parts.objects.put(folder / f"{name}.parquet") for name in ("train", "holdout")}
        parts.releases.note(context.run_id, source_rows=found["source_rows"])
        return {**state, "data": {**found, **files}}

    def train(self, context: Context, state: State) -> State:
        """Call the user's function in a child, which also measures what it returns and compares it."""
        recipe, parts = _recipe(context), self._parts
        run = parts.trail.begin(context, recipe)
        champion = self._champion(recipe)
        number = None if champion is None else champion.number
        parts.releases.note(context.run_id, run_id=run, champion=number)
        with _Folder(parts.work, context) as folder:
            payload = self._training_payload(recipe, state["data"], folder, champion=champion, run=run)
            try:
                result = context.child(
                    "modelyard.retraining.training:run",
                    payload,
                    timeout_s=duration(recipe.timeout).total_seconds(),
                    memory_bytes=_memory(recipe),
                    cwd=folder / "code",
                    env=_environment(recipe),
                )
            finally:
                logged = captured.keep(folder / "captured", parts.objects)
                if logged is not None:
                    parts.trail.apply(run, logged, recipe)
            files = [asdict(file) for file in pin(folder / "model", parts.objects)]
        return {**state, "run": run, "champion": number, "result": result, "files": files}

    def register(self, context: Context, state: State) -> State:
        """End the run and register what came out as a version, once per run."""
        recipe, parts, run = _recipe(context), self._parts, str(state["run"])
        metrics = _metrics(state["result"])
        parts.trail.finish(context, run, recipe, data=state["data"], metrics=metrics)
        known = parts.registry.versions_of_run(run)
        version = known[0] if known else self._register(recipe, state, run, metrics=metrics)
        parts.releases.note(context.run_id, version=version.number)
        return {**state, "version": version.number}

    def gate(self, context: Context, state: State) -> Answer:
        """Decide every gate on what was measured."""
        recipe = _recipe(context)
        report = judge(parse_gates(recipe.gates), state["result"], has_champion=state["champion"] is not None)
        self._parts.releases.judged(context.run_id, report.to_json())
        state = {**state, "gates": report.reason}
        if report.passed:
            return state
        if report.outcome == "failed":
            return _end(
                state, "rejected", f"Version {state['version']} of {recipe.model} was rejected: {report.reason}."
            )
        sentence = f"Whether version {state['version']} of {recipe.model} is good enough is not clear: {report.reason}."
        return _end(state, "inconclusive", sentence)

    def approve(self, context: Context, state: State) -> Answer:
        """Ask everybody who must agree, and wait for the first who has not answered."""
        recipe, parts = _recipe(context), self._parts
        version = _version(recipe, state)
        asked = [self._ask(context, rule, version, state) for rule in recipe.approvals]
        waiting = next((approval for approval in asked if approval.status == "requested"), None)
        state = {**state, "approvals": [approval.id for approval in asked]}
        if waiting is None:
            return Goto("approved", state)
        parts.releases.move(context.run_id, "approval")
        return Wait(approval_wait(waiting.id), state, then="approved")

    def approved(self, context: Context, state: State) -> Answer:
        """Go on if all agree, end if one does not, and wait for those who have not answered."""
        recipe, parts = _recipe(context), self._parts
        asked = [parts.registry.get_approval(each) for each in state["approvals"]]
        for approval in asked:
            if approval.status not in {"requested", "granted"}:
                who = ", ".join(vote.person for vote in approval.votes if not vote.granted)
                said = f"{approval.label} {_ANSWERS[approval.status]}" + (f" ({who})" if who else "")
                return _end(state, "refused", f"Version {state['version']} of {recipe.model} was not approved: {said}.")
        if any(approval.status == "requested" for approval in asked):
            return Goto("approve", state)
        return Goto("roll_out", state)

    def roll_out(self, context: Context, state: State) -> Answer:
        """Begin to move traffic, unless production is no longer what the version was judged against."""
        recipe, parts = _recipe(context), self._parts
        champion = self._champion(recipe)
        number = None if champion is None else champion.number
        if number not in {state["champion"], state["version"]}:
            sentence = (
                f"Version {state['version']} of {recipe.model} was not released: production is now version {number}, "
                "which it was not compared with."
            )
            return _end(state, "inconclusive", sentence)
        shares = state["result"]["expected_shares"]
        rollout = parts.roll_out.start(
            recipe.endpoint,
            _version(recipe, state),
            control_version=state["champion"],
            expected_shares=None if shares is None else tuple(shares),
            settings=recipe.rollout,
            key=context.key,
            actor=recipe.author,
        )
        parts.releases.move(context.run_id, "rolling_out", rollout_id=rollout)
        return Wait(ROLL_OUT_WAIT, {**state, "rollout": rollout})

    def rolled_out(self, context: Context, state: State) -> Answer:
        """Read how the rollout ended."""
        recipe = _recipe(context)
        outcome = self._parts.roll_out.outcome(state["rollout"])
        if outcome is None:
            raise Unavailable(f"Rollout {state['rollout']} has not ended.")
        verdict = _VERDICTS[outcome.state]
        if verdict == "promoted":
            old = "" if state["champion"] is None else f" in place of version {state['champion']}"
            sentence = f"Version {state['version']} of {recipe.model} serves {recipe.endpoint}{old}: {outcome.reason}"
        else:
            sentence = f"Version {state['version']} of {recipe.model} did not keep its traffic: {outcome.reason}"
        evidence = {"rollout": {"state": outcome.state, "reason": outcome.reason, **outcome.evidence}}
        return _end(state, verdict, sentence, evidence=evidence)

    def conclude(self, context: Context, state: State) -> State:
        """Write the verdict."""
        self._parts.releases.conclude(
            context.run_id, state["verdict"], state["sentence"], evidence=state.get("evidence")
        )
        keys = ("run", "version", "champion", "verdict", "sentence")
        return {key: state[key] for key in keys}

    def _guarded(self, function: StepFunction) -> StepFunction:
        """Make a step that says in its release and run why it failed; production is as it was."""

        def step(context: Context, state: State) -> Answer:
            try:
                self._parts.releases.begin(context.run_id, _recipe(context), state)
                return function(context, state)
            except Unavailable:
                raise  # may be tried again; if it is not, `Retraining.tick` finds the dead workflow
            except Exception as error:
                text = error.message if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
                self._parts.trail.fail(context.run_id, text, at=context.clock.now(), actor=_recipe(context).author)
                sentence = failure_sentence(_recipe(context).model, context.step, text)
                self._parts.releases.conclude(context.run_id, "failed", sentence)
                raise

        return step

    def _training_payload(
        self, recipe: Recipe, data: State, folder: Path, *, champion: Version | None, run: str
    ) -> dict[str, Any]:
        parts = self._parts
        unpack(parts.objects.get(recipe.code_digest), folder / "code")
        for name in ("train", "holdout"):
            parts.objects.copy_to(data[name], folder / f"{name}.parquet")
        if champion is not None:
            parts.registry.materialize(champion, folder / "champion")
        return {
            "code": str(folder / "code"),
            "function": recipe.function,
            "train": str(folder / "train.parquet"),
            "holdout": str(folder / "holdout.parquet"),
            "label": recipe.source.label,
            "features": data["features"],
            "output": str(folder / "model"),
            "task": recipe.task,
            "champion": None if champion is None else str(folder / "champion"),
            "comparable_from": None if champion is None else unseen_by(champion.lineage, data["split"]),
            "comparisons": requested(parse_gates(recipe.gates)),
            "seed": recipe.seed,
            "run": run,
            "captured": str(folder / "captured"),
        }

    def _served(self, recipe: Recipe, folder: Path, *, since: datetime | None, until: datetime) -> str | None:
        if self._parts.labelled_rows is None:
            return None
        rows = self._parts.labelled_rows(recipe, since, until)
        if rows is None or rows.num_rows == 0:
            return None
        import pyarrow.parquet as pq

        pq.write_table(rows, folder / "served.parquet")
        return str(folder / "served.parquet")

    def _register(self, recipe: Recipe, state: State, run: str, *, metrics: dict[str, float]) -> Version:
        data, files = state["data"], tuple(FileRef(**file) for file in state["files"])
        profile = next((file.digest for file in files if file.path == PROFILE_FILE), None)
        lineage = {
            "data": data["content"],
            "code": recipe.code_digest,
            "environment": state["result"]["environment"],
            "function": recipe.function,
            "source": recipe.source.to_json(),
            "seed": recipe.seed,
            "split": data["split"],
            "trained_until": data["trained_until"],
            "rows": state["result"]["rows"],
            "snapshot": {name: data[name] for name in ("train", "holdout")},
        }
        return self._parts.registry.register_files(
            recipe.model,
            files,
            actor=recipe.author,
            project=recipe.project,
            run_id=run,
            lineage=lineage,
            metrics=metrics,
            profile_digest=profile,
        )

    def _ask(self, context: Context, rule: ApprovalRule, version: VersionId, state: State) -> Approval:
        registry = self._parts.registry
        now = context.clock.now()
        for each in registry.approvals_of(version):
            own = each.evidence.get("release") == context.run_id
            same = (each.label, each.action) == (rule.role, ACTION)
            if same and (own or each.status == "requested" or each.counts(now)):
                return each
        recipe = _recipe(context)
        release = self._parts.releases.get(context.run_id)
        return registry.request_approval(
            version,
            label=rule.role,
            actor=Actor(context.input.get("requested_by") or recipe.declared_by),
            action=ACTION,
            quorum=rule.count,
            evidence={
                "release": context.run_id,
                "gates": (release.evidence or {}).get("gates"),
                "data": state["data"]["content"],
                "champion": state["champion"],
            },
            note=f"Version {version.number} of {version.model}, {state['gates']}.",
            expires_after=None if rule.timeout is None else duration(rule.timeout),
            on_timeout=rule.on_timeout,
        )

    def _champion(self, recipe: Recipe) -> Version | None:
        try:
            return self._parts.registry.resolve(f"{recipe.model}/production", project=recipe.project)
        except NotFound:
            return None


_ANSWERS = {"refused": "said no", "expired": "did not answer in time", "revoked": "took the approval back"}


class _Folder:
    """A step's work folder: empty at its start, gone at its end."""

    def __init__(self, work: Path, context: Context) -> None:
        name = hashlib.sha256(context.key.encode()).hexdigest()[:32]
        self._path = work.resolve() / name

    def __enter__(self) -> Path:
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(parents=True)
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def failure_sentence(model: str, step: str, error: str) -> str:
    """Say in one sentence that a release broke, and that production is as it was."""
    return f"Retraining {model} failed at '{step}': {error.partition(chr(10))[0]} Production was not touched."


def _recipe(context: Context) -> Recipe:
    return Recipe.from_json(context.input["recipe"])


def _version(recipe: Recipe, state: State) -> VersionId:
    return VersionId(recipe.model, int(state["version"]), recipe.project)


def _end(state: State, verdict: Verdict, sentence: str, *, evidence: dict[str, Any] | None = None) -> Goto:
    return Goto("conclude", {**state, "verdict": verdict, "sentence": sentence, "evidence": evidence})


def _metrics(result: State) -> dict[str, float]:
    found = {name: each["value"] for name, each in result["metrics"].items() if each["value"] is not None}
    latency = {f"latency_{name}_ms": result["latency"][f"{name}_ms"] for name in ("p50", "p95", "p99")}
    return {**found, **{name: value for name, value in latency.items() if value is not None}}


def _memory(recipe: Recipe) -> int:
    if recipe.memory_bytes is not None:
        return recipe.memory_bytes
    # A fifth is left for the server and the workers, which must go on answering.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 4 // 5


def _environment(recipe: Recipe) -> dict[str, str]:
    # Secrets and settings of the server are nothing for training code.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
    return {**kept, "PYTHONHASHSEED": str(recipe.seed)}
