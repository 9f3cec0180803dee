"""Does what the question says."""

import asyncio
import os
import sys
import time
from pathlib import Path

from public_input_pb2 import Answer, Question


async def init(ctx):
    await ctx.configuration.set("greeting", os.environ["GREETING"], "workflow")
    await ctx.configuration.set("greeting", "of the node")


async def default_handler(ctx, data):
    question = Question()
    data.Unpack(question)
    answer = Answer(text=question.text, request=ctx.get_request_id())
    if question.what == "straight":
        await ctx.send_output(answer, "straight")
    elif question.what == "side":
        await ctx.send_output(answer, "side")
    elif question.what == "early":
        await ctx.send_early_reply(answer, "straight")
    elif question.what == "lost":
        await ctx.send_output(answer, "nowhere")
    elif question.what == "silence":
        pass
    elif question.what == "raise":
        raise ValueError(f"{question.text}\udcff" + "-" * 100_000)
    elif question.what == "sleep":
        await asyncio.sleep(60)
    elif question.what == "die":
        await asyncio.sleep(1)
        print("the last words", file=sys.stderr, flush=True)
        os.fork() or time.sleep(60)  # the child goes on, and holds the node's socket
        os._exit(3)
    elif question.what == "big":
        await ctx.send_output(Answer(text=os.urandom(2**20).hex()), "straight")
    elif question.what == "store":
        await ctx.object_store.save(question.text, b"stored \xff")
        await ctx.send_output(answer)
    elif question.what == "where":
        answer.words.words.extend(
            [ctx.path("assets/word.txt"), str(Path.cwd()), *sys.path, *sorted(os.environ)]
        )
        await ctx.send_output(answer, "straight")
    else:
        await ctx.send_output(answer)
