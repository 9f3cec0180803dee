"""Answers; says from whom the message came."""

from public_input_pb2 import Answer, Question


async def default_handler(ctx, data):
    answer = Answer()
    data.Unpack(answer)
    if answer.text == "wrong":
        await ctx.send_output(Question(what="a question is no answer"))
        return
    answer.text += " by default" if ctx.is_message_ok() else " ?"
    await ctx.send_output(answer)


async def from_first(ctx, data):
    answer = Answer()
    data.Unpack(answer)
    answer.text += " from first" + (", early" if ctx.is_message_early_reply() else "")
    await ctx.send_output(answer)


custom_handlers = {"first": from_first}
