"""Steps run at least once, change rows at most once, and never for a run that has moved on."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from modelyard.errors import Invalid, NotFound
from modelyard.events import Actor, EventLog, EventTimeClock
from modelyard.workflows import Definition, Engine, Start, Status, Step, StepStatus, Stopped, store
from modelyard.workflows.context import ActiveSteps, StopSignal
from modelyard.workflows.engine import beside
from modelyard.workflows.model import check_id
from modelyard.workflows.runner import MAX_CRASHES, Runner
from modelyard.workflows.transitions import Transitions
from modelyard.workflows.upkeep import Upkeep

AT = datetime(2013, 4, 1, 12, tzinfo=UTC)
ADA = Actor("ada")


class Bench:
    """A runner without an engine behind it: the test plays the engine."""

    def __init__(self, database, tmp_path):
        self.database = database
        self.clock = EventTimeClock(AT)
        self.transitions = Transitions(EventLog(database), clock=self.clock, wall_clock=self.clock)
        self.active = ActiveSteps()
        self.definitions = {}
        self.tmp_path = tmp_path

    def runner(self, executor="w1"):
        return Runner(
            self.database,
            self.transitions,
            definitions=self.definitions,
            active=self.active,
            executor_id=executor,
            wall_clock=self.clock,
            clock=self.clock,
            logs=self.tmp_path,
            changed=lambda: None,
        )

    def start(self, *functions):
        steps = tuple(Step(f"s{number}", function) for number, function in enumerate(functions))
        self.definitions["demo"] = Definition("demo", steps)
        with self.database.transaction() as tx:
            self.transitions.begin(tx, Start("demo"), workflow_id="run", step="s0", actor="ada")

    def run(self):
        with self.database.reading() as connection:
            return store.run_of(store.run_row(connection, "run"))

    def step(self, position):
        with self.database.reading() as connection:
            return store.step_of(store.step_row(connection, "run", position))


@pytest.fixture
def bench(sqlite, tmp_path):
    return Bench(sqlite, tmp_path)


def test_a_step_whose_row_is_done_is_not_run_again(bench):
    calls = []
    bench.start(lambda c, s: calls.append(0) or {"a": 1}, lambda c, s: calls.append(1) or s)
    runner = bench.runner()
    assert runner.perform("run", 0, 0) == 1
    assert runner.perform("run", 0, 0) == 1  # its checkpoint was lost
    assert runner.perform("run", 0, 1) is None
    assert runner.perform("run", 0, 1) is None
    assert calls == [0, 1]
    assert bench.run().status == Status.SUCCEEDED


def test_a_process_taken_for_dead_changes_nothing_when_it_comes_back(bench):
    entered, go, late = threading.Event(), threading.Event(), []

    def first_is_paused(context, state):
        if entered.is_set():
            return {"by": "w2"}
        entered.set()
        assert go.wait(20)
        return {"by": "w1"}

    bench.start(first_is_paused, lambda c, s: s)
    paused = threading.Thread(target=lambda: late.append(bench.runner("w1").perform("run", 0, 0)))
    paused.start()
    assert entered.wait(20)
    assert bench.runner("w2").perform("run", 0, 0) == 1
    go.set()
    paused.join()
    assert late == [None]
    assert bench.step(0).output == {"by": "w2"}
    assert (bench.step(0).starts, bench.step(0).executor) == (2, "w2")


def test_an_old_segment_does_nothing(bench):
    calls = []
    bench.start(lambda c, s: calls.append(0) or s)
    assert bench.runner().perform("run", 1, 0) is None
    assert bench.runner().perform("nothing", 0, 0) is None
    with bench.database.transaction() as tx:
        assert bench.transitions.restart_segment(tx, "run", segment=0)
        assert not bench.transitions.restart_segment(tx, "run", segment=0)
    assert bench.runner().perform("run", 0, 0) is None
    assert calls == []
    assert bench.runner().perform("run", 1, 0) is None
    assert calls == [0]


class Crash(BaseException):
    """Stands for the death of the process."""


def crash(context, state):
    raise Crash


def test_a_step_that_takes_its_process_down_again_and_again_fails_its_run(bench):
    bench.start(crash)
    for _ in range(MAX_CRASHES):
        with pytest.raises(Crash):
            bench.runner().perform("run", 0, 0)
    assert bench.runner().perform("run", 0, 0) is None
    assert bench.run().status == Status.FAILED
    assert bench.run().error == f"Step 's0' took its process down {MAX_CRASHES} times."


def test_closing_does_not_count_as_a_crash(bench):
    def closes(context, state):
        bench.active.close(within_s=0)
        context.check()
        return {}

    bench.start(closes)
    with pytest.raises(Stopped, match="closing"):
        bench.runner().perform("run", 0, 0)
    assert (bench.step(0).starts, bench.step(0).status) == (0, StepStatus.PENDING)
    with pytest.raises(Stopped, match="closing"):
        bench.runner().perform("run", 0, 0)
    assert bench.step(0).starts == 0


def test_a_pause_between_attempts_ends_with_the_run(bench):
    asked = []

    def probe():
        asked.append(1)
        return False

    signal = StopSignal("run", probe)
    signal.pause(600)
    assert signal.reason() == "cancelled"
    signal.stop("closing")
    assert signal.reason() == "cancelled"
    assert asked == [1]


class FakeDriver:
    """Remembers what the upkeep asks of the engine."""

    def __init__(self):
        self.adopted = []
        self.submitted = []
        self.during_adoption = lambda: None

    def adopt(self, executor):
        self.during_adoption()
        self.adopted.append(executor)
        return 0

    def ended(self, segments):
        return frozenset(segments)

    def submit(self, run_id, number, position, *, heavy, key):
        self.submitted.append((run_id, number, position))


def upkeep(bench, executor):
    return Upkeep(
        bench.database,
        bench.transitions,
        definitions=bench.definitions,
        executor_id=executor,
        clock=bench.clock,
        wall_clock=bench.clock,
        lease_s=30,
    )


def test_only_silent_executors_are_adopted_and_only_once(bench):
    driver = FakeDriver()
    upkeep(bench, "dead").look_after(driver)
    first, second = upkeep(bench, "a"), upkeep(bench, "b")
    bench.clock.advance(AT + timedelta(seconds=30))
    assert first.look_after(driver).adopted == ()
    bench.clock.advance(AT + timedelta(seconds=31))
    driver.during_adoption = lambda: second.look_after(FakeDriver())
    assert first.look_after(driver).adopted == ("dead",)
    assert driver.adopted == ["dead"]
    assert second.look_after(driver).adopted == ()


def test_an_executor_that_speaks_while_it_is_adopted_is_not_forgotten(bench):
    driver = FakeDriver()
    paused, adopter = upkeep(bench, "paused"), upkeep(bench, "a")
    paused.look_after(driver)
    bench.clock.advance(AT + timedelta(minutes=1))
    driver.during_adoption = lambda: paused.look_after(FakeDriver())
    assert adopter.look_after(driver).adopted == ("paused",)
    bench.clock.advance(AT + timedelta(minutes=2))
    driver.during_adoption = lambda: None
    assert adopter.look_after(driver).adopted == ("paused",)


def test_a_run_whose_segment_is_lost_gets_a_new_one(bench):
    driver = FakeDriver()
    bench.start(lambda c, s: s)
    keeper = upkeep(bench, "a")
    assert keeper.look_after(driver).dispatched == ("run",)
    assert keeper.look_after(driver).dispatched == ()
    bench.clock.advance(AT + timedelta(seconds=30))
    assert keeper.look_after(driver).dispatched == ("run",)
    assert driver.submitted == [("run", 0, 0), ("run", 1, 0)]


@pytest.mark.parametrize("name", ["", "Upper", "a b", "é"])
def test_names_are_checked(name):
    with pytest.raises(Invalid, match="cannot name"):
        Definition(name, (Step("one", crash),))
    with pytest.raises(Invalid, match="cannot name"):
        Definition("demo", (Step(name, crash),))


def test_definitions_have_each_step_once():
    with pytest.raises(Invalid, match="at least one step"):
        Definition("demo", ())
    with pytest.raises(Invalid, match="each name once"):
        Definition("demo", (Step("one", crash), Step("one", crash)))
    with pytest.raises(NotFound, match="Did you mean 'train'"):
        Definition("demo", (Step("train", crash),)).step("trian")


@pytest.mark.parametrize("workflow_id", ["", " ", "../x", "a" * 201, "a\nb"])
def test_ids_are_checked(workflow_id):
    with pytest.raises(Invalid, match="workflow id"):
        check_id(workflow_id)


def test_logs_of_any_id_stay_in_their_folder(bench):
    path = bench.runner().log_path("default/../../churn", 3, "train")
    assert path.parent.parent == bench.tmp_path
    assert path.name == "0003-train.log"


def test_engine_needs_a_database_in_a_file(sqlite):
    assert beside(sqlite).endswith("/workflows.db")
    sqlite.url = "sqlite://"
    with pytest.raises(Invalid, match="in a file"):
        beside(sqlite)


@pytest.mark.parametrize("filters", [{}, {"status": Status.FAILED}, {"name": "demo"}, {"subject": "model:churn"}])
def test_every_filter_of_the_list_has_its_index(sqlite, filters):
    engine = Engine(sqlite, EventLog(sqlite), clock=EventTimeClock(AT), executor_id="w1")
    plans = []

    def explain(connection, _cursor, statement, parameters, *_):
        if statement.startswith("SELECT workflow_runs"):
            rows = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" ".join(str(row[3]) for row in rows.fetchall()))

    sa.event.listen(sqlite.engine, "before_cursor_execute", explain)
    engine.list(**filters, cursor=f"{AT.isoformat()}|x")
    column = f"project_{next(iter(filters))}" if filters else "project"
    assert f"ix_workflow_runs_{column} " in plans[0]
    assert "TEMP B-TREE" not in plans[0]
