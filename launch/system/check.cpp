// SPDX-License-Identifier: Apache-2.0
#include "launch/system/check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/core/wire.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

constexpr size_t kShownRanks = 8;

/// What several ranks found alike.
struct Group {
  Check check;
  std::vector<int> ranks;
};

bool alike(const Check& a, const Check& b) { return a.health == b.health && a.text == b.text && a.remedy == b.remedy; }

std::vector<Group> groups_of(const std::string& name, const std::vector<RankChecks>& all) {
  std::vector<Group> groups;
  for (const RankChecks& rank : all) {
    for (const Check& check : rank.checks) {
      if (check.name != name) continue;
      auto group =
          std::find_if(groups.begin(), groups.end(), [&](const Group& each) { return alike(each.check, check); });
      if (group == groups.end()) group = groups.insert(group, {check, {}});
      group->ranks.push_back(rank.rank);
    }
  }
  return groups;
}

std::vector<std::string> hosts_of(const std::vector<int>& ranks, const std::vector<RankChecks>& all) {
  std::vector<std::string> hosts;
  for (const RankChecks& each : all) {
    const bool named = std::find(ranks.begin(), ranks.end(), each.rank) != ranks.end();
    if (named && std::find(hosts.begin(), hosts.end(), each.host) == hosts.end()) hosts.push_back(each.host);
  }
  return hosts;
}

std::string place_text(const Check& check, const std::vector<RankChecks>& all) {
  if (check.ranks.empty()) return "";
  const std::vector<int> shown(check.ranks.begin(),
                               check.ranks.begin() + static_cast<long>(std::min(kShownRanks, check.ranks.size())));
  std::vector<std::string> hosts = hosts_of(check.ranks, all);
  const size_t more_hosts = hosts.size() > kShownRanks ? hosts.size() - kShownRanks : 0;
  hosts.resize(hosts.size() - more_hosts);
  return fmt::format(
      " (rank {}{} on {}{})", fmt::join(shown, ", "),
      shown.size() < check.ranks.size() ? fmt::format(" and {} more", check.ranks.size() - shown.size()) : "",
      fmt::join(hosts, ", "), more_hosts > 0 ? fmt::format(" and {} more", more_hosts) : "");
}

}  // namespace

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Check, name, health, text, remedy, must_agree, ranks)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankChecks, rank, host, checks)

const char* name_of(Health health) { return health == Health::kOk ? "ok" : health == Health::kWarn ? "warn" : "fail"; }

std::vector<Check> merge_checks(const std::vector<RankChecks>& all) {
  std::vector<std::string> names;
  for (const RankChecks& rank : all) {
    for (const Check& check : rank.checks) {
      if (std::find(names.begin(), names.end(), check.name) == names.end()) names.push_back(check.name);
    }
  }
  std::vector<Check> merged;
  for (const std::string& name : names) {
    std::vector<Group> groups = groups_of(name, all);
    // What most ranks found comes first.
    std::stable_sort(groups.begin(), groups.end(),
                     [](const Group& a, const Group& b) { return a.ranks.size() > b.ranks.size(); });
    for (const Group& group : groups) {
      Check check = group.check;
      if (groups.size() > 1) check.ranks = group.ranks;
      if (groups.size() > 1 && check.must_agree) {
        check.health = Health::kFail;
        if (check.remedy.empty()) check.remedy = "give all ranks the same";
      }
      merged.push_back(std::move(check));
    }
  }
  return merged;
}

std::string text_of(const std::vector<Check>& merged, const std::vector<RankChecks>& all) {
  std::string text;
  for (const Check& check : merged) {
    text += fmt::format("  {:<4}  {}: {}{}\n", name_of(check.health), check.name, check.text, place_text(check, all));
    if (check.health != Health::kOk) text += fmt::format("        -> {}\n", check.remedy);
  }
  return text;
}

ordered_json json_of(const std::vector<Check>& merged, const std::vector<RankChecks>& all) {
  ordered_json list = ordered_json::array();
  for (const Check& check : merged) {
    ordered_json each = {{"name", check.name}, {"state", name_of(check.health)}, {"text", check.text}};
    if (check.health != Health::kOk) each["remedy"] = check.remedy;
    if (!check.ranks.empty()) {
      each["ranks"] = check.ranks;
      each["hosts"] = hosts_of(check.ranks, all);
    }
    list.push_back(std::move(each));
  }
  return list;
}

std::string pack(const RankChecks& checks) { return core::to_wire(checks); }
RankChecks unpack_checks(const std::string& text) { return core::from_wire<RankChecks>(text); }

}  // namespace neoloom::launch
