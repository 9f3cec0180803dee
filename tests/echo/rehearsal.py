"""What the rehearsal does with messages, errors and nodes: the way of the engine."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tools.krt.rehearse import served


def refused(runtime, what, text=""):
    with pytest.raises(grpc.RpcError) as error:
        runtime.call("Ask", what=what, text=text)
    return error.value.code(), error.value.details()


def test_a_message_goes_from_node_to_node_by_subscriptions(runtime):
    assert runtime.call("Ask", text="hello").text == "hello by default"


def test_a_channel_reaches_those_who_subscribe_to_it(runtime):
    assert runtime.call("Ask", what="side", text="hello").text == "hello by default"


def test_custom_handlers_are_chosen_by_the_source(runtime):
    assert runtime.call("Ask", what="straight", text="hello").text == "hello from first"


def test_an_early_reply_bears_its_mark(runtime):
    assert runtime.call("Ask", what="early", text="hello").text == "hello from first, early"


def test_what_is_packed_is_handed_on_as_it_is(runtime):
    answer = runtime.call("Ask", text="any")
    assert answer.text == "any by default"
    assert not answer.words.words


def test_each_request_has_an_identity_of_its_own(runtime):
    answers = runtime.call_many("Ask", [{"text": str(n)} for n in range(50)])
    assert [answer.text for answer in answers] == [f"{n} by default" for n in range(50)]
    assert len({answer.request for answer in answers}) == 50


def test_strings_are_shared_by_scope_and_the_narrowest_is_found_first(runtime):
    assert runtime.call("Ask", text="hello").words.words[0] == "guten Tag"


def test_objects_are_shared_within_a_workflow_and_can_be_deleted(runtime):
    assert runtime.call("Ask", what="store", text="../a key").words.words[1] == b"stored \xff".hex()
    assert "nothing is called '../a key'" in runtime.call("Ask", text="../a key").words.words[1]


def test_a_node_sees_the_archive_and_nothing_of_this_repository(runtime):
    asset, cwd, *rest = runtime.call("Ask", what="where").words.words
    assert asset.endswith("/archive/assets/word.txt")
    assert cwd.endswith("/work")
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "AWS_SECRET_ACCESS_KEY", "IN_DOTENV"} & set(rest)
    assert not [path for path in rest if path.endswith("/tools/krt")]


def test_an_error_in_a_handler_names_the_node(runtime):
    code, said = refused(runtime, "raise", "no such word")
    assert code is grpc.StatusCode.INTERNAL
    assert said.startswith("Error in 'first': no such word?---"), "it is long, and no valid text"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("silence", "no node sent one"),
        ("lost", "nobody subscribes to 'first.nowhere'"),
    ],
)
def test_a_request_that_nobody_will_answer_is_told_at_once(runtime, what, said):
    code, details = refused(runtime, what)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert said in details


def test_an_answer_of_another_type_is_told(runtime):
    code, said = refused(runtime, "", "wrong")
    assert code is grpc.StatusCode.INTERNAL
    assert said == (
        "node 'last' answered with a echo.v1.Question: rpc Ask promises a echo.v1.Answer"
    )


def test_a_message_that_the_engine_would_not_carry_is_refused(runtime):
    _, said = refused(runtime, "big")
    assert said == "Error in 'first': compressed message exceeds maximum size allowed of 1 MB"


def test_an_rpc_that_no_workflow_has_is_unknown(runtime):
    with pytest.raises(grpc.RpcError) as error:
        runtime.call_bytes("Tell", b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_node_that_takes_too_long_is_named(request):
    with served(request.config.getoption("--krt"), "echo", "--seconds", "0.5") as runtime:
        code, said = refused(runtime, "sleep")
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert said == "no answer in 0.5 s: still at work is node 'first'"


def test_a_node_that_dies_is_told_with_its_last_words_to_all_who_wait(request):
    with served(request.config.getoption("--krt"), "echo") as runtime:
        with ThreadPoolExecutor() as pool:
            dying = pool.submit(refused, runtime, "die")
            time.sleep(0.3)  # it takes a second to die: these wait behind
            others = runtime.call_many("Ask", [{"text": "behind"}] * 5)
        for code, said in [dying.result(), *((e.code(), e.details()) for e in others)]:
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "node 'first' has ended (code 3)" in said
            assert "the last words" in said
        assert refused(runtime, "", "afterwards")[0] is grpc.StatusCode.UNAVAILABLE
