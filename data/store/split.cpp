// SPDX-License-Identifier: Apache-2.0
#include "data/store/split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "data/store/part_of_store.h"
#include "runtime/core/error.h"
#include "runtime/core/rng.h"

namespace neoloom::data {
namespace {

using Samples = std::vector<int64_t>;

/// Returns how many samples each group gives, in proportion to its size and less than all of it where it has several.
std::vector<int64_t> shares_of(const std::vector<Samples>& groups, int64_t total, int64_t wanted) {
  std::vector<int64_t> counts;
  std::vector<std::pair<int64_t, size_t>> remainders;  // of the division by total, negated so that they sort downwards
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto size = static_cast<int64_t>(groups[i].size());
    counts.push_back(size * wanted / total);
    remainders.emplace_back(-(size * wanted % total), i);
  }
  std::sort(remainders.begin(), remainders.end());
  int64_t missing = wanted - std::accumulate(counts.begin(), counts.end(), int64_t{0});
  // The first round leaves a sample of each group to train; later rounds take it where that is the only way.
  for (const int64_t kept : {1, 0}) {
    for (const auto& [remainder, i] : remainders) {
      const bool can_give = counts[i] + kept < static_cast<int64_t>(groups[i].size());
      const int64_t given = missing > 0 && can_give ? 1 : 0;
      counts[i] += given;
      missing -= given;
    }
  }
  return counts;
}

/// Returns the samples of each label, of windows the rows; all in one group when they have several labels or none.
std::vector<Samples> groups_of(const TokenStore& store) {
  std::map<int64_t, Samples> by_label;
  for (int64_t row = 0; row < store.packs(); ++row) by_label[store.label(store.pack_begin(row))].push_back(row);
  std::vector<Samples> groups;
  groups.reserve(by_label.size());
  for (auto& [label, samples] : by_label) groups.push_back(std::move(samples));
  return groups;
}

/// Sorts samples by random numbers that the seed and each sample decide.
void shuffle(Samples& samples, int64_t seed) {
  const auto number = [seed](int64_t sample) {
    return core::mix64(core::mix64(static_cast<uint64_t>(seed)) ^ static_cast<uint64_t>(sample));
  };
  std::sort(samples.begin(), samples.end(),
            [&](int64_t a, int64_t b) { return std::pair(number(a), a) < std::pair(number(b), b); });
}

/// `rows`: samples, or of windows the rows.
std::shared_ptr<const TokenStore> part_of(std::shared_ptr<const TokenStore> store, Samples rows,
                                          const std::string& name) {
  if (store->pack_begins().empty()) {
    return std::make_shared<PartOfStore>(std::move(store), std::move(rows), name, PartOfStore::Grouping{});
  }
  Samples windows;
  std::vector<int64_t> begins = {0};
  for (const int64_t row : rows) {
    for (int64_t window = store->pack_begin(row); window < store->pack_begin(row + 1); ++window) {
      windows.push_back(window);
    }
    begins.push_back(static_cast<int64_t>(windows.size()));
  }
  return std::make_shared<PartOfStore>(std::move(store), std::move(windows), name,
                                       PartOfStore::Grouping{std::move(begins)});
}

}  // namespace

Split split_store(const std::shared_ptr<const TokenStore>& store, double share, int64_t seed) {
  const int64_t rows = store->packs();
  const auto wanted = static_cast<int64_t>(std::ceil(share * static_cast<double>(rows)));
  core::require(wanted > 0 && wanted < rows, core::ErrorKind::kData,
                "data.validation_split: {} of {} samples leaves nothing to train on; give more data, or another share",
                share, rows);
  std::vector<Samples> groups = groups_of(*store);
  const std::vector<int64_t> counts = shares_of(groups, rows, wanted);
  Samples train;
  Samples validation;
  for (size_t i = 0; i < groups.size(); ++i) {
    shuffle(groups[i], seed);
    validation.insert(validation.end(), groups[i].begin(), groups[i].begin() + counts[i]);
    train.insert(train.end(), groups[i].begin() + counts[i], groups[i].end());
  }
  std::sort(train.begin(), train.end());
  std::sort(validation.begin(), validation.end());
  const std::string name = fmt::format("{:a} of the samples, seed {}", share, seed);
  return {part_of(store, std::move(train), "train without " + name), part_of(store, std::move(validation), name)};
}

}  // namespace neoloom::data
