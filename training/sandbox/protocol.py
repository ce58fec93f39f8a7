"""Messages between the caller and its fork server, one a packet."""

import struct

# The caller starts a program and may stop it. The server says how its processes ended, and sends the descriptors of the
# next ones along, for a program that starts with the same message. It answers any other start with `READY` and
# descriptors first, and so it does after a message without descriptors: it could not prepare the next processes.
START = struct.Struct("=qqqq?")  # CPU seconds, memory, scratch, threads; whether solution and tests are apart
STOP, READY, PROBLEM = b"stop", b"ready", b"problem: "
ENDED = struct.Struct("=id")  # wait status and CPU seconds of one process
