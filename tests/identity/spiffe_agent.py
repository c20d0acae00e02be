"""An agent that asks who it is, with SPIFFE's own client, from inside its sandbox."""

import os

import spiffe

from ring0 import Context, agent


@agent
async def who(ctx: Context) -> dict[str, str]:
    with spiffe.WorkloadApiClient() as client:  # SPIFFE_ENDPOINT_SOCKET says where.
        context = client.fetch_x509_context()
        token = client.fetch_jwt_svid({"https://billing"})
    return {
        "name": str(context.default_svid.spiffe_id),
        "jwt": str(token.spiffe_id),
        "socket": os.environ["SPIFFE_ENDPOINT_SOCKET"],
    }
