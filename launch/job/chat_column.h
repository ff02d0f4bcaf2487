// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "data/readers/file_sample.h"

namespace neoloom::launch {

/// A column whose cells are chats, lists of {role, content}.
struct ChatColumn {
  std::string name;
  std::string form;  // a data.template that has all roles; empty: the usual one does
  std::string note;  // of rows that hold no chat that can be learned; empty: there is none
};

/// Returns what the sample shows of a column; nullopt: its cells are no chats.
/// Throws: Error(kData) for chats without the role assistant, or of {from, value}, with what to do.
std::optional<ChatColumn> look_for_chats(const data::FileSample& sample, size_t column);

}  // namespace neoloom::launch
