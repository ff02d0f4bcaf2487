// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace neoloom::core {

/// Settles what libraries read once, before their first call; first thing in main.
///   descriptors   a closed standard output stays closed: no file that is opened later takes its number
///   MKL, cuBLAS   results must not depend on the alignment of buffers or on the state of workspaces
///   malloc        the same large buffers come and go in every step: handing their pages back to the system makes it
///                 clear them again each time, which takes up to a tenth of a step
///   SIGPIPE       a reader that went away ends the process by the signal, also when a launcher passed it on as ignored
///   SIGXFSZ       a file that reached the user's limit of file sizes (ulimit -f) is an error of its write, as on
///                 a full disk, and does not kill the process
/// Environment variables that the user has set stay.
void settle_process();

/// This machine's name; "unknown-host" when the system does not say.
std::string host_name();

}  // namespace neoloom::core
