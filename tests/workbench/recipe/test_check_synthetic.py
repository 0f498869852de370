# ruff: noqa: E501 - a message stands on one line here, as users see it.
import pytest

WRITTEN = "  young: {path: $WORKBENCH_DATA/text/young.txt}\n  qa: {synthetic: {snippets: young, writer: {variant: base}, documents: 9, max_new_tokens: 64}}\n"
YOUNG = "  young: {path: $WORKBENCH_DATA/text/young.txt}\n"
MIXTURE = "mixture: {young: 1.0}"


def written(**changes: str) -> tuple[str, str]:
    text = WRITTEN
    for old, new in changes.items():
        text = text.replace(
            f"{old}: {dict(snippets='young', writer='{variant: base}', documents='9')[old]}", new
        )
    return YOUNG, text


def test_text_of_a_variant_is_read_by_a_later_stage(load, sound: str) -> None:
    loaded = load(sound.replace(*written()).replace(MIXTURE, "mixture: {young: 0.5, qa: 0.5}"))
    assert loaded.recipe.data["qa"].synthetic.writer.variant == "base"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snippets": "snippets: yuong"}, 'snippets: no source "yuong" in data; did you mean young? there are: old, young, qa'),
        ({"snippets": "snippets: qa"}, "snippets: qa is written from qa itself; name other text"),
        ({"documents": 'documents: 9, prompt: "Ask:"'}, "prompt: needs {snippet} once, where the snippet goes; found 0"),
        ({"documents": 'documents: 9, prompt: "{snippet}{snippet}"'}, "prompt: needs {snippet} once, where the snippet goes; found 2"),
        ({"writer": "writer: {variant: bas}"}, 'writer.variant: no variant "bas"; did you mean base? there are: base, cpt-full, cpt-replay, rtn-w8, rtn-w4, gptq-w8, gptq-w4'),
        ({"writer": "writer: {endpoint: localhost, model: m}"}, "writer.endpoint: not a URL; write the base URL of the server, such as http://localhost:8000/v1"),
        ({"writer": 'writer: {endpoint: "http://[x/v1", model: m}'}, "writer.endpoint: not a URL; write the base URL of the server, such as http://localhost:8000/v1"),
        ({"writer": 'writer: {endpoint: "https://me:secret@host/v1", model: m}'}, "writer.endpoint: only scheme, host and path belong here; the key is read from OPENAI_API_KEY"),
        ({"writer": 'writer: {endpoint: "https://host/v1?key=secret", model: m}'}, "writer.endpoint: only scheme, host and path belong here; the key is read from OPENAI_API_KEY"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said(faults, change: dict[str, str], message: str) -> None:
    (line,) = faults(written(**change))
    assert line.endswith(f"data.qa.synthetic.{message}")
    assert "secret" not in line


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (("    mixture: {old: 1.0}\n    tokens: 1e6", "    mixture: {old: 0.5, qa: 0.5}\n    tokens: 1e6"), "stages[0] reads qa before base is made; use it in a later stage"),
        (("tokenizer_sources: [old]", "tokenizer_sources: [old, qa]"), "the tokenizer is trained on qa, before base is made; name other text there"),
    ],
)  # fmt: skip
def test_nothing_is_read_before_it_is_written(faults, reader: tuple[str, str], message: str) -> None:
    (line,) = faults(written(), reader)
    assert line.endswith(f"data.qa.synthetic.writer.variant: {message}")


FREE = "  free: {generated: {writer: {variant: base}, documents: 9, max_new_tokens: 64}}\n"
READ = ("    mixture: {young: 1.0}", "    mixture: {young: 0.5, free: 0.5}")


def test_text_from_nothing_is_read_by_a_later_stage(load, sound: str) -> None:
    text = sound.replace(YOUNG, YOUNG + FREE).replace(*READ)
    assert load(text).recipe.data["free"].generated.writer.variant == "base"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("variant: base", "variant: bas"), 'writer.variant: no variant "bas"; did you mean base? there are: base, cpt-full, cpt-replay, rtn-w8, rtn-w4, gptq-w8, gptq-w4'),
        (("variant: base", "variant: cpt-full"), "writer.variant: stages[1] reads free before cpt-full is made; use it in a later stage"),
        (("variant: base", "endpoint: localhost, model: m"), "writer.endpoint: not a URL; write the base URL of the server, such as http://localhost:8000/v1"),
        (("max_new_tokens: 64", "max_new_tokens: 256"), "max_new_tokens: 256 leaves no room in model.new.context, which is 256; lower it"),
        ((", max_new_tokens: 64", ""), "max_new_tokens: 256 leaves no room in model.new.context, which is 256; lower it"),
    ],
)  # fmt: skip
def test_text_that_cannot_come_from_nothing_is_said(faults, change: tuple[str, str], message: str) -> None:
    (line,) = faults((YOUNG, YOUNG + FREE.replace(*change)), READ)
    assert line.endswith(f"data.free.generated.{message}")


def test_text_that_is_read_through_other_text_counts(faults) -> None:
    through = "  more: {synthetic: {snippets: qa, writer: {path: m}, documents: 9}}\n"
    (line,) = faults(
        (YOUNG, WRITTEN + through), ("tokenizer_sources: [old]", "tokenizer_sources: [old, more]")
    )
    assert line.endswith("the tokenizer is trained on qa, before base is made; name other text there")
