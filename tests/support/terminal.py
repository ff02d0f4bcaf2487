# SPDX-License-Identifier: Apache-2.0
"""Programs on a terminal."""

import fcntl
import os
import pty
import struct
import termios


def on_a_terminal(columns, command, environment):
    """Returns what the command writes to a terminal of this width."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execve(command[0], command, environment)
    text = b""
    try:
        while piece := os.read(terminal, 4096):
            text += piece
    except OSError:  # the end of a terminal
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    return text.decode()
