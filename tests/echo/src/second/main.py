"""Adds what it knows, and hands on."""

from public_input_pb2 import Answer


def init(ctx):
    ctx.logger.info("an init need not be async")


async def default_handler(ctx, data):
    answer = Answer()
    data.Unpack(answer)
    if answer.text == "any":
        await ctx.send_any(data)
        return
    answer.words.words.append(await ctx.configuration.get("greeting"))
    try:
        answer.words.words.append((await ctx.object_store.get(answer.text)).hex())
        await ctx.object_store.delete(answer.text)
    except Exception as error:
        answer.words.words.append(str(error))
    await ctx.send_output(answer)
    answer.text = "too late"
    await ctx.send_output(answer)
