import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench import recipe
from workbench.errors import RecipeError
from workbench.recipe.document import dump, parse

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))

# Slow machines and fixtures that any number of examples may share are no faults of the code.
REPEATABLE = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=5,
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
WHOLE = st.integers(1, 10**12)
SHARE = st.floats(0, 1)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a random recipe without a fault."""
    sources = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    mixture = {name: 1 / len(sources) for name in sources}
    some = st.fixed_dictionaries(
        {},
        optional={
            "schedule": st.fixed_dictionaries(
                {}, optional={"kind": st.sampled_from(["constant", "cosine"]), "warmup": SHARE}
            ),
            "weight_decay": st.floats(0, 1e3),
            "betas": st.tuples(SHARE, SHARE).map(list),
            "clip": POSITIVE,
            "checkpoint_every": WHOLE,
            "probe_every": st.none() | WHOLE,
        },
    )
    batch, length = draw(st.integers(1, 64)), draw(st.integers(1, 256))
    steps = draw(st.integers(1, 10**6))
    training = {
        "mixture": mixture,
        "batch_size": batch,
        "sequence_length": length,
        "tokens": steps * batch * length,
    }
    methods = draw(st.permutations(["full", "replay"]))
    return {
        "name": draw(
            st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}(/[a-z0-9][a-z0-9._-]{0,9}){0,2}", fullmatch=True)
        ),
        "description": draw(TEXT),
        "seed": draw(st.integers(0, 2**31 - 1)),
        "model": {"path": draw(st.from_regex(r"[A-Za-z0-9/._ -]{1,30}", fullmatch=True))},
        "data": {
            name: {
                "path": "a.txt",
                "field": draw(TEXT),
                "documents": draw(st.none() | st.tuples(st.integers(0, 9), st.integers(10, 10**9)).map(list)),
            }
            for name in sources
        },
        "stages": [
            {
                "kind": "cpt",
                "methods": methods,
                "replay": {"ratio": draw(st.floats(0.001, 0.999)), "mixture": mixture},
                "learning_rate": draw(POSITIVE),
                **training,
                **draw(some),
            },
            {
                "kind": "quantize",
                "name": "q." + draw(NAMES),
                "from": "cpt-full",
                "methods": ["rtn"],
                "bits": draw(st.lists(st.integers(1, 8), min_size=1, unique=True)),
                "group_size": draw(st.just("channel") | WHOLE),
                "mse_grid": draw(st.booleans()),
            },
        ],
        "engine": {"compile": draw(st.booleans()), "zero_stage": draw(st.integers(0, 3))},
        "expect": {f"base.{draw(NAMES)}": [-1.5, draw(st.floats(0, allow_infinity=False, allow_nan=False))]},
    }


@settings(REPEATABLE, max_examples=25)
@given(sections())
def test_resolved_text_loads_back_to_the_same_recipe(load, data: dict[str, Any]) -> None:
    first = load(dump(data))
    again = load(first.text)
    assert again.recipe == first.recipe
    assert (again.text, again.digest) == (first.text, first.digest)


@settings(REPEATABLE, max_examples=40)
@given(st.data())
def test_whatever_a_file_holds_each_line_about_it_says_where(load, sound: str, data: st.DataObject) -> None:
    settings = parse(sound, "r.yaml").data
    for _ in range(data.draw(st.integers(1, 3))):
        below = settings
        while True:
            key = data.draw(st.sampled_from(list(below) if isinstance(below, dict) else range(len(below))))
            if not (isinstance(below[key], dict | list) and below[key] and data.draw(st.booleans())):
                break
            below = below[key]
        below[key] = data.draw(DATA)
        if isinstance(below, dict) and data.draw(st.booleans()):
            below[data.draw(st.text("abcdest_. ", max_size=8))] = below.pop(key)
    try:
        load(dump(settings))
    except RecipeError as error:
        assert all(line.startswith("r.yaml:") for line in str(error).split("\n"))


def test_resolved_text_names_every_default(load, sound: str) -> None:
    text = load(sound).text
    for line in (
        "seed: 1",
        "schedule: {kind: cosine, start: 0.0, warmup: 0.05,",
        "group_size: 128",
        "rows: all",
    ):
        assert line in text
    assert "null" not in text


def test_digest_is_of_the_settings_and_not_of_the_text(load, sound: str) -> None:
    digest = load(sound).digest
    assert len(digest) == 64
    assert load("# a comment\n" + sound.replace("1e6", "1_000_000") + "seed: 1\n").digest == digest
    assert load(sound.replace("1e6", "1_000_448")).digest != digest


def test_a_recipe_may_carry_a_byte_order_mark(tmp_path: Path, sound: str) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbf" + sound.encode())
    assert recipe.load(tmp_path / "r.yaml").recipe.name == "small"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "r.yaml:1:1  the file is empty; needed: a mapping with the keys name, description, seed,"),
        (b"# nothing\n---\n", "r.yaml:1:1  the file is empty; needed: a mapping"),
        (b"- a\n- b\n", 'r.yaml:1:1  found ["a", "b"]; needed: a mapping with the keys name,'),
        (b"just text\n", 'r.yaml:1:1  found "just text"; needed: a mapping'),
        (b"name: a\ndescription: \xff\n", "r.yaml:2  byte 0xff is not UTF-8; save the file as UTF-8"),
    ],
)
def test_files_that_are_no_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        recipe.load(tmp_path / "r.yaml", ["seed=2"])
    assert str(caught.value).startswith(message)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").touch()
    for path, message in (
        ("quickstrat.yaml", "quickstrat.yaml: no such file; did you mean quickstart.yaml?"),
        ("no/folder.yaml", "no/folder.yaml: no such file"),
        (".", ".: cannot be read: Is a directory"),
    ):
        with pytest.raises(RecipeError) as caught:
            recipe.load(Path(path))
        assert str(caught.value) == message


def test_a_bad_recipe_fails_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: a\nstages: []\n")
    program = """
import sys
from pathlib import Path
from workbench import recipe
from workbench.errors import RecipeError
try:
    recipe.load(Path(sys.argv[1]))
except RecipeError:
    print(sorted({"torch", "transformers", "numpy", "deepspeed"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "r.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_there_are_recipes() -> None:
    assert ROOT / "recipes/quickstart.yaml" in RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_every_recipe_of_the_project_loads(path: Path) -> None:
    loaded = recipe.load(path)
    assert loaded.recipe.name == str(path.relative_to(ROOT / "recipes").with_suffix(""))
    first = path.read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix), "line 1 tells editors which schema to use"
    assert (path.parent / first.removeprefix(prefix)).resolve() == ROOT / "recipes/recipe.schema.json"


def test_rows_of_the_quickstart() -> None:
    loaded = recipe.load(ROOT / "recipes/quickstart.yaml")
    names = [variant.name for variant in recipe.variants(loaded.recipe)]
    quantized = [f"{method}-w{bits}" for method in ("rtn", "gptq", "awq") for bits in (8, 4, 3, 2)]
    others = ["rotated-quip-w2", "w8a8-smoothquant-w8"]
    assert names == ["base", "cpt-full", "cpt-replay", "safety-dpo", *quantized, *others]
