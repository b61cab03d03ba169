"""One model over several machines: a process that lends this machine's devices, and the tunnel that leads to it.

    engine process ── llama.cpp's RPC ──► Entrance ═══ TLS ═══► Exit ──► llama.cpp's RPC server     (lender process)
                       127.0.0.1          this machine │ that machine    127.0.0.1

llama.cpp's protocol knows neither encryption nor authentication, so it never leaves the loopback interface.
"""

# Says how llama.cpp's threads wait, before its library is loaded.
import backends.llama  # noqa: F401
