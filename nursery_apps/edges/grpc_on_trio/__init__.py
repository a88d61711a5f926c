"""gRPC on Unix sockets, driven by Trio: servers on grpclib's HTTP/2 without its event loop, and a client on h2 alone.

    wire          bytes: one writer per connection, back-pressure
    http2         frames: grpclib's and h2's state machines with Trio's ways to wait
    call          one call: request, cancel scopes, reply, trailers
    server        tasks: accept, drain, close
    client        no task: one call that is answered with a stream, on a connection of its own

grpclib does no I/O in its protocol classes, but waits on asyncio's Event and Queue; `http2` replaces just these. No asyncio loop ever
exists. Internals of grpclib and h2 are used, so both are pinned exactly; the contract suite with the C-core client decides about a bump.
"""
