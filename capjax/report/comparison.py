"""Systems side by side: a metric a row, with intervals, and each system's difference to the first.

Values are printed as papers print them (`table.column`): BLEU-4 of 0.361 is 36.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from capjax.metrics.bootstrap import Difference, Interval
from capjax.metrics.spider import PICKS
from capjax.report.grid import lines_of
from capjax.report.table import Column, column

Intervals = Mapping[str, Interval]  # metric -> its value
Differences = Mapping[str, Difference]  # metric -> to the first system


def text(systems: Mapping[str, Intervals], differences: Mapping[str, Differences]) -> str:
    """The table for a terminal; a system without an interval of its own has the value alone."""
    metrics = list(dict.fromkeys(name for values in systems.values() for name in values))
    first = next(iter(systems))
    grid = [["", *systems, *(f"{system} - {first}" for system in differences)]]
    for name in metrics:
        row = [_column(name).heading]
        row += [_interval(name, values.get(name)) for values in systems.values()]
        row += [_difference(name, values.get(name)) for values in differences.values()]
        grid.append(row)
    return lines_of(grid)


def _column(name: str) -> Column:
    """How a metric is printed; what was picked of several candidates (cider_max) as the metric."""
    metric, _, pick = name.rpartition("_")
    if pick in PICKS and column(metric).heading != metric:
        known = column(metric)
        return dataclasses.replace(known, key=name, heading=f"{known.heading} {pick}")
    return column(name)


def _interval(name: str, found: Interval | None) -> str:
    if found is None:
        return _column(name).cell({})
    value, low, high = (_column(name).cell({name: number}) for number in found)
    return value if found.low == found.high == found.value else f"{value} [{low}, {high}]"


def _difference(name: str, found: Difference | None) -> str:
    if found is None:
        return _column(name).cell({})
    value, low, high = (_column(name).cell({name: number}) for number in found[:3])
    sign = "" if value.startswith("-") else "+"
    p = f"p={found.p_value:.3f}" if found.p_value >= 0.0005 else "p<0.001"
    return f"{sign}{value} [{low}, {high}] {p}"
