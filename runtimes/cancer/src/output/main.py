"""The node `output`: from probabilities to the answer to the client."""

from internal_nodes_pb2 import Scored
from public_input_pb2 import PredictResponse


async def default_handler(ctx, data):
    """Answer with the probabilities and the more probable class, or the error."""
    scored = Scored()
    data.Unpack(scored)
    answer = PredictResponse(error=scored.error)
    if not scored.error:
        answer.probabilities.update(scored.probabilities)
        answer.label = max(scored.probabilities, key=scored.probabilities.get)
    await ctx.send_output(answer)
