// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace neoloom::launch {

enum class Health { kOk, kWarn, kFail };

/// "ok", "warn", "fail".
const char* name_of(Health health);

/// What `neoloom doctor` found out about one thing.
struct Check {
  std::string name;  // "open files"; the same on every rank
  Health health = Health::kOk;
  std::string text;
  std::string remedy = {};      // for kWarn and kFail
  bool must_agree = false;      // ranks with different texts fail
  std::vector<int> ranks = {};  // in a report of several: those that differ from most; empty: all
};

/// The checks of one rank.
struct RankChecks {
  int rank = 0;
  std::string host;
  std::vector<Check> checks;
};

/// Makes one list of the checks of all ranks, in the order of their names. What ranks found alike is one check; what
/// fewer found names its ranks.
std::vector<Check> merge_checks(const std::vector<RankChecks>& all);

/// Lines "  warn   open files: ...", each remedy in a line below. `all` gives names of hosts to ranks.
std::string text_of(const std::vector<Check>& merged, const std::vector<RankChecks>& all);

/// [{"name": ..., "state": ..., "text": ..., "remedy": ..., "ranks": [...], "hosts": [...]}, ...]
nlohmann::ordered_json json_of(const std::vector<Check>& merged, const std::vector<RankChecks>& all);

/// To send them between ranks.
std::string pack(const RankChecks& checks);
RankChecks unpack_checks(const std::string& text);

}  // namespace neoloom::launch
