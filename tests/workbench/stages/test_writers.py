"""A model goes on from prompts; a server on this machine speaks the chat protocol."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from workbench import models
from workbench.data.synthetic import Written
from workbench.errors import DataError
from workbench.recipe.preparation import Generated, Synthetic
from workbench.recipe.safety import Triplets
from workbench.stages import writers

KEY = "sk-of-this-test"
Reply = Callable[[dict[str, Any]], tuple[int, str]]


def settings(**more: object) -> Synthetic:
    given = {"snippets": "s", "writer": {"path": "m"}, "documents": 1, "max_new_tokens": 12, "stop": "e"}
    return Synthetic.model_validate({**given, **more})


def test_a_model_writes_the_same_from_the_same_seed(tiny_model_folder: Path) -> None:
    write = writers.local(tiny_model_folder, torch.float32, settings())
    prompts = ["The river", "Nobody in the village remembers"]
    first = write(prompts, 1)
    torch.manual_seed(99)
    assert write(prompts, 1) == first
    assert write(prompts, 2) != first


def test_each_prompt_is_gone_on_from_as_if_it_were_alone(tiny_model_folder: Path) -> None:
    """Greedily, against the library's own generation from one prompt without padding."""
    write = writers.local(tiny_model_folder, torch.float32, settings(temperature=0, stop="~~~"))
    prompts = ["The river", "Nobody in the village remembers", "x"]
    model, tokenizer = models.load(tiny_model_folder), models.load_tokenizer(tiny_model_folder)
    for prompt, made in zip(prompts, write(prompts, 1), strict=True):
        ids = torch.tensor([[0, *tokenizer.encode(prompt, add_special_tokens=False)]])
        rows = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=2
        )
        text = tokenizer.decode(rows[0, ids.shape[1] :], skip_special_tokens=True)
        assert made == Written(text, 1 in rows[0].tolist())


def test_writing_ends_at_the_mark(tiny_model_folder: Path) -> None:
    plain = writers.local(tiny_model_folder, torch.float32, settings(temperature=0, stop="~~~"))
    (long,) = plain(["The river"], 1)
    assert long.text and not long.finished
    mark = long.text[len(long.text) // 2]
    write = writers.local(tiny_model_folder, torch.float32, settings(temperature=0, stop=mark))
    assert write(["The river"], 1) == [Written(long.text.partition(mark)[0], True)]


def test_a_prompt_without_room_is_not_asked(tiny_model_folder: Path) -> None:
    write = writers.local(tiny_model_folder, torch.float32, settings())
    made = write(["x " * 200, "The river"], 1)
    assert made[0] == Written(None, False) and made[1].text is not None
    assert write(["x " * 200], 1) == [Written(None, False)]


def from_nothing(**more: object) -> Generated:
    given = {"writer": {"path": "m"}, "documents": 1, "max_new_tokens": 12}
    return Generated.model_validate({**given, **more})


def test_text_from_nothing_begins_with_the_mark_of_a_beginning(tiny_model_folder: Path) -> None:
    """The texts are draws from the model, whose first token follows BOS: here all are equal but for one."""
    write = writers.local(tiny_model_folder, torch.float32, from_nothing(temperature=1e-4))
    model, tokenizer = models.load(tiny_model_folder), models.load_tokenizer(tiny_model_folder)
    rows = model.generate(torch.tensor([[0]]), max_new_tokens=12, do_sample=False, pad_token_id=2)
    greedy = tokenizer.decode(rows[0, 1:], skip_special_tokens=True)
    assert {made.text for made in write([""] * 3, 1)} == {greedy}
    warm = writers.local(tiny_model_folder, torch.float32, from_nothing())
    assert len({made.text for made in warm([""] * 8, 1)}) == 8
    assert warm([""] * 8, 1) == warm([""] * 8, 1) != warm([""] * 8, 2)


def test_without_such_a_mark_it_begins_with_any_token(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "no-bos"
    shutil.copytree(tiny_model_folder, folder)
    tokenizer = models.load_tokenizer(folder)
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    assert models.load_tokenizer(folder).bos_token_id is None
    write = writers.local(folder, torch.float32, from_nothing(temperature=1e-4))
    made = write([""] * 40, 1)
    assert made == write([""] * 40, 1) and made != write([""] * 40, 2)
    # Drawn tokens are part of the text, so that even near-greedy texts begin differently.
    assert len({each.text[:1] for each in made if each.text}) > 10


def replies(**writer: object) -> Triplets:
    given = {"requests": "r", "judge": {"kind": "miniworld"}, "chosen": writer, "max_new_tokens": 12}
    return Triplets.model_validate(given)


def test_a_model_replies_through_its_chat_template(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Greedily, against the library's own generation behind the template."""
    folder = tmp_path / "chat"
    shutil.copytree(tiny_model_folder, folder)
    tokenizer, model = models.load_tokenizer(folder), models.load(folder)
    tokenizer.chat_template = "<|begin_of_text|>{% for m in messages %}# {{ m['content'] }}\n{% endfor %}>"
    tokenizer.save_pretrained(folder)
    write = writers.local(folder, torch.float32, replies(path=str(folder)))
    prompts = ["The river?", "Nobody in the village remembers"]
    for prompt, made in zip(prompts, write(prompts, 1), strict=True):
        ids = torch.tensor([tokenizer.encode(f"<|begin_of_text|># {prompt}\n>", add_special_tokens=False)])
        rows = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=2
        )
        assert made.text == tokenizer.decode(rows[0, ids.shape[1] :], skip_special_tokens=True)
    assert write(prompts, 1) == write(prompts, 2)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Reply], tuple[str, list[dict[str, Any]]]]]:
    """Start a server that replies to requests by a function of their bodies; it remembers them."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(writers, "WAIT_S", 0.01)
    servers: list[ThreadingHTTPServer] = []

    def start(reply: Reply) -> tuple[str, list[dict[str, Any]]]:
        asked: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                status, text = reply(body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def completion(body: dict[str, Any], reason: str = "stop") -> tuple[int, str]:
    content = f"about {body['messages'][0]['content']}"
    return 200, json.dumps({"choices": [{"message": {"content": content}, "finish_reason": reason}]})


def remote(url: str, **more: object) -> Synthetic:
    return settings(writer={"endpoint": url, "model": "m"}, stop="~", **more)


def test_a_server_is_asked_in_the_order_of_the_prompts(serve: Callable[..., Any]) -> None:
    url, asked = serve(completion)
    made = writers.endpoint(remote(url))([f"p{i}" for i in range(20)], 7)
    assert made == [Written(f"about p{i}", True) for i in range(20)]
    first = next(request for request in asked if request["messages"][0]["content"] == "p0")
    assert first == {
        "path": "/v1/chat/completions",
        "key": f"Bearer {KEY}",
        "model": "m",
        "messages": [{"role": "user", "content": "p0"}],
        "max_tokens": 12,
        "temperature": 0.7,
        "stop": ["~"],
        "seed": 7,
    }


def test_a_server_replies_with_what_is_likeliest(serve: Callable[..., Any]) -> None:
    url, asked = serve(completion)
    assert writers.endpoint(replies(endpoint=url, model="m"))(["p"], 7) == [Written("about p", True)]
    (body,) = asked
    assert body["temperature"] == 0 and "stop" not in body
    assert body["messages"] == [{"role": "user", "content": "p"}]


def test_a_server_completes_an_empty_text(serve: Callable[..., Any]) -> None:
    choice = {"text": "Once", "finish_reason": "length"}
    url, asked = serve(lambda body: (200, json.dumps({"choices": [choice]})))
    writer = {"endpoint": url, "model": "m"}
    assert writers.endpoint(from_nothing(writer=writer))([""], 7) == [Written("Once", False)]
    assert asked == [
        {
            "path": "/v1/completions",
            "key": f"Bearer {KEY}",
            "model": "m",
            "prompt": "",
            "max_tokens": 12,
            "temperature": 1.0,
            "seed": 7,
        }
    ]


def test_what_was_cut_off_did_not_end(serve: Callable[..., Any]) -> None:
    url, _ = serve(lambda body: completion(body, "length"))
    assert writers.endpoint(remote(url))(["p"], 1) == [Written("about p", False)]


def test_a_busy_server_is_asked_again(serve: Callable[..., Any]) -> None:
    states = iter([(429, "busy"), (503, "down")])
    url, asked = serve(lambda body: next(states, None) or completion(body))
    assert writers.endpoint(remote(url))(["p"], 1)[0].finished
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("reply", "message", "times"),
    [
        ((401, "no such key"), "status 401: no such key; check writer.endpoint", 1),
        ((500, "broken"), "status 500: broken", 5),
        ((200, "hello"), "not a completion", 1),
        ((200, '{"choices": []}'), "not a completion", 1),
    ],
)
def test_a_server_that_fails_is_an_error_without_the_key(
    serve: Callable[..., Any], reply: tuple[int, str], message: str, times: int
) -> None:
    url, asked = serve(lambda body: reply)
    with pytest.raises(DataError, match=message) as error:
        writers.endpoint(remote(url))(["p"], 1)
    assert KEY not in str(error.value) and len(asked) == times


def test_no_server_is_an_error(serve: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="ConnectError"):
        writers.endpoint(remote("http://127.0.0.1:9/v1"))(["p"], 1)
