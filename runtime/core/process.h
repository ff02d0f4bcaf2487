// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace neoloom::core {

/// Sets what libraries read once, at their first call. Call it first in main.
///   descriptors   a closed standard output stays closed: no file that is opened later gets its descriptor
///   MKL, cuBLAS   results must not depend on the alignment of buffers or on the state of workspaces
///   malloc        keeps freed pages: every step allocates the same large buffers, and having the kernel zero their
///                 pages again takes up to a tenth of a step
///   SIGPIPE       a closed pipe ends the process by the signal, also when a launcher had it ignored
///   SIGXFSZ       is ignored, so that write() fails at the limit of file sizes (ulimit -f), as on a full disk
/// Does not overwrite environment variables that the user has set.
void settle_process();

/// Returns the file of the running program, or an empty path if /proc does not say. Unlike /proc/self/exe it is right
/// where a script starts the program through a loader of its own, as in a bundle.
std::filesystem::path program_file();

/// Returns the folder of program_file().
inline std::filesystem::path program_folder() { return program_file().parent_path(); }

/// This machine's name; "unknown-host" when the system does not say.
std::string host_name();

}  // namespace neoloom::core
