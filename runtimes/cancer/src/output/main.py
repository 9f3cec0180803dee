"""The node `output`: probabilities in, the answer to the client out."""

from internal_nodes_pb2 import Scored
from public_input_pb2 import PredictResponse


async def default_handler(ctx, data):
    """Name the more probable class."""
    scored = Scored()
    data.Unpack(scored)
    answer = PredictResponse(error=scored.error)
    if not scored.error:
        answer.probabilities.update(scored.probabilities)
        answer.label = max(scored.probabilities, key=scored.probabilities.get)
    await ctx.send_output(answer)
