"""A backend that shares no code with Shoal: plain grpcio, threads, and `backend.proto` read when it starts.

The node starts it in its folder with `--address unix:/…/1.sock --parent-pid N`. It then has to serve
`grpc.health.v1.Health` and `shoal.backend.v1.Backend` there; what it does not implement answers UNIMPLEMENTED.
"""

import argparse
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

# A copy of Shoal's proto/backend.proto lies beside this file. Needs the package grpcio-tools.
pb, services = grpc.protos_and_services("backend.proto")

SLOTS = 4
SERVICE = "shoal.backend.v1.Backend"
SERVING = health_pb2.HealthCheckResponse.SERVING


class Parrot(services.BackendServicer):
    def __init__(self, health_servicer):
        self.health = health_servicer
        self.settings = None

    def Describe(self, request, context):
        return pb.DescribeReply(engine="parrot", version="1", methods=["Describe", "Load", "Unload", "Generate"])

    def Load(self, request, context):
        settings = json.loads(request.settings_json or "{}")
        unknown = set(settings) - {"pause"}
        if unknown:
            # One sentence for a person; the code is for programs.
            context.set_trailing_metadata([("shoal-code", "invalid_value")])
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unknown setting {min(unknown)!r}; there is pause")
        yield pb.LoadReply(progress=pb.LoadProgress(fraction=0.5, stage="clearing its throat"))
        self.settings = settings
        self.health.set(SERVICE, SERVING)
        yield pb.LoadReply(
            loaded=pb.LoadedModel(
                digest=request.digest, context_length=4096, slots=SLOTS, capabilities=["chat", "completion"]
            )
        )

    def Unload(self, request, context):
        self.settings = None
        return pb.UnloadReply()

    def Generate(self, requests, context):
        if self.settings is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no model is loaded")
        request = next(requests)
        words = heard(request).split()
        # Tokens that the client has already: after the loss of a node, the answer goes on behind them.
        given = sum(len(tokens.ids) for tokens in request.given)
        limit = request.max_tokens if request.HasField("max_tokens") else len(words)
        for number in range(given, min(limit, len(words))):
            if not context.is_active():
                return
            time.sleep(self.settings.get("pause", 0))
            text = words[number] if number == 0 else " " + words[number]
            yield events(pb.GenerateEvent(text=pb.TextDelta(text=text, token_ids=[number])))
        reason = "length" if limit < len(words) else "stop"
        usage = pb.Usage(prompt_tokens=len(words), completion_tokens=min(limit, len(words)))
        yield events(pb.GenerateEvent(finished=pb.Finished(reason=reason)), pb.GenerateEvent(usage=usage))


def heard(request):
    """The last message, or the prompt."""
    if not request.messages_json:
        return request.prompt
    content = json.loads(request.messages_json)[-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def events(*found):
    return pb.GenerateReply(events=found)


def end_with(parent):
    """A node that is killed cannot end its backends; they have to notice."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--parent-pid", type=int)
    args = parser.parse_args()
    if args.parent_pid:
        threading.Thread(target=end_with, args=(args.parent_pid,), daemon=True).start()
    server = grpc.server(ThreadPoolExecutor(SLOTS + 4))
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    services.add_BackendServicer_to_server(Parrot(health_servicer), server)
    server.add_insecure_port(args.address)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
