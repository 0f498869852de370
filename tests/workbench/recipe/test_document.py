import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import RecipeError
from workbench.recipe.document import dump, parse, scalar

REPEATABLE = settings(derandomize=True, deadline=None, database=None)
# Text with the characters that decide how YAML is read, beside any other that UTF-8 can hold.
TEXT = st.one_of(
    st.text("0123456789.+-_eE~: #'\"no{}[],&*!|>%@`\n\tyx", max_size=12),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.sampled_from(
        ["no", "Off", "null", "~", "010", "12:30", "1e5", "1_0", "2024-01-01", "<<", "=", "0x1F", ".inf", ""]
    ),
)
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
)
DATA = st.recursive(
    SCALAR,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=4),
    max_leaves=12,
)


@REPEATABLE
@given(DATA)
def test_what_is_dumped_is_read_back(data: Any) -> None:
    document = parse(dump({"a": data}), "f.yaml")
    assert document.faults == []
    assert document.data == {"a": data}
    # 1 == 1.0 == True in Python, but not in a recipe.
    assert repr(document.data) == repr({"a": data})


@REPEATABLE
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_spelling_of_a_float_is_that_number(number: float) -> None:
    for text in (repr(number), f"{number:.17e}", f"{number:.17E}", f"{number:+.17e}"):
        assert scalar(text) == number, text


@REPEATABLE
@given(st.integers(-(10**18), 10**18))
def test_every_spelling_of_a_whole_number_is_that_number(number: int) -> None:
    for text in (str(number), f"{number:_}", f"{number:+}"):
        assert scalar(text) == number and isinstance(scalar(text), int), text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1e9", 1e9),
        ("1E+3", 1000.0),
        ("1_000", 1000),
        (".5", 0.5),
        ("5.", 5.0),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
    ],
)
def test_scalars_that_are_more_than_text(text: str, value: Any) -> None:
    assert scalar(text) == value and type(scalar(text)) is type(value)


STAY_TEXT = (
    "no off yes on y 010 08 12:30 1:2:3 0x1F 0o17 2024-01-01 1e 1__0 _1 1_ .inf .nan 1e400 1,000 e5 . - + ="
)


@pytest.mark.parametrize("text", [*STAY_TEXT.split(), "9" * 500, "\u0661\u0662"])
def test_scalars_that_stay_text(text: str) -> None:
    assert scalar(text) == text


@REPEATABLE
@given(st.text(max_size=60))
def test_any_text_is_data_or_a_clear_error(text: str) -> None:
    try:
        parse(text, "f.yaml")
    except RecipeError as error:
        assert str(error).startswith("f.yaml:")


def test_marks_are_the_places_of_keys_and_items() -> None:
    document = parse("a: 1\nb:\n  - x\n  - {c: 2, d: [3, 4]}\n", "f.yaml")
    marks = {path: (mark.line, mark.column) for path, mark in document.marks.items()}
    assert marks == {
        (): (1, 1),
        ("a",): (1, 1),
        ("b",): (2, 1),
        ("b", 0): (3, 5),
        ("b", 1): (4, 5),
        ("b", 1, "c"): (4, 6),
        ("b", 1, "d"): (4, 12),
        ("b", 1, "d", 0): (4, 16),
        ("b", 1, "d", 1): (4, 19),
    }
    assert str(document.mark(("b", 1, "missing", 7))) == "f.yaml:4:5"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", (3, 1), "duplicate key; it stands at line 1 already"),
        ("a: &x 1\n", (1, 4), "anchor &x is not allowed; write the value out where it is used"),
        ("a: &x 1\nb: *x\n", (2, 4), "alias *x is not allowed; write the value out"),
        (
            "a: !!python/name:os.system 1\n",
            (1, 4),
            "tag tag:yaml.org,2002:python/name:os.system is not allowed",
        ),
        ("a: !x 1\n", (1, 4), "tag !x is not allowed; write plain YAML"),
        ("<<: {b: 1}\n", (1, 1), "merge key << is not allowed; write the keys out"),
        ('a: "\\ud800"\n', (1, 4), "holds a NUL or half a surrogate pair"),
        ('a: "\\0"\n', (1, 4), "holds a NUL or half a surrogate pair"),
    ],
)
def test_refused_constructs_have_a_place(text: str, place: tuple[int, int], message: str) -> None:
    fault = parse(text, "f.yaml").faults[-1]
    assert (fault.mark.line, fault.mark.column) == place
    assert message in fault.message


def test_the_first_of_two_equal_keys_is_kept() -> None:
    assert parse("a: {x: 1}\na: {x: 2, y: 3}\n", "f.yaml").data == {"a": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1\n", "f.yaml:2:1  a tab indents this line; use spaces"),
        ("a:\n  \tb: 1\n \tc: 2\n", "f.yaml:2:3  a tab indents this line; use spaces"),
        ("a: [1, 2\n", "f.yaml:2:1  not readable as YAML: "),
        ("a: b: c\n", "f.yaml:1:5  not readable as YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1  a second document begins here; one file is one recipe"),
        ("[1]: a\n", "f.yaml:1:1  a key must be plain text"),
        ("a: 1\nb: \x07\n", "f.yaml:2:4  a control character is not allowed in YAML; remove it"),
        ("[" * 40 + "]" * 40, "f.yaml:1:34  nested more than 32 levels deep"),
    ],
)
def test_what_is_not_yaml_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text, "f.yaml")
    assert str(caught.value).startswith(message)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert parse("1: a\nno: b\n1e5: c\n~: d\n", "f.yaml").data == {"1": "a", "no": "b", "1e5": "c", "~": "d"}


def test_largest_float_is_finite() -> None:
    assert scalar("1.7976931348623157e308") == math.nextafter(math.inf, 0)
