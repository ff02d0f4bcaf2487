// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "launch/config/node.h"
#include "launch/config/run_config.h"

namespace neoloom::launch {

/// The files of a configuration.
struct ConfigFiles {
  std::vector<std::string> whole;            // each with one or more named groups
  std::map<std::string, std::string> group;  // name of a group -> a file that holds this group's keys alone
  bool empty() const { return whole.empty() && group.empty(); }
  std::string text() const;  // the names, for messages
};

/// Reads the files as one configuration and applies `overrides`.
/// Throws: Error(kUsage) as read_config of one file, and for a group that two files have, naming both.
RunConfig read_config(const ConfigFiles& files, const std::vector<std::string>& overrides);

/// Makes a configuration of a document, whose nodes may come from several files. `name` stands for them in messages.
RunConfig config_from(const Node& root, const std::string& name, const std::vector<std::string>& overrides);

}  // namespace neoloom::launch
