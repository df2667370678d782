"""Reward services: what is scored, what fails, and what is rejected; nothing is 0 for a failure."""

import asyncio
import threading
import time

import httpx
import pytest
from PIL import Image

from motet.cli.serve_rewards import serve_rewards
from motet.core.errors import ConfigError
from motet.rewards.image.jpeg import jpeg_compressibility
from motet.rewards.remote.protocol import parse_error, parse_reply
from motet.serving.rewards_config import load_service
from motet.serving.rewards_runner import State
from motet.serving.rewards_service import RewardService
from tests.serving import served_rewards
from tests.serving.service import body, config, encoded, generated, serve, serving, text

PATH = "tests.serving.served_rewards:"
BY_TEXT = {"name": f"{PATH}by_text"}
JPEG = {"name": "jpeg_compressibility", "serve_as": "jpeg"}
NOISE = Image.effect_noise((32, 24), 60).convert("RGB")
PLAIN = Image.new("RGB", (16, 16), "red")


def ask(settings, reward, *completions, **columns):
    """The status of a request, and the values and errors of the reply or the text of the error."""

    async def use(client):
        return await client.score(reward, *completions, **columns)

    response = serve(settings, use)
    if response.status_code != 200:
        return response.status_code, parse_error(response.content)
    reply = parse_reply(response.content, len(completions))
    return 200, reply.values, reply.errors


def test_values_are_those_of_the_reward_in_the_process() -> None:
    status, values, errors = ask(config(JPEG), "jpeg", generated(encoded(NOISE)), generated(encoded(PLAIN)))
    chats = [[{"role": "assistant", "content": [{"type": "image", "image": image}]}] for image in (NOISE, PLAIN)]
    assert (status, values, errors) == (200, jpeg_compressibility(chats), [None, None])


def test_an_async_reward_gets_its_columns() -> None:
    served = config({"name": f"{PATH}later"})
    assert ask(served, "later", text("a"), text("b"), gold=["1", "22"]) == (200, [1.0, 2.0], [None, None])
    status, problem = ask(served, "later", text("a"), text("b"))
    assert status == 422 and "requires the columns gold" in problem


def test_a_failure_is_an_error_of_its_completion_and_never_a_number() -> None:
    said = ["raise", "one", "nan", "none", "three", "raise"]
    status, values, errors = ask(config(BY_TEXT), "by_text", *map(text, said))
    assert (status, values) == (200, [None, 3.0, None, None, 5.0, None])
    assert [error is None for error in errors] == [False, True, False, True, True, False]
    assert "raised ValueError: it says so" in errors[0] and "returned nan" in errors[2]


def test_a_truncated_image_is_an_error_of_its_completion() -> None:
    truncated = generated(encoded(NOISE, 300))
    status, values, errors = ask(config(JPEG), "jpeg", truncated, generated(encoded(PLAIN)))
    assert status == 200 and values[0] is None and values[1] is not None
    assert "cannot be read" in errors[0] and errors[1] is None


def test_a_reward_that_violates_its_contract_is_an_error_of_every_completion() -> None:
    status, values, errors = ask(config({"name": f"{PATH}short"}), "short", text("a"), text("b"))
    assert (status, values) == (200, [None, None]) and all("returned 0 values" in error for error in errors)


@pytest.mark.parametrize(
    ("limits", "completion", "problem"),
    [
        ({"images": 1}, generated(encoded(PLAIN)), "more than 1 images"),
        ({"pixels": 255}, generated(encoded(PLAIN)), "16 x 16 pixels are more than 255"),
        ({"request_mb": 0.0002}, text("x" * 200), "more than 200 bytes"),
    ],
)
def test_what_is_too_large_is_rejected(limits, completion, problem) -> None:
    status, answer = ask(config(JPEG, limits=limits), "jpeg", completion, completion)
    assert status == 413 and problem in answer


def test_an_unknown_reward_is_named_with_those_that_exist() -> None:
    status, problem = ask(config(JPEG), "jpg", text("a"))
    assert status == 404 and "there are: jpeg. Did you mean 'jpeg'?" in problem


def test_a_malformed_request_is_rejected() -> None:
    async def use(client):
        headers = {"content-type": "application/json"}
        return [await client.http.post("/v1/score/jpeg", content=c, headers=headers) for c in (b"{", b"[]", b"\x80")]

    assert [response.status_code for response in serve(config(JPEG), use)] == [422, 422, 422]


def test_requests_that_wait_together_are_joined_and_their_answers_split() -> None:
    served_rewards.CALLS.clear()

    async def use(client):
        return await asyncio.gather(*(client.score("by_text", text("x" * n), text("none")) for n in range(8)))

    replies = serve(config(BY_TEXT, batching={"max_batch": 6, "wait_ms": 200}), use)
    assert [reply.json()["values"] for reply in replies] == [[float(n), None] for n in range(8)]
    assert served_rewards.CALLS == [6, 6, 4]


def test_requests_with_other_columns_are_not_joined() -> None:
    async def use(client):
        columns = [{}, {"gold": ["a"]}, {}, {"gold": ["b"]}]
        return await asyncio.gather(*(client.score("slow", text("x"), **each) for each in columns))

    replies = serve(config({"name": f"{PATH}slow"}, batching={"wait_ms": 100}), use)
    assert [reply.json()["values"] for reply in replies] == [[2.0]] * 4


def test_requests_for_a_reward_that_logs_are_not_joined() -> None:
    async def use(client):
        return await asyncio.gather(*(client.score("logging", *[text("x")] * n) for n in (1, 2)))

    replies = [reply.json() for reply in serve(config({"name": f"{PATH}logging"}, batching={"wait_ms": 100}), use)]
    assert [reply["metrics"] for reply in replies] == [{"count": 1.0}, {"count": 2.0}]
    assert [reply["extra"] for reply in replies] == [{"place": [0]}, {"place": [0, 1]}]


def test_a_full_queue_rejects_more_and_loses_none() -> None:
    async def use(client):
        return await asyncio.gather(*(client.score("slow", text("x")) for _ in range(6)))

    settings = config({"name": f"{PATH}slow"}, limits={"queue": 2}, batching={"max_batch": 1})
    replies = serve(settings, use)
    statuses = sorted(reply.status_code for reply in replies)
    assert set(statuses) == {200, 429} and statuses.count(200) >= 2
    assert all(reply.headers["retry-after"] for reply in replies if reply.status_code == 429)


def test_a_call_that_takes_too_long_is_an_error_and_the_reward_comes_back() -> None:
    served_rewards.RELEASE.clear()

    async def use(client):
        late = await client.score("by_text", text("hang"))
        busy = await client.score("by_text", text("x"))
        health = await client.http.get("/health")
        served_rewards.RELEASE.set()
        await client.ready()
        return late, busy, health, await client.score("by_text", text("x"))

    late, busy, health, again = serve(config(BY_TEXT | {"timeout": 0.1}), use)
    assert (late.status_code, busy.status_code, health.status_code, again.status_code) == (504, 503, 503, 200)
    assert busy.headers["retry-after"] and health.json()["rewards"] == {"by_text": "hanging"}


def test_a_request_whose_client_has_gone_is_not_scored() -> None:
    served_rewards.CALLS.clear()
    with serving(config(BY_TEXT, batching={"wait_ms": 400})) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/score/by_text", json=body(text("gone")), timeout=0.1)
        reply = httpx.post(f"{url}/v1/score/by_text", json=body(text("a"), text("b")), timeout=10)
    assert reply.json()["values"] == [1.0, 1.0]
    assert served_rewards.CALLS == [2]


def test_the_list_of_rewards_says_what_to_send() -> None:
    async def use(client):
        return await client.http.get("/v1/rewards")

    listed = serve(config(JPEG, {"name": f"{PATH}later"}), use).json()["rewards"]
    assert [(one["name"], one["required_columns"], one["accepts"]) for one in listed] == [
        ("jpeg", [], ["completions"]),
        ("later", ["gold"], ["completions", "gold"]),
    ]
    assert listed[1]["info"] == "The length of the gold text."


def test_health_and_requests_before_the_rewards_are_loaded() -> None:
    async def use(client):
        for queue in client.service.queues.values():
            queue.runner.state = State.LOADING
        answers = [await client.http.get("/health"), await client.http.get("/v1/rewards")]
        return [*answers, await client.score("jpeg", text("x"))]

    assert [answer.status_code for answer in serve(config(JPEG), use)] == [503, 503, 503]


def test_metrics_count_requests_completions_and_batches() -> None:
    async def use(client):
        await client.score("by_text", text("x"), text("none"), text("nan"))
        await client.score("by_text")
        await client.score("other", text("x"))
        return await client.http.get("/metrics")

    page = serve(config(BY_TEXT), use)
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'motet_reward_requests_total{reward="by_text",status="200"} 1',
        'motet_reward_requests_total{reward="by_text",status="422"} 1',
        'motet_reward_requests_total{reward="unknown",status="404"} 1',
        'motet_reward_completions_total{reward="by_text",outcome="value"} 1',
        'motet_reward_completions_total{reward="by_text",outcome="none"} 1',
        'motet_reward_completions_total{reward="by_text",outcome="error"} 1',
        'motet_reward_batch_completions_bucket{reward="by_text",le="2"} 0',
        'motet_reward_batch_completions_bucket{reward="by_text",le="4"} 1',
        'motet_reward_batch_completions_bucket{reward="by_text",le="+Inf"} 1',
        'motet_reward_ready{reward="by_text"} 1',
    ):
        assert line in page.text.splitlines()


def test_a_token_protects_all_but_health_and_the_description() -> None:
    async def use(client):
        paths = ("/health", "/openapi.json", "/metrics", "/v1/rewards")
        answers = [await client.http.get(path) for path in paths]
        return [*answers, await client.http.get("/v1/rewards", headers={"authorization": "Bearer secret"})]

    assert [answer.status_code for answer in serve(config(JPEG), use, token="secret")] == [200, 200, 401, 401, 200]


@pytest.mark.parametrize(
    ("name", "problem"), [("with_policy", "uses the policy"), ("with_state", "requires trainer_state")]
)
def test_rewards_that_cannot_be_served_are_named(name, problem) -> None:
    with pytest.raises(ConfigError, match=problem):
        RewardService(config({"name": f"{PATH}{name}"}), print)


def test_a_device_that_does_not_exist_ends_the_server() -> None:
    async def use(client):
        with pytest.raises(ConfigError, match="device='nonsense'"):
            await client.ready()

    serve(config(JPEG | {"device": "nonsense"}), use, ready=False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("port: 8000", "rewards"),
        ("rewards: []", "rewards"),
        ("rewards: [{name: jpeg_compressibility, weight: 2}]", "rewards.0.weight: is read where the reward is used"),
        ("rewards: [{name: psnr}, {name: psnr}]", "is served as 'psnr', and so is rewards.0"),
        ("rewards: [{name: psnr, serve_as: a/b}]", "is served as .a/b.; a name in a path"),
        ("rewards: [{name: psnr}]\nlimits: {pixel: 3}", "pixels"),
    ],
)
def test_a_wrong_file_is_reported_with_its_key(content, problem, tmp_path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=problem.replace("(", r"\(")):
        load_service(path)


def test_overrides_change_the_file(tmp_path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("rewards: [{name: psnr}]")
    assert load_service(path, ["port=9000", "limits.pixels=100"]).limits.pixels == 100


def test_a_server_that_is_stopped_answers_the_requests_under_way() -> None:
    answers = []

    def ask_and_keep(url):
        answers.append(httpx.post(f"{url}/v1/score/by_text", json=body(text("late")), timeout=10))

    with serving(config(BY_TEXT, batching={"wait_ms": 600})) as url:
        asking = threading.Thread(target=ask_and_keep, args=(url,))
        asking.start()
        while 'queue_length{reward="by_text"} 1' not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.01)
    asking.join()
    assert answers[0].json()["values"] == [4.0]


def test_a_reward_that_cannot_be_loaded_ends_the_command(tmp_path, capsys) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("port: 0\nrewards: [{name: jpeg_compressibility, device: nonsense}]")
    with pytest.raises(ConfigError, match="device='nonsense'"):
        serve_rewards(path, [])


def test_another_host_needs_a_token(tmp_path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("host: 0.0.0.0\nport: 0\nrewards: [{name: jpeg_compressibility}]")
    with pytest.raises(ConfigError, match="can be reached from other machines, and no token"):
        serve_rewards(path, [])
