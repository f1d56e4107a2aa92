"""The engine keeps its promises on both databases."""

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from modelyard.errors import Conflict, Invalid, NotFound, Unavailable
from modelyard.events import SYSTEM, Actor, EventLog, EventTimeClock
from modelyard.workflows import (
    Definition,
    Engine,
    Finish,
    Goto,
    Start,
    Status,
    Step,
    StepStatus,
    StillRunning,
    Wait,
)
from modelyard.workflows.driver import SCHEMA
from modelyard.workflows.engine import beside

AT = datetime(2013, 4, 1, 12, tzinfo=UTC)
ADA = Actor("ada")
SLEEPER = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"


class Yard:
    """Makes engines over one database, and closes them."""

    def __init__(self, database, folder, url):
        self.database = database
        self.url = url
        self.events = EventLog(database)
        self.clock = EventTimeClock(AT)
        self.folder = folder
        self.engines = []

    def engine(self, *definitions, executor="w1", launch=True, **options):
        settings = {"poll_s": 0.05, "logs": self.folder / "logs", "url": self.url, **options}
        engine = Engine(self.database, self.events, clock=self.clock, executor_id=executor, **settings)
        for definition in definitions:
            engine.register(definition)
        if launch:
            engine.launch()
        self.engines.append(engine)
        return engine

    def kinds(self, run_id):
        return [row.event.kind for row in self.events.read(subject=f"workflow:{run_id}")]


@pytest.fixture(scope="module")
def shared_url(postgres_server):
    """The engine's PostgreSQL database of all tests here: to migrate it takes longer than most of them."""
    admin = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE engine_of_contract_tests"))
    yield sa.make_url(postgres_server).set(database="engine_of_contract_tests").render_as_string(False)
    with admin.connect() as connection:
        connection.execute(sa.text("DROP DATABASE engine_of_contract_tests WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def yard(database, tmp_path, request):
    url = None if database.is_sqlite else request.getfixturevalue("shared_url")
    yard = Yard(database, tmp_path, url)
    yield yard
    for engine in yard.engines:
        engine.close()


def until(condition, *, seconds=20.0):
    """Wait for a condition; fail when it does not come true."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        pause.wait(0.02)


def add(key, value):
    return lambda context, state: {**state, key: value}


def ask(context, state):
    return Wait("approval", state)


def answered(context, state):
    return {**state, "answer": context.wake.payload, "by": context.wake.by, "late": context.wake.timed_out}


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_steps_run_in_order_and_hand_their_state_on(yard):
    engine = yard.engine(Definition("demo", (Step("one", add("one", 1)), Step("two", add("two", 2)))))
    run_id = engine.start("demo", {"zero": 0}, actor=ADA, subject="model:churn")
    outcome = engine.wait_for(run_id, 20)
    assert (outcome.status, outcome.output) == (Status.SUCCEEDED, {"zero": 0, "one": 1, "two": 2})
    run = engine.get(run_id)
    assert [(step.name, step.status, step.starts) for step in run.steps] == [
        ("one", StepStatus.SUCCEEDED, 1),
        ("two", StepStatus.SUCCEEDED, 1),
    ]
    assert run.steps[0].output == {"zero": 0, "one": 1}
    assert run.steps[0].started_at <= run.steps[0].ended_at <= run.steps[1].started_at
    assert (run.started_by, run.started_at, run.ended_at) == ("ada", AT, AT)
    assert yard.kinds(run_id) == ["workflow.started", "workflow.finished"]


def test_one_id_is_one_run_and_refuses_another_input(yard):
    count = []
    engine = yard.engine(Definition("demo", (Step("one", lambda c, s: count.append(1) or s),)))
    for _ in range(2):
        assert engine.start("demo", {"window": 1}, actor=ADA, workflow_id="churn/2013-04") == "churn/2013-04"
        engine.wait_for("churn/2013-04", 20)
    assert count == [1]
    with pytest.raises(Conflict, match="another definition, project or input"):
        engine.start("demo", {"window": 2}, actor=ADA, workflow_id="churn/2013-04")
    with pytest.raises(Conflict):
        engine.start("demo", {"window": 1}, actor=ADA, workflow_id="churn/2013-04", project="other")
    with pytest.raises(NotFound, match="Did you mean 'demo'"):
        engine.start("demmo", actor=ADA)


def test_wait_holds_no_slot_and_goes_on_with_its_signal(yard):
    steps = (Step("ask", ask), Step("use", answered))
    engine = yard.engine(Definition("retrain", steps, heavy=True), heavy_at_once=1)
    first = engine.start("retrain", actor=ADA, queue_key="churn")
    assert engine.wait_for(first, 20, or_waiting=True).status == Status.WAITING
    assert engine.get(first).wait.name == "approval"
    second = engine.start("retrain", actor=ADA, queue_key="churn")
    assert engine.wait_for(second, 20, or_waiting=True).status == Status.WAITING
    assert engine.signal(first, "approval", {"yes": True}, actor=Actor("eve"))
    outcome = engine.wait_for(first, 20)
    assert outcome.output == {"answer": {"yes": True}, "by": "eve", "late": False}
    assert engine.get(second).status == Status.WAITING
    assert yard.kinds(first) == [
        "workflow.started",
        "workflow.waiting",
        "workflow.signalled",
        "workflow.finished",
    ]
    with pytest.raises(Conflict, match="succeeded"):
        engine.signal(first, "approval", actor=ADA)


@pytest.mark.parametrize("on_timeout", ["continue", "fail"])
def test_deadline_comes_by_the_injected_clock(yard, on_timeout):
    def bake(context, state):
        return Wait("bake", state, context.clock.now() + timedelta(days=14), on_timeout)

    engine = yard.engine(Definition("rollout", (Step("bake", bake), Step("use", answered))))
    run_id = engine.start("rollout", actor=ADA)
    engine.wait_for(run_id, 20, or_waiting=True)
    yard.clock.advance(AT + timedelta(days=14) - timedelta(microseconds=1))
    assert engine.tick().expired == ()
    yard.clock.advance(AT + timedelta(days=14))
    assert engine.tick().expired == (run_id,)
    outcome = engine.wait_for(run_id, 20)
    if on_timeout == "continue":
        assert outcome.output == {"answer": None, "by": None, "late": True}
        assert "workflow.wait_expired" in yard.kinds(run_id)
    else:
        assert outcome.status == Status.FAILED
        assert "'bake'" in outcome.error
        assert [step.status for step in engine.get(run_id).steps] == ["succeeded", "cancelled"]
    assert engine.tick().expired == ()


def test_signal_before_its_wait_is_kept_and_a_second_answer_changes_nothing(yard):
    go = threading.Event()
    steps = (
        Step("work", lambda c, s: {**s, "went": go.wait(20)}),
        Step("ask", ask),
        Step("use", answered),
        Step("again", lambda c, s: Wait("other", s)),
        Step("end", lambda c, s: s),
    )
    engine = yard.engine(Definition("demo", steps))
    run_id = engine.start("demo", actor=ADA)
    assert engine.signal(run_id, "approval", 1, actor=ADA)
    assert not engine.signal(run_id, "approval", 2, actor=ADA)
    go.set()
    assert engine.wait_for(run_id, 20, or_waiting=True).status == Status.WAITING
    assert engine.get(run_id).wait.name == "other"
    assert not engine.signal(run_id, "approval", 3, actor=ADA)
    assert engine.signal(run_id, "other", actor=ADA)
    assert engine.wait_for(run_id, 20).output["answer"] == 1


def test_start_and_signal_belong_to_the_callers_transaction(yard):
    engine = yard.engine(Definition("demo", (Step("ask", ask), Step("use", answered))))
    with pytest.raises(RuntimeError), yard.database.transaction() as tx:
        lost = engine.start_in(tx, Start("demo"), actor=ADA)
        raise RuntimeError
    with pytest.raises(NotFound):
        engine.get(lost)
    with yard.database.transaction() as tx:
        run_id = engine.start_in(tx, Start("demo"), actor=ADA)
    engine.wait_for(run_id, 20, or_waiting=True)
    with pytest.raises(RuntimeError), yard.database.transaction() as tx:
        engine.signal_in(tx, run_id, "approval", 1, actor=ADA)
        raise RuntimeError
    assert engine.get(run_id).status == Status.WAITING
    with yard.database.transaction() as tx:
        engine.signal_in(tx, run_id, "approval", 2, actor=ADA)
    assert engine.wait_for(run_id, 20).output["answer"] == 2


@pytest.mark.parametrize("from_elsewhere", [False, True])
def test_cancel_kills_the_child(yard, tmp_path, from_elsewhere):
    (tmp_path / "sleeper.py").write_text(f"def run(payload):\n    exec({SLEEPER!r})\n")

    def train(context, state):
        return context.child("sleeper:run", None, timeout_s=300, cwd=tmp_path, grace_s=1.0)

    definition = Definition("retrain", (Step("train", train), Step("after", add("after", 1))))
    engine = yard.engine(definition)
    run_id = engine.start("retrain", actor=ADA)
    until((tmp_path / "pid").exists)
    until(lambda: (tmp_path / "pid").read_text() != "")
    pid = int((tmp_path / "pid").read_text())
    # A process without a launched engine, as the command line is.
    canceller = yard.engine(definition, executor="cli", launch=False) if from_elsewhere else engine
    assert canceller.cancel(run_id, actor=ADA, reason="wrong data")
    until(lambda: gone(pid), seconds=10)
    run = engine.get(run_id)
    assert (run.status, run.error) == (Status.CANCELLED, "Cancelled by ada: wrong data")
    assert [(step.name, step.status) for step in run.steps] == [("train", StepStatus.CANCELLED)]
    assert not engine.cancel(run_id, actor=ADA)
    assert yard.kinds(run_id) == ["workflow.started", "workflow.cancelled"]


def test_cancel_ends_a_wait(yard):
    engine = yard.engine(Definition("demo", (Step("ask", ask), Step("use", answered))))
    run_id = engine.start("demo", actor=ADA)
    engine.wait_for(run_id, 20, or_waiting=True)
    assert engine.cancel(run_id, actor=ADA)
    assert engine.get(run_id).wait is None
    with pytest.raises(Conflict, match="cancelled"):
        engine.signal(run_id, "approval", actor=ADA)


def test_retry_from_a_step_keeps_what_came_before(yard):
    calls = []
    broken = threading.Event()
    broken.set()

    def flaky(context, state):
        calls.append(context.key)
        if broken.is_set():
            raise ValueError("no rows")
        return {**state, "two": 2, "wake": context.wake.payload}

    steps = (Step("one", lambda c, s: calls.append(c.key) or {"one": 1}), Step("ask", ask), Step("two", flaky))
    engine = yard.engine(Definition("demo", steps))
    run_id = engine.start("demo", actor=ADA)
    engine.signal(run_id, "approval", "yes", actor=ADA)
    outcome = engine.wait_for(run_id, 20)
    assert (outcome.status, outcome.error) == (Status.FAILED, "Step 'two' failed: ValueError: no rows")
    assert "in flaky" in engine.get(run_id).steps[2].error
    with pytest.raises(NotFound, match="step"):
        engine.retry_from_step(run_id, "three", actor=ADA)
    broken.clear()
    again = engine.retry_from_step(run_id, "two", actor=ADA)
    assert engine.wait_for(again, 20).output == {"one": 1, "two": 2, "wake": "yes"}
    assert calls == [f"{run_id}/one", f"{run_id}/two", f"{again}/two"]
    run = engine.get(again)
    assert (run.forked_from, [step.copied for step in run.steps]) == (run_id, [True, True, False])
    assert engine.get(run_id).status == Status.FAILED
    first = engine.retry_from_step(again, "one", actor=ADA)
    engine.wait_for(first, 20, or_waiting=True)
    with pytest.raises(Conflict, match="waiting"):
        engine.retry_from_step(first, "one", actor=ADA)


def test_step_is_retried_on_the_errors_it_names(yard):
    tries = []

    def flaky(context, state):
        tries.append(context.key)
        if len(tries) < 3:
            raise Unavailable("not yet")
        return {"tries": len(tries)}

    flaky_step = Step("one", flaky, attempts=3, pause_s=0.01, retry_on=(Unavailable,))
    strict_step = Step("one", lambda c, s: {}[1], attempts=3, pause_s=0.01, retry_on=(Unavailable,))
    engine = yard.engine(Definition("flaky", (flaky_step,)), Definition("strict", (strict_step,)))
    run_id = engine.start("flaky", actor=ADA)
    assert engine.wait_for(run_id, 20).output == {"tries": 3}
    (step,) = engine.get(run_id).steps
    assert (step.starts, step.failures, step.error, len(set(tries))) == (3, 2, None, 1)
    strict = engine.start("strict", actor=ADA)
    assert engine.wait_for(strict, 20).status == Status.FAILED
    assert engine.get(strict).steps[0].failures == 1
    (failed,) = yard.events.read(kinds=["workflow.failed"])
    assert failed.event.data["step"] == "one"


def test_steps_may_loop_and_finish_early(yard):
    def advance(context, state):
        share = state["shares"][0]
        return {"shares": state["shares"][1:], "done": [*state.get("done", []), share], "key": context.key}

    def judge(context, state):
        return Goto("advance", state) if state["shares"] else Finish(state)

    steps = (Step("advance", advance), Step("judge", judge), Step("never", add("never", 1)))
    engine = yard.engine(Definition("rollout", steps))
    run_id = engine.start("rollout", {"shares": [5, 25, 100]}, actor=ADA)
    output = engine.wait_for(run_id, 20).output
    assert output == {"shares": [], "done": [5, 25, 100], "key": f"{run_id}/advance#3"}
    assert len(engine.get(run_id).steps) == 6


def test_a_wrong_answer_fails_the_run_and_says_why(yard):
    wrong = {
        "nothing": (object(), "expected a JSON object"),
        "object": ({"model": object()}, "not JSON"),
        "goto": (Goto("nowhere", {}), "no step"),
        "last": (Wait("x", {}), "no step follows"),
        "naive": (Wait("x", {}, datetime(2013, 1, 1), then="one"), "no time zone"),  # noqa: DTZ001
        "large": ({"text": "x" * 1_000_000}, "at most"),
    }
    engine = yard.engine(
        *(Definition(name, (Step("one", lambda c, s, answer=answer: answer),)) for name, (answer, _) in wrong.items())
    )
    for name, (_, message) in wrong.items():
        outcome = engine.wait_for(engine.start(name, actor=ADA), 20)
        assert outcome.status == Status.FAILED
        assert message in outcome.error


def test_one_segment_at_a_time_per_key(yard):
    lock = threading.Lock()
    running, most = {}, {}

    def work(context, state):
        key = state["key"]
        with lock:
            running[key] = running.get(key, 0) + 1
            most[key] = max(most.get(key, 0), running[key])
            most["all"] = max(most.get("all", 0), sum(running.values()))
        # Hold the slot until the other key's run is here too, or has been.
        until(lambda: len(most) == 3)
        with lock:
            running[key] -= 1
        return state

    engine = yard.engine(Definition("demo", (Step("work", work),)))
    ids = [engine.start("demo", {"key": key, "n": n}, actor=ADA, queue_key=key) for n in range(3) for key in "ab"]
    for run_id in ids:
        assert engine.wait_for(run_id, 30).status == Status.SUCCEEDED
    assert most == {"a": 1, "b": 1, "all": 2}


def test_lists_are_paged_and_filtered_without_a_launched_engine(yard):
    definitions = (Definition("demo", (Step("one", ask), Step("two", ask), Step("three", answered))),)
    engine = yard.engine(*definitions, launch=False)
    ids = [engine.start("demo", {"n": n}, actor=ADA, subject=f"model:{n % 2}") for n in range(5)]
    engine.start("demo", actor=ADA, project="other")
    seen, cursor = [], None
    while True:
        page = engine.list(limit=2, cursor=cursor)
        seen += [run.id for run in page.runs]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == sorted(ids, reverse=True)
    engine.cancel(ids[0], actor=ADA)
    assert [run.id for run in engine.list(status=Status.CANCELLED).runs] == [ids[0]]
    assert {run.id for run in engine.list(subject="model:1").runs} == {ids[1], ids[3]}
    assert engine.list(name="other").runs == ()
    with pytest.raises(Invalid, match="cursor"):
        engine.list(cursor="?")
    with pytest.raises(StillRunning, match="still running"):
        engine.wait_for(ids[1], 0)


def test_a_run_written_elsewhere_is_handed_over_by_the_next_tick(yard):
    definition = Definition("demo", (Step("one", add("one", 1)),))
    run_id = yard.engine(definition, executor="cli", launch=False).start("demo", actor=ADA)
    engine = yard.engine(definition)
    assert engine.wait_for(run_id, 20).output == {"one": 1}
    other = yard.engine(definition, executor="cli", launch=False).start("demo", actor=ADA)
    assert engine.tick().dispatched == (other,)
    assert engine.tick().dispatched == ()
    assert engine.wait_for(other, 20).output == {"one": 1}


def test_a_step_may_start_and_signal_other_runs(yard):
    def parent(context, state):
        child = engine.start("child", actor=SYSTEM, workflow_id=context.key.replace("/", "."))
        engine.signal(child, "approval", "from parent", actor=SYSTEM)
        return {"child": child}

    engine = yard.engine(
        Definition("parent", (Step("one", parent),)),
        Definition("child", (Step("ask", ask), Step("use", answered))),
    )
    output = engine.wait_for(engine.start("parent", actor=ADA), 20).output
    assert engine.wait_for(output["child"], 20).output["answer"] == "from parent"


def stopped_in_the_middle(yard, executor):
    """Close an engine during step two; return the run's id and a definition whose step two can finish."""
    calls = []
    entered = threading.Event()

    def endless(context, state):
        calls.append("two")
        entered.set()
        while True:
            context.check()
            threading.Event().wait(0.01)

    first = Step("one", lambda c, s: calls.append("one") or {"one": 1})
    engine = yard.engine(Definition("demo", (first, Step("two", endless))), executor=executor)
    run_id = engine.start("demo", actor=ADA)
    assert entered.wait(20)
    engine.close()
    assert calls == ["one", "two"]
    assert engine.get(run_id).status == Status.RUNNING
    finishing = Definition("demo", (first, Step("two", lambda c, s: calls.append("two") or {**s, "two": 2})))
    return run_id, finishing, calls


@pytest.mark.parametrize("executor", ["w1", "w2"])
def test_closed_work_is_resumed_by_its_executor_or_adopted_by_another(yard, executor):
    # With another executor this pins DBOS's private recovery call: nothing else would run the segment.
    run_id, definition, calls = stopped_in_the_middle(yard, "w1")
    engine = yard.engine(definition, executor=executor)
    assert engine.wait_for(run_id, 20).output == {"one": 1, "two": 2}
    assert calls == ["one", "two", "two"]
    step = engine.get(run_id).steps[1]
    assert (step.starts, step.executor) == (1, executor)


def test_work_survives_the_loss_of_the_engines_database(yard):
    yard.url = None  # its own, beside the metadata
    run_id, definition, calls = stopped_in_the_middle(yard, "w1")
    url = beside(yard.database)
    if yard.database.is_sqlite:
        for path in Path(sa.make_url(url).database).parent.glob("workflows.db*"):
            path.unlink()
    else:
        with yard.database.engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {SCHEMA} CASCADE"))
    engine = yard.engine(definition)
    assert engine.wait_for(run_id, 20).output == {"one": 1, "two": 2}
    assert calls == ["one", "two", "two"]


def test_a_step_that_is_gone_after_an_upgrade_fails_its_run(yard):
    run_id, _, _ = stopped_in_the_middle(yard, "w1")
    engine = yard.engine(Definition("demo", (Step("one", add("one", 1)), Step("renamed", add("two", 2)))))
    outcome = engine.wait_for(run_id, 20)
    assert outcome.status == Status.FAILED
    assert "'two'" in outcome.error


def test_a_process_has_one_engine_at_a_time(yard):
    engine = yard.engine(Definition("demo", (Step("one", add("one", 1)),)))
    second = yard.engine(executor="w2", launch=False)
    with pytest.raises(Conflict, match="runs a workflow engine already"):
        second.launch()
    with pytest.raises(Conflict, match="before the engine is launched"):
        engine.register(Definition("late", (Step("one", ask),)))
    run_id = engine.start("demo", actor=ADA)
    assert engine.wait_for(run_id, 20).output == {"one": 1}


def test_executors_need_an_id_of_their_own(yard):
    with pytest.raises(Invalid, match="executor id"):
        yard.engine(executor="local")
