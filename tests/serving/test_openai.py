"""`motet serve` by OpenAI's own client: text, streamed text, images, and what is rejected."""

import base64
import io
import re
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest
from PIL import Image

from motet.core.conversation import user
from motet.core.sampling import Sampling
from motet.policies.loading import load_policy
from motet.rewards.judge.endpoint import Endpoint, ask, data_url
from motet.serving.http import HttpError
from motet.serving.openai_queue import GenerationQueue, Job, act_requests
from motet.serving.openai_text import TextPieces, cut
from motet.testing import FakePolicy
from tests.serving.openai_server import served

RED = Image.new("RGB", (16, 16), "red")


@pytest.fixture(scope="module")
def janus(tiny_checkpoint):
    return load_policy(tiny_checkpoint)


@pytest.fixture(scope="module")
def client(janus):
    with served(janus, max_bytes=200_000, max_batch=4) as client:
        yield client


def shown(question="what colour?", image=RED):
    image_part = {"type": "image_url", "image_url": {"url": data_url(image)}}
    return [{"role": "user", "content": [image_part, {"type": "text", "text": question}]}]


def chat(client, messages=None, **settings):
    settings = {"max_tokens": 12, "seed": 3, **settings}
    return client.chat.completions.create(model="tiny", messages=messages or shown(), **settings)


def extra(client, name, value):
    return chat(client, extra_body={name: value})


def test_text_is_what_the_policy_generates_with_that_seed(client, janus):
    reply = chat(client, n=3)
    wanted = janus.generate_text("what colour?", RED, n=3, seed=3, max_tokens=12)
    assert [choice.message.content for choice in reply.choices] == [act.text for act in wanted]
    assert [choice.finish_reason for choice in reply.choices] == [
        "stop" if act.finished else "length" for act in wanted
    ]
    assert len({act.text for act in wanted}) > 1
    assert reply.usage.prompt_tokens == len(wanted[0].encoding.ids)
    assert reply.usage.completion_tokens == sum(act.num_actions for act in wanted)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_turns_and_several_images_reach_the_policy():
    policy = FakePolicy(writes=["a"])
    messages = [{"role": "user", "content": "say <image>"}, {"role": "assistant", "content": "a"}, *shown()]
    messages[2]["content"] += messages[2]["content"][:1]
    with served(policy) as client:
        assert chat(client, messages).choices[0].message.content == "a"
    ((_, (request,)),) = policy.calls
    turns = request.context.messages
    assert [turn.role for turn in turns] == ["user", "assistant", "user"]
    assert turns[0].parts[0].text == "say <image>"  # a text is never a placeholder
    assert len(request.context.images) == 2 and request.context.images[0].getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_has_the_text_in_pieces(client, n):
    whole = chat(client, n=n)
    chunks = list(chat(client, n=n, stream=True, stream_options={"include_usage": True}))
    pieces = [[], []]
    for chunk in chunks:
        for choice in chunk.choices:
            pieces[choice.index] += [choice.delta.content] if choice.delta.content else []
    assert ["".join(own) for own in pieces[:n]] == [choice.message.content for choice in whole.choices]
    assert len(pieces[0]) > 3  # token by token
    ends = {c.index: c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason}
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert chunks[-1].usage == whole.usage


def test_a_policy_without_a_tokenizer_streams_its_text_at_once():
    with served(FakePolicy(writes=["hello"])) as client:
        assert "".join(c.choices[0].delta.content or "" for c in chat(client, stream=True)) == "hello"


def test_a_stop_string_ends_the_text(client):
    whole = chat(client).choices[0].message.content
    stop = whole[4:6]
    reply = chat(client, stop=stop).choices[0]
    assert reply.message.content == whole[: whole.index(stop)] and reply.finish_reason == "stop"
    streamed = "".join(c.choices[0].delta.content or "" for c in chat(client, stop=[stop, "\0"], stream=True))
    assert streamed == reply.message.content


def test_pieces_withhold_what_may_become_a_stop_string_or_a_character():
    pieces = TextPieces(["END"])
    assert [pieces.take(text) for text in ("aE", "aEN", "aENx", "aENx\ufffd", "aENxé")] == ["a", "", "ENx", "", "é"]
    assert pieces.take("aENxé END") == " " and pieces.rest(cut("aENxé END", ["END"])[0]) == ""


def test_images_are_those_of_the_policy(client, janus):
    reply = client.images.generate(model="tiny", prompt="a red circle", n=2, size="16x16", extra_body={"seed": 5})
    images = [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in reply.data]
    wanted = [act.image for act in janus.generate_images("a red circle", n=2, seed=5)]
    assert [image.format for image in images] == ["PNG", "PNG"]
    assert [image.tobytes() for image in images] == [image.tobytes() for image in wanted]
    guided = client.images.generate(model="tiny", prompt="a red circle", extra_body={"seed": 5, "guidance_scale": 5})
    assert guided.data[0].b64_json != reply.data[0].b64_json


def test_the_model_and_its_health(client):
    (model,) = client.models.list().data
    assert model.id == "tiny" and client.models.retrieve("tiny").model_extra == {"generates": ["image", "text"]}
    with pytest.raises(openai.NotFoundError, match="'huge' is not served"):
        client.models.retrieve("huge")
    root = str(client.base_url).removesuffix("/v1/")
    assert httpx.get(f"{root}/health").json() == {"status": "ready", "waiting": 0}
    assert "/v1/chat/completions" in httpx.get(f"{root}/openapi.json").json()["paths"]


def part(**content):
    return [{"role": "user", "content": [content]}]


BAD_CHATS = [
    (part(type="image_url", image_url={"url": "http://127.0.0.1:1/x.png"}), "addresses are not downloaded"),
    (part(type="image_url", image_url={"url": "/etc/hostname"}), "files are not read"),
    (part(type="image_url", image_url={"url": "data:image/png;base64,aGVsbG8="}), "cannot be read: it is not one of"),
    (part(type="image_url", image_url={"url": data_url(RED)[:-40]}), "cannot be read"),
    (part(type="image_url"), "only data URLs"),
    (part(type="input_audio", input_audio={}), "it is not a text or image_url part"),
    ([{"role": "tool", "content": "x"}], "'tool' is not a role"),
    ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "last message is not the user's"),
    ([{"role": "user", "content": None}], "neither a text nor a list"),
    ([{"role": "user", "content": "x", "tool_calls": [{"id": "1"}]}], "it is not supported"),
    ([{"role": "user", "content": "x " * 500}], "The prompt has"),
]


@pytest.mark.parametrize(("messages", "problem"), BAD_CHATS, ids=[problem[:30] for _, problem in BAD_CHATS])
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_chat_is_rejected_with_what_to_do(client, messages, problem, stream):
    with pytest.raises(openai.BadRequestError, match=problem) as caught:
        chat(client, messages, stream=stream)
    assert caught.value.body["fix"]


@pytest.mark.parametrize(
    ("call", "kind", "problem"),
    [
        (lambda c: chat(c, temperature=-1), openai.UnprocessableEntityError, "temperature"),
        (lambda c: chat(c, n=5), openai.BadRequestError, "n=5 is too large"),
        (lambda c: chat(c, seed=-1), openai.UnprocessableEntityError, "seed"),
        (lambda c: chat(c, frequency_penalty=0.5), openai.BadRequestError, "'frequency_penalty' is not supported with"),
        (lambda c: extra(c, "beam_width", 3), openai.BadRequestError, "'beam_width' is not supported"),
        (lambda c: c.images.generate(model="tiny", prompt="x", size="512x512"), openai.BadRequestError, "16x16 only"),
        (lambda c: c.images.generate(model="tiny", prompt="x", response_format="url"),
         openai.UnprocessableEntityError, "response_format"),
        (lambda c: c.images.generate(model="other", prompt="x"), openai.NotFoundError, "'other' is not served"),
        (lambda c: c.completions.create(model="tiny", prompt="x"), openai.NotFoundError, "Not Found"),
        (lambda c: chat(c, shown("x" * 300_000)), openai.APIStatusError, "more than 200,000 bytes"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_rejected(client, call, kind, problem):
    with pytest.raises(kind, match=problem):
        call(client)


def test_fields_without_effect_are_accepted(client):
    assert chat(client, frequency_penalty=0, tools=[], user="me", logprobs=None).choices


def test_images_of_too_many_pixels_are_rejected_before_all_are_decoded(client, monkeypatch):
    monkeypatch.setattr("motet.serving.openai_requests.MAX_PIXELS", 300)
    assert chat(client).choices
    with pytest.raises(openai.APIStatusError, match="more than 300 pixels in all") as caught:
        chat(client, [*shown(), *shown()])
    assert caught.value.status_code == 413


def test_a_policy_that_generates_one_of_both():
    with served(FakePolicy(kinds=("text",))) as client, pytest.raises(openai.BadRequestError, match="text only"):
        client.images.generate(model="tiny", prompt="x")
    with served(FakePolicy(kinds=("denoising",))) as client:
        with pytest.raises(openai.BadRequestError, match="generates image only, not text"):
            chat(client)
        assert client.images.generate(model="tiny", prompt="x").data[0].b64_json
        with pytest.raises(openai.BadRequestError, match="supports auto only"):
            client.images.generate(model="tiny", prompt="x", size="8x8")


def test_a_token_is_required():
    with served(FakePolicy(writes=["yes"]), token="secret") as client:
        assert chat(client).choices[0].message.content == "yes"
        with pytest.raises(openai.AuthenticationError, match="token is wrong"):
            chat(client.with_options(api_key="other"))


class SlowPolicy(FakePolicy):
    """Waits for `gate` before it generates."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.gate, self.entered = threading.Event(), threading.Event()

    def act(self, requests, sampling):
        self.entered.set()
        assert self.gate.wait(20)
        return super().act(requests, sampling)


def wait_for_queue(client, length):
    root, end = str(client.base_url).removesuffix("/v1/"), time.monotonic() + 20
    while httpx.get(f"{root}/health").json()["waiting"] != length:
        assert time.monotonic() < end


def in_threads(*calls):
    results = [None] * len(calls)

    def run(k):
        try:
            results[k] = calls[k]()
        except Exception as error:
            results[k] = error

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(calls))]
    return threads, results


def test_waiting_requests_are_generated_together_and_a_full_queue_is_told():
    policy = SlowPolicy(writes=lambda request: request.context.text.upper())
    with served(policy, max_queue=3, max_batch=3) as client:

        def say(text, **settings):
            return lambda: chat(client, [{"role": "user", "content": text}], **settings).choices[0].message.content

        first, one = in_threads(say("a"))
        first[0].start()
        assert policy.entered.wait(20)
        threads, replies = in_threads(say("b"), say("c"), say("d", temperature=0.5))
        for n, thread in enumerate(threads, 1):
            thread.start()
            wait_for_queue(client, n)
        with pytest.raises(openai.RateLimitError, match="3 requests are waiting"):
            chat(client)
        policy.gate.set()
        for thread in (*first, *threads):
            thread.join(20)
    assert one == ["A"] and replies == ["B", "C", "D"]
    assert [len(requests) for _, requests in policy.calls] == [1, 2, 1]


def test_one_bad_request_of_a_batch_does_not_fail_the_others():
    policy = SlowPolicy(writes=["fine"], max_context=40)
    with served(policy) as client:

        def say(text):
            return lambda: chat(client, [{"role": "user", "content": text}]).choices[0].message.content

        first, _ = in_threads(say("a"))
        first[0].start()
        assert policy.entered.wait(20)
        threads, replies = in_threads(say("b"), say("c" * 50))
        for n, thread in enumerate(threads, 1):
            thread.start()
            wait_for_queue(client, n)
        policy.gate.set()
        for thread in threads:
            thread.join(20)
    assert replies[0] == "fine" and isinstance(replies[1], openai.BadRequestError)


def test_a_failure_of_the_policy_is_500_and_the_server_goes_on(capfd):
    class Broken(FakePolicy):
        broken = True

        def act(self, requests, sampling):
            if self.broken:
                raise RuntimeError("out of memory")
            return super().act(requests, sampling)

    policy = Broken(writes=["again"])
    with served(policy) as client:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError, match="The policy failed"):
                chat(client, stream=stream)
        policy.broken = False
        assert chat(client).choices[0].message.content == "again"
    assert "RuntimeError: out of memory" in capfd.readouterr().err


def test_a_request_whose_client_has_gone_is_not_generated():
    policy = SlowPolicy(writes=["x"])
    with served(policy) as client:
        first, _ = in_threads(lambda: chat(client))
        first[0].start()
        assert policy.entered.wait(20)
        for stream in (False, True):
            with pytest.raises(openai.APITimeoutError):
                chat(client.with_options(timeout=0.3), shown("gone"), temperature=0.5, stream=stream)
            wait_for_queue(client, 0)
        policy.gate.set()
        assert chat(client).choices
        first[0].join(20)
    assert len(policy.calls) == 2 and all(r.context.text != "gone" for _, requests in policy.calls for r in requests)


def test_a_generation_that_nobody_waits_for_ends_at_its_next_token(janus):
    queue, seen = GenerationQueue(janus, max_batch=4, max_waiting=4), []

    def on_tokens(index, ids):
        seen.append(len(ids))
        job.abandoned = len(ids) == 3

    job = Job(act_requests("text", user("hello"), 1, 3), Sampling(max_tokens=50), on_tokens)
    with pytest.raises(HttpError):
        queue.submit(job).future.result(20)
    queue.stop()
    assert seen == [1, 2, 3] and not queue.running
    with pytest.raises(HttpError, match="stopping"):
        queue.submit(Job(job.requests, job.sampling))


def test_the_code_of_the_how_to_runs(client, capsys):
    page = Path(__file__).parent.parent.parent / "docs" / "how-to" / "understanding-benchmarks.md"
    (block,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block.count("http://127.0.0.1:8000/v1") == 1 and block.count('"shapes_janus"') == 2
    block = block.replace("http://127.0.0.1:8000/v1", str(client.base_url)).replace("shapes_janus", "tiny")
    exec(compile(block.replace("temperature=0", "temperature=0, max_tokens=9"), str(page), "exec"), {})
    assert capsys.readouterr().out.strip()


def test_motets_own_judge_asks_it(client, janus):
    """rewards/judge/endpoint.py against `motet serve`."""
    endpoint = Endpoint(str(client.base_url), "tiny", retries=0, max_tokens=12, concurrency=3)
    images = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    replies = ask(endpoint, images, ["what colour?"] * 3, "judge")
    alone = janus.generate_text(["what colour?"] * 3, images, temperature=0.0, max_tokens=12)
    assert replies == [act.text for act in alone]
