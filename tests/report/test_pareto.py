"""The Pareto plot: that it is a sane PNG, shows the rows' values, and has legible labels."""

import io

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from capjax.errors import UserError
from capjax.report import pareto


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, to be asked about their axes and labels."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k))[1]
    )
    return saved


def pixels(path):
    with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def labels(ax):
    return [text for text in ax.texts if text.get_text()]


def test_the_png_has_a_sane_size_and_shows_the_rows(tmp_path, rows):
    pareto.plot(rows, tmp_path / "new" / "a.png")
    image = pixels(tmp_path / "new" / "a.png")
    assert image.shape == (660, 1560, 3)
    blue = (np.abs(image.astype(int) - [0x00, 0x72, 0xB2]) < 12).all(-1)
    assert 2_000 < blue.sum() < 60_000
    pareto.plot([{**row, "cider": row["cider"] ** 2} for row in rows], tmp_path / "b.png")
    assert (pixels(tmp_path / "b.png") != image).any()
    pareto.plot(rows[::-1], tmp_path / "c.png")
    np.testing.assert_array_equal(pixels(tmp_path / "c.png"), image)


def test_points_are_in_printed_units_and_joined_in_the_order_of_the_scale(tmp_path, figures, rows):
    pareto.plot(rows[::-1], tmp_path / "a.png")
    recall, clip = figures[0].axes
    assert recall.get_xlabel() == "CIDEr (×100)"
    assert recall.get_ylabel() == "R@1, caption → picture (%)"
    assert clip.get_ylabel() == "CLIP-S"
    curve = recall.lines[0].get_xydata()
    np.testing.assert_allclose(curve[:, 0], [126.1, 124.1, 113.2, 78.6, 41.7, 17.3])
    np.testing.assert_allclose(curve[:, 1], [26.5, 31.3, 36.6, 44.6, 49.4, 44.7])
    np.testing.assert_allclose(clip.lines[0].get_ydata()[0], 0.775)
    expected = [f"γ={scale}" for scale in ("1", "1.2", "1.5", "2", "3", "4")]
    assert [text.get_text() for text in labels(recall)] == expected


def test_published_numbers_are_a_second_curve_with_a_legend(tmp_path, figures, rows):
    ours = [
        {**row, "cider": row["cider"] / 2, "recall_at_1": row["recall_at_1"] / 2} for row in rows
    ]
    pareto.plot(ours, tmp_path / "a.png", published=rows)
    ax = figures[0].axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["this run", "published"]
    assert len(labels(ax)) == 2 * len(rows)


def crowd(seed):
    values = np.random.default_rng(seed).uniform(0.4, 0.6, (7, 2))
    return [
        {"guidance_scale": 1 + i / 4, "cider": a, "recall_at_1": b, "clipscore": b}
        for i, (a, b) in enumerate(values)
    ]


@pytest.mark.parametrize("kind", ["paper", "coincident", "crowded", "crowded too"])
def test_no_label_covers_another_label_or_a_marker(tmp_path, figures, rows, kind):
    given = {
        "paper": rows,
        "coincident": [rows[0], {**rows[0], "guidance_scale": 1.1}],
        "crowded": crowd(0),
        "crowded too": crowd(1),
    }[kind]
    pareto.plot(given, tmp_path / "a.png")
    for ax in figures[0].axes:
        boxes = [text.get_window_extent() for text in labels(ax)]
        assert len(boxes) == len(given)
        inside = ax.get_window_extent().padded(1)
        markers = ax.transData.transform(ax.lines[0].get_xydata())
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])
            assert not any(box.contains(*marker) for marker in markers)
            assert inside.contains(*box.min)
            assert inside.contains(*box.max)


def test_intervals_are_drawn_in_printed_units(tmp_path, figures, rows):
    given = [{**rows[0], "intervals": {"cider": [1.2, 1.3], "recall_at_1": [0.25, 0.28]}}, rows[1]]
    pareto.plot(given, tmp_path / "a.png")
    _, across, along = figures[0].axes[0].lines
    np.testing.assert_allclose(across.get_xydata(), [[120, 26.5], [130, 26.5]])
    np.testing.assert_allclose(along.get_xydata(), [[126.1, 25], [126.1, 28]])


def test_a_panel_leaves_out_what_was_not_measured(tmp_path, figures, rows):
    given = [*rows[:3], {**rows[3], "recall_at_1": float("nan")}, {**rows[4], "clipscore": None}]
    pareto.plot(given, tmp_path / "a.png")
    recall, clip = figures[0].axes
    assert [text.get_text() for text in labels(recall)] == ["γ=1", "γ=1.2", "γ=1.5", "γ=3"]
    assert [text.get_text() for text in labels(clip)] == ["γ=1", "γ=1.2", "γ=1.5", "γ=2"]
    only_recall = [{k: v for k, v in row.items() if k != "clipscore"} for row in rows]
    pareto.plot(only_recall, tmp_path / "b.png")
    assert len(figures[1].axes) == 1


def test_the_own_space_stands_in_where_no_encoder_scored(tmp_path, figures):
    given = [
        {"guidance_scale": 1.0, "cider": 0.9, "own_recall_at_1": 0.4, "own_clipscore": 0.7},
        {"guidance_scale": 2.0, "cider": 0.7, "own_recall_at_1": 0.6, "own_clipscore": 0.8},
    ]
    pareto.plot(given, tmp_path / "a.png")
    assert [ax.get_ylabel() for ax in figures[0].axes] == [
        "own R@1, caption → picture (%)", "own CLIP-S"
    ]  # fmt: skip


def test_nothing_to_plot_is_named(tmp_path, rows):
    with pytest.raises(UserError, match="no row of the results has both 'cider' and 'spice'"):
        pareto.plot(rows, tmp_path / "a.png", y="spice")
    assert not (tmp_path / "a.png").exists()


def test_no_global_state_of_pyplot_is_touched(tmp_path, rows):
    before = pyplot.get_fignums()
    pareto.plot(rows, tmp_path / "a.png")
    assert pyplot.get_fignums() == before
