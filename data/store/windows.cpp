// SPDX-License-Identifier: Apache-2.0
#include "data/store/windows.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "data/store/part_of_store.h"

namespace neoloom::data {

std::vector<Window> windows_of(size_t tokens, size_t length, size_t stride, bool from_end) {
  std::vector<Window> windows;
  for (size_t begin = 0;; begin += length - stride) {
    const size_t end = std::min(tokens, begin + length);
    windows.push_back(from_end ? Window{tokens - end, tokens - begin} : Window{begin, end});
    if (end == tokens) return windows;
  }
}

std::shared_ptr<const TokenStore> windows_apart(std::shared_ptr<const TokenStore> store) {
  std::vector<int64_t> samples(static_cast<size_t>(store->size()));
  std::iota(samples.begin(), samples.end(), 0);
  return std::make_shared<PartOfStore>(std::move(store), std::move(samples), "windows apart",
                                       PartOfStore::Grouping{.changed = true});
}

int64_t rows_in_windows(const TokenStore& store) {
  int64_t rows = 0;
  for (int64_t row = 0; row < store.packs(); ++row) {
    rows += store.pack_begin(row + 1) - store.pack_begin(row) > 1 ? 1 : 0;
  }
  return rows;
}

std::string window_summary(const TokenStore& store) {
  if (store.pack_begins().empty()) return "";
  const int64_t rows = rows_in_windows(store);
  const int64_t windows = store.size() - (store.packs() - rows);
  return fmt::format("{} of {} rows ({:.3g} %) are longer than max_length and have {} windows", rows, store.packs(),
                     100.0 * static_cast<double>(rows) / static_cast<double>(store.packs()), windows);
}

}  // namespace neoloom::data
