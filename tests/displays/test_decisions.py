import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_micranet.displays import InspectionDisplay, read_decisions, write_decisions
from sklearn_micranet.images import measure_objects

PROPOSALS = {
    "image": ["001", "002", "001"],
    "row": [0, 64, 128],
    "area": [10.5, 20.0, 4.0],
    "score": [0.4, 0.9, 0.4],
}


def test_the_list_is_ranked_by_score(tmp_path):
    write_decisions(tmp_path / "list.csv", PROPOSALS)
    assert (tmp_path / "list.csv").read_text().splitlines() == [
        "rank,image,row,area,score,decision",
        "1,002,64,20.0,0.9,",
        "2,001,0,10.5,0.4,",  # equal scores keep their order
        "3,001,128,4.0,0.4,",
    ]


def test_what_an_expert_filled_in_is_read_back(tmp_path):
    path = tmp_path / "list.csv"
    write_decisions(path, pd.DataFrame(PROPOSALS))
    text = path.read_text().replace("0.9,", "0.9, Accept").replace("10.5,0.4,", "10.5,0.4,decline")
    path.write_text(text)
    read = read_decisions(path)
    assert list(read) == ["rank", "image", "row", "area", "score", "decision"]
    assert read["decision"].tolist() == ["accept", "decline", ""]
    assert read["image"].tolist() == ["002", "001", "001"]  # not the numbers 2 and 1
    assert read["row"].dtype == np.int64
    assert read["area"].tolist() == [20.0, 10.5, 4.0]
    write_decisions(path, read)  # and once more, with the decisions
    assert read_decisions(path)["decision"].tolist() == ["accept", "decline", ""]
    InspectionDisplay.from_predictions(
        read["score"], read["decision"] == "accept", areas=read["area"], total_area=100
    )


@pytest.mark.parametrize(("separator", "point"), [(",", "."), (";", ","), (";", "."), ("\t", ".")])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_files_that_spreadsheets_write(tmp_path, separator, point, start):
    rows = [["rank", "score", "decision"], ["1", f"0{point}5", "ACCEPT"], ["2", f"0{point}25", ""]]
    text = start + "\r\n".join(separator.join(row) for row in rows) + "\r\n"
    (tmp_path / "list.csv").write_bytes(text.encode())
    read = read_decisions(tmp_path / "list.csv")
    assert read["rank"].tolist() == [1, 2]
    assert read["score"].tolist() == [0.5, 0.25]
    assert read["decision"].tolist() == ["accept", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_encodings_and_blank_rows_of_spreadsheets(tmp_path, encoding):
    text = "image;score;decision\r\nzürich;0,5;accept\r\n;;\r\n"
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    read = read_decisions(tmp_path / "list.csv")
    assert read["image"].tolist() == ["zürich"]
    assert read["score"].tolist() == [0.5]


@pytest.mark.parametrize("decision", [np.nan, None, pd.NA])
def test_what_pandas_leaves_undecided(tmp_path, decision):
    path = tmp_path / "list.csv"
    write_decisions(path, {"score": [0.5, 0.25], "decision": [decision, "accept"]})
    assert read_decisions(path)["decision"].tolist() == ["", "accept"]
    write_decisions(path, pd.read_csv(path))
    assert read_decisions(path)["decision"].tolist() == ["", "accept"]


def test_a_list_of_measured_objects(tmp_path):
    instances = np.zeros((1, 1, 8, 8), int)
    instances[0, 0, :2, :2], instances[0, 0, 4:6, 4:6] = 1, 2
    found = [[[0, 0.5, 0.5, 0.3], [0, 4.5, 4.5, 0.8]]]
    path = tmp_path / "new" / "list.csv"
    write_decisions(path, measure_objects(instances, detections=found))
    read = read_decisions(path)
    assert read["object"].tolist() == [2, 1]
    assert read["touches_border"].tolist() == [False, True]
    path.write_text(path.read_text().replace("False", "FALSE"))
    assert read_decisions(path)["touches_border"].tolist() == [False, True]


def test_an_empty_list(tmp_path):
    write_decisions(tmp_path / "list.csv", {"score": []})
    read = read_decisions(tmp_path / "list.csv")
    assert {name: len(values) for name, values in read.items()} == {
        "rank": 0,
        "score": 0,
        "decision": 0,
    }


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Nd"]), min_size=1)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            NAMES,
            st.floats(-1e6, 1e6),
            st.integers(-(2**40), 2**40),
            st.sampled_from(["accept", "decline", ""]),
        ),
        min_size=1,
    )
)
def test_any_list_comes_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("lists") / "list.csv"
    names, scores, numbers, decisions = zip(*rows, strict=True)
    columns = {"name": [f"a{n}" for n in names], "score": scores, "n": numbers}
    write_decisions(path, {**columns, "decision": decisions})
    read = read_decisions(path)
    order = np.argsort(-np.array(scores), kind="stable")
    assert read["name"].tolist() == [columns["name"][i] for i in order]
    assert read["score"].tolist() == [scores[i] for i in order]
    assert read["n"].tolist() == [numbers[i] for i in order]
    assert read["decision"].tolist() == [decisions[i] for i in order]
    assert read["rank"].tolist() == list(range(1, len(rows) + 1))


def test_wrong_proposals_are_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "list.csv"
    for proposals, message in [
        ({"row": [1]}, r'must have a column "score". Got \[\'row\'\] instead'),
        ({"score": [1, 2], "row": [1]}, "must have shape .*, all the same. Got .*'row': \\(1,\\)"),
        ({"score": [np.nan]}, "Scores must be finite"),
        ({"score": [1], "decision": ["yes"]}, '"accept", "decline" or empty. Got \'yes\' in row 1'),
    ]:
        with pytest.raises(ValueError, match=message):
            write_decisions(path, proposals)
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank,score\n1,2\n", r"Got \['rank', 'score'\] without \['decision'\] instead"),
        ("", "must have the columns score and decision"),
        ("rank,score,decision\n1,2,accept,4\n", "must have 3 values, .* Got 4 in row 2 instead"),
        ("score,decision\n2,accept\n1,perhaps\n", "Got 'perhaps' in row 3 instead"),
        ("score,decision\nhigh,accept\n", r"All scores must be numbers. Got \['high'\] instead"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_decisions(tmp_path / "list.csv")
