// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace CLI {  // NOLINT(readability-identifier-naming): its name
class App;
}

namespace neoloom::launch {

/// Returns commands that show how a command is used; "": of neoloom itself. Each is one line of a shell.
std::vector<std::string> examples_of(const std::string& command);

/// Adds the examples and the exit codes to the help of neoloom and of all commands.
void add_examples(CLI::App& app);

/// Returns the manual page in roff, made of the app's commands and options.
std::string man_page(const CLI::App& app);

/// Returns a script for bash that completes commands, options and their fixed values.
std::string bash_completion(const CLI::App& app);

}  // namespace neoloom::launch
