"""The plan as a table: predicted before a load, measured after it, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QTreeWidget

from kvdesk.sizes import format_bytes
from kvdesk.ui.memory.plan_table import Loaded, PlanTable
from kvdesk.ui.widgets.theme import DARK, LIGHT
from tests.fakes import memory_pictures as pictures

GIB = 1024**3


@pytest.fixture
def table(qtbot):
    widget = PlanTable(LIGHT)
    qtbot.addWidget(widget)
    widget.show()
    return widget


def lines(table):
    return [line.split("\t") for line in table.as_text().splitlines()]


def test_before_a_load_every_component_of_every_domain_has_its_price(table):
    table.show_plan(pictures.plan(gpu=True))
    assert table.verdict == "Fits, 1.9 GiB under the line"
    rows = lines(table)
    assert rows[0] == ["Component", "Predicted"]
    assert rows[1:10] == [
        ["RAM"],
        ["Weights, mapped", "1.8 GiB"],
        ["Weights, anonymous", "43 MiB"],
        ["KV cache", "3.0 GiB"],
        ["Compute", "220 MiB"],
        ["Output", "2 MiB"],
        ["Overhead, learned", "110 MiB"],
        ["Reserved", "5.1 GiB"],
        ["Resident", "5.0 GiB"],
    ]
    assert ["OOM line", "7.0 GiB"] in rows
    assert ["Ceiling now", "8.0 GiB"] in rows
    assert ["Other programs", "7.6 GiB"] in rows
    assert ["Capacity", "15.6 GiB"] in rows
    assert ["CUDA0  ·  NVIDIA GeForce RTX 4060 Laptop GPU"] in rows
    assert ["Overhead, typical", "280 MiB"] in rows
    assert ["Total", "5.6 GiB"] in rows  # nothing lazily given on a GPU: one sum


def test_what_must_be_held_and_what_may_be_dropped_stand_apart(table):
    plan = pictures.plan(gpu=True)
    table.show_plan(plan)
    rows = lines(table)
    ram, card = plan.devices
    assert [row[0] for row in rows].count("Must be held") == 1  # on a card all of it must
    assert ["Must be held", format_bytes(ram.total_bytes - ram.weights_mapped_bytes)] in rows
    assert ["May be dropped", "1.8 GiB"] in rows
    assert card.weights_mapped_bytes == 0


def test_over_the_line_is_red_and_says_by_how_much(table):
    table.show_plan(pictures.plan(line=4 * GIB))
    assert table._verdict.property("role") == "red"
    assert ["Over the line", "1.1 GiB"] in lines(table)


def test_unknown_terms_are_written_as_unknown(table):
    plan = pictures.plan()
    ram = replace(plan.devices[0], overhead_bytes=None, oom_line_bytes=None, ceiling_bytes=None)
    table.show_plan(replace(plan, devices=(ram,), warnings=("RAM: overhead is not known yet",)))
    rows = lines(table)
    assert ["Overhead, learned", "unknown"] in rows
    assert ["Room", "unknown"] in rows
    assert table._warnings.isVisible()


def test_after_a_load_predicted_actual_and_error_stand_side_by_side(table):
    table.show_plan(pictures.plan())
    table.show_loaded(Loaded(pictures.plan(4096), pictures.model(), pictures.comparison()))
    rows = lines(table)
    assert rows[0] == ["Component", "Predicted", "Actual", "Error"]
    assert ["KV cache", "384 MiB", "384 MiB", "0"] in rows
    assert ["Resident", "2.4 GiB", "2.4 GiB", "+78 MiB"] in rows
    table.choose_view("set")
    rows = lines(table)
    assert rows[0] == ["Component", "Predicted", "vs. loaded"]
    assert ["KV cache", "3.0 GiB", "+2.6 GiB"] in rows
    assert ["Compute", "220 MiB", "0"] in rows
    table.show_loaded(None)
    assert lines(table)[0] == ["Component", "Predicted"]


def test_while_another_model_is_looked_at_nothing_is_said_of_the_loaded_one(table):
    other = replace(pictures.model(), path=Path("other.gguf"), sliding_window=None)
    table.show_plan(pictures.plan(), pictures.model())
    table.show_loaded(Loaded(pictures.plan(4096), pictures.model(), pictures.comparison()))
    table.show_plan(pictures.plan(), other)
    assert lines(table)[0] == ["Component", "Predicted"]
    assert not table._views["loaded"].isEnabled()
    table.show_plan(pictures.plan(), pictures.model())
    assert lines(table)[0] == ["Component", "Predicted", "Actual", "Error"]


def test_a_choice_of_view_survives_the_next_load(table):
    table.show_plan(pictures.plan())
    table.show_loaded(Loaded(pictures.plan(4096), pictures.model(), pictures.comparison()))
    table.choose_view("set")
    table.show_loaded(Loaded(pictures.plan(8192), pictures.model(), pictures.comparison(8192)))
    assert lines(table)[0][-1] == "vs. loaded"


def test_the_history_lists_earlier_loads_newest_first(table):
    table.show_history([pictures.comparison(4096), pictures.comparison(8192)])
    table.choose_view("history")
    rows = lines(table)
    assert "8,192" in rows[1][0]
    assert rows[2] == ["RAM", "2.7 GiB", "2.8 GiB", "+78 MiB"]
    assert "4,096" in rows[3][0]


def test_choosing_a_figure_says_why(table):
    table.show_plan(pictures.plan(), pictures.model())
    tree = table.findChild(QTreeWidget)
    kv = next(i for i in all_items(tree) if i.text(0) == "KV cache")
    tree.setCurrentItem(kv)
    assert "2 x 24 layers x 8 KV heads x 128 x 32,768 tokens x 2 bytes = 3.0 GiB" in table.why
    assert "4x smaller" in table.why
    assert "4x smaller" in kv.toolTip(0)


def all_items(tree):
    for index in range(tree.topLevelItemCount()):
        head = tree.topLevelItem(index)
        yield from (head.child(row) for row in range(head.childCount()))


def test_copying_puts_the_table_on_the_clipboard(table, qtbot):
    table.show_plan(pictures.plan())
    qtbot.keyClick(table.findChild(QTreeWidget), Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert "KV cache\t3.0 GiB" in QGuiApplication.clipboard().text()


def test_without_a_model_it_asks_for_one(table):
    table.show_plan(None)
    table.set_theme(DARK)
    assert table.verdict == "Choose a model to see what it will take."
    assert table.as_text().strip() == ""
